//! What an archive holds, object by object, and what lies between two of them.

mod compare;
mod contents;

pub use compare::{DatabaseDiff, ObjectChange, ObjectDiff, RowsDiff, diff};
pub use contents::{ArchiveContents, contents};
