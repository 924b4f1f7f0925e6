//! Proof that stored backups are what they were, and that they can be read to their end.

mod archives;
mod decode;
mod directory;
mod pass;
mod report;

pub(crate) use archives::{Seen, Work as VerifyWork, check_archives};
pub use report::verify;
