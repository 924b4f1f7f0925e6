//! Tar archives.
#![no_main]

use std::io::Cursor;

use archive::{CheckOptions, Fingerprints, ItemHash, check_tar};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::Xxh3,
        catalogue: archive::CatalogueDetail::Objects,
    };
    // Mutated headers rarely keep their checksum: it is put right, so that what is behind it is
    // reached.
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135])
            .ok()
            .and_then(|digits| usize::from_str_radix(digits.trim(), 8).ok());
        at += 512 + size.unwrap_or(0).div_ceil(512) * 512;
    }
    if let Ok(summary) = check_tar(Cursor::new(&bytes), &options) {
        assert_eq!(summary.stored_bytes, bytes.len() as u64);
    }
});
