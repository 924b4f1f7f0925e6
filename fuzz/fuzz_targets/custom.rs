//! Custom archives: no panic, and the same answer however the bytes arrive.
#![no_main]

use std::io::{Cursor, Read};

use archive::{CheckOptions, Fingerprints, ItemHash, check_custom, read_entry_data, read_toc};
use libfuzzer_sys::fuzz_target;

/// A reader that gives one byte at a time.
struct Single<R>(R);

impl<R: Read> Read for Single<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let length = buf.len().min(1);
        self.0.read(&mut buf[..length])
    }
}

fuzz_target!(|bytes: &[u8]| {
    let options = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::Xxh3,
        catalogue: archive::CatalogueDetail::Objects,
    };
    let Ok(summary) = check_custom(Cursor::new(bytes), &options) else {
        return;
    };
    let slowly = check_custom(Single(Cursor::new(bytes)), &options);
    assert_eq!(slowly.ok().as_ref(), Some(&summary));
    assert_eq!(summary.stored_bytes, bytes.len() as u64);
    let toc = read_toc(Cursor::new(bytes)).expect("the whole archive was read");
    assert_eq!(toc.entries.len() as u64, summary.entries);
    for table in &summary.tables {
        let mut length = 0;
        let mut count = |piece: &[u8]| {
            length += piece.len() as u64;
            Ok(())
        };
        read_entry_data(Cursor::new(bytes), table.dump_id, &mut count).expect("it was read");
        assert_eq!(length, table.bytes);
    }
});
