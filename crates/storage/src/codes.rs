//! Stable error codes of stores; documented in `docs/errors.md`.

/// The store cannot be reached, read or written.
pub const STORE_UNREACHABLE: &str = "STORE_UNREACHABLE";
/// The store has no room left.
pub const STORE_FULL: &str = "STORE_FULL";
/// The store's directory or a file in it is unsafe (link, foreign owner, loose mode).
pub const STORE_UNSAFE: &str = "STORE_UNSAFE";
/// The named stream is not in the store.
pub const STORE_NOT_FOUND: &str = "STORE_NOT_FOUND";

/// Every code of this crate, for the test that compares them with `docs/errors.md`.
pub const ALL: &[&str] = &[STORE_UNREACHABLE, STORE_FULL, STORE_UNSAFE, STORE_NOT_FOUND];
