//! Directory archives: two bytes with the length of `toc.dat`, then `toc.dat`, then what every
//! other file holds.
#![no_main]

use std::io::{self, Cursor};

use archive::{CheckOptions, Fingerprints, ItemHash, check_directory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (toc, file) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
    let options = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::Xxh3,
        catalogue: archive::CatalogueDetail::Objects,
    };
    // The compression of the files is that of their first byte.
    let ending = match file.first() {
        Some(0x1F) => ".gz",
        Some(0x04) => ".lz4",
        Some(0x28) => ".zst",
        _ => "",
    };
    let open = |name: &str| {
        assert!(
            !name.contains(['/', '\\']) && !name.starts_with('.'),
            "{name}"
        );
        if name.ends_with(".toc") || name.ends_with(ending) {
            Ok(Box::new(Cursor::new(file.to_vec())) as Box<dyn io::Read>)
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    };
    let _ = check_directory(Cursor::new(toc), open, &options);
});
