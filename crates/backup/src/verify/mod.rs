//! Proof that stored backups are what they were, and that they can be read to their end.

mod archives;
mod report;

pub(crate) use archives::check_archives;
pub use report::verify;
