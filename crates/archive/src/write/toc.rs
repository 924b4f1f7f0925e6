//! The table of contents of pg_dump's own archive, copied into the archive to be made.

use std::io::{self, Read};

use crate::{
    error::ArchiveError, options::CheckOptions, summary::ArchiveSummary, write::WriteFormat,
};

/// What is kept of a table of contents that was copied.
#[derive(Debug)]
pub struct DumpToc {
    /// Header (that of the archive to be made), number of entries, sequences and, where it was
    /// asked for, the catalogue. Nothing of the data.
    pub summary: ArchiveSummary,
    /// Encoding of the archive, as its entry `ENCODING` names it (`UTF8`).
    pub encoding: Option<String>,
    /// Entries that have data, in the order of the table of contents.
    pub data: Vec<DumpData>,
    /// Bytes that were written.
    pub bytes: u64,
}

/// An entry that has data.
#[derive(Debug, Clone)]
pub struct DumpData {
    /// Number of the entry.
    pub dump_id: i32,
    /// Oid of the table in the source.
    pub oid: u32,
    /// What the data is.
    pub kind: DumpDataKind,
    /// Schema; empty for what has none.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// For directories: name of the data file or of the list of large objects, as the table of
    /// contents names it. The data file itself has [`WriteFormat::file_suffix`] behind it, the list
    /// never.
    pub file_name: Option<String>,
    /// Whether a text here may be wrong: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
    /// Of a table that inherits: the order of its columns' names.
    pub(crate) columns: Option<Vec<usize>>,
}

/// What the data of an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpDataKind {
    /// A table's rows in COPY's text format.
    Rows {
        /// `COPY s.t (a, b) FROM stdin;` and a line break.
        copy_statement: String,
    },
    /// Large objects.
    LargeObjects {
        /// Those of this entry, in the order of the table of contents, which names every one.
        oids: Vec<u32>,
    },
    /// Something else: INSERT statements.
    Other {
        /// Kind of the entry.
        kind: String,
    },
}

/// Reads header and table of contents of a custom archive as pg_dump writes it to a pipe, and
/// writes those of the archive to be made through `output`, in pieces of bounded size. The entries'
/// bytes stay as they are, whatever encoding they are in; only format and compression of the header
/// and, for a directory, the file names of the entries are made. What follows in `reader` is not
/// needed (some of it may have been read).
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Unsupported`] for unknown versions, for an archive that is not
/// custom, and for what [`WriteFormat::check`] refuses; [`ArchiveError::Consumer`] when `output`
/// fails.
pub fn copy_toc(
    reader: impl Read,
    format: WriteFormat,
    options: &CheckOptions<'_>,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<DumpToc, ArchiveError> {
    let _ = (reader, format, options, output);
    Err(crate::write::soon())
}
