//! Plain dumps: no panic; and an accepted script cut before its closing comment is refused.
#![no_main]

use std::io::{Cursor, Read};

use archive::{WithoutRanges, check_plain, open_plain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reader) = open_plain(Cursor::new(bytes)) {
        let _ = check_plain(reader.take(1 << 24));
    }
    let Ok(summary) = check_plain(Cursor::new(bytes)) else {
        return;
    };
    let closing = b"dump complete";
    let before = bytes
        .windows(closing.len())
        .position(|text| text == closing);
    let cut = before.expect("it has a closing comment");
    assert!(check_plain(Cursor::new(&bytes[..cut])).is_err());
    // Without its \restrict lines it is still whole.
    let mut rest = Vec::new();
    let ranges = summary.restrict_lines.clone();
    WithoutRanges::new(Cursor::new(bytes), ranges)
        .read_to_end(&mut rest)
        .expect("memory is read");
    let without = check_plain(Cursor::new(&rest)).expect("only \\restrict lines are gone");
    assert_eq!(without.tables, summary.tables);
    assert!(without.restrict_lines.is_empty());
});
