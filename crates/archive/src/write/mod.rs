//! Writing of archives from the table of contents of pg_dump's and rows that come from elsewhere.

mod adler;
mod compress;
mod entry;
mod format;
mod frames;
mod large_objects;
mod toc;
mod toc_only;
mod unit;

pub use entry::EntryWriter;
pub use format::WriteFormat;
pub use large_objects::{LargeObjectEncoder, LargeObjectsSummary, LargeObjectsWriter};
pub use toc::{DumpData, DumpDataKind, DumpToc, copy_toc};
pub use toc_only::toc_without_data;
pub use unit::{UnitEncoder, UnitSummary, UsedEncoder};
