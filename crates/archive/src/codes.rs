//! Stable error codes of archives; documented in `docs/errors.md`.

/// The archive is cut, changed, or does not decode to its end.
pub const ARCHIVE_DAMAGED: &str = "ARCHIVE_DAMAGED";
/// The archive is of a version or kind that this program does not read.
pub const ARCHIVE_UNSUPPORTED: &str = "ARCHIVE_UNSUPPORTED";
/// The archive or script holds something that must not be run or followed.
pub const ARCHIVE_UNSAFE: &str = "ARCHIVE_UNSAFE";
/// The archive's bytes could not be read.
pub const ARCHIVE_UNREADABLE: &str = "ARCHIVE_UNREADABLE";

/// Every code of this crate, for the test that compares them with `docs/errors.md`.
pub const ALL: &[&str] = &[
    ARCHIVE_DAMAGED,
    ARCHIVE_UNSUPPORTED,
    ARCHIVE_UNSAFE,
    ARCHIVE_UNREADABLE,
];
