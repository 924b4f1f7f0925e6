//! Read and check the archive formats of pg_dump: custom, directory, tar and plain; write custom and
//! directory archives around its table of contents.
//!
//! Everything streams over [`std::io::Read`] in bounded memory: no length found in a file is
//! trusted, no more is kept than a few dozen bytes for each table, and hostile input ends in an
//! error. Nothing here opens files, knows of servers or runs programs.

mod catalogue;
pub mod codes;
mod columns;
mod contents;
mod custom;
mod data;
mod decode;
mod directory;
mod entries;
mod error;
mod fingerprint;
mod header;
mod lz4;
mod name;
mod options;
mod plain;
mod primitives;
mod rows;
mod select;
mod sql;
mod stream;
mod summary;
mod tar;
mod toc;
mod write;

pub use catalogue::{
    Catalogue, CatalogueDifference, CatalogueObject, DifferenceKind, read_catalogue,
};
pub use contents::{EachTable, summarize_contents};
pub use custom::{check_custom, check_custom_each, read_entry_data};
pub use directory::{check_directory, check_directory_each, read_directory_entry_data};
pub use entries::{Entry, Iter as TocIter, TocEntries};
pub use error::ArchiveError;
pub use fingerprint::{Fingerprint, ItemHash, NoFingerprint, NoItemHash};
pub use header::{ArchiveKind, ArchiveVersion, Compression, DumpTime, Header, MAGIC};
pub use name::{LastName, Name};
pub use options::{CatalogueDetail, CheckOptions, Fingerprints};
pub use plain::{PlainKind, PlainSummary, WithoutRanges, check_plain, open_plain};
pub use select::{Pattern, PatternError, Selected, Selection, list_file, select};
pub use sql::{SqlStatement, SqlToken, split_statements};
pub use stream::{
    DataConsumer, DirectoryEntry, RowsEntry, read_directory_entries, read_large_object_list,
    stream_custom, stream_directory_large_object, stream_directory_rows,
};
pub use summary::{ArchiveSummary, SequenceValue, TableData};
pub use tar::check_tar;
pub use toc::{DataPosition, Section, Toc, TocEntry, read_toc};
pub use write::{
    DumpData, DumpDataKind, DumpToc, EntryWriter, LargeObjectEncoder, LargeObjectsSummary,
    LargeObjectsWriter, UnitEncoder, UnitSummary, UsedEncoder, WriteFormat, copy_toc,
    toc_without_data,
};
