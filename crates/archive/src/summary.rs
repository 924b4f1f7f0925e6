//! What a check of a whole archive found.

use crate::header::Header;

/// Rows of one `TABLE DATA` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableData {
    /// Number of the entry.
    pub dump_id: i32,
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// Decoded bytes, with the terminator.
    pub bytes: u64,
    /// Rows, where they are in COPY's text format; `None` for INSERT statements.
    pub rows: Option<u64>,
    /// Whether a name may be shown wrongly: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
}

/// A whole archive that was read to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Header.
    pub header: Header,
    /// Entries of the table of contents.
    pub entries: u64,
    /// Rows of each table, in the order of the data.
    pub tables: Vec<TableData>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Decoded bytes of large objects.
    pub large_object_bytes: u64,
    /// Stored bytes that were read.
    pub stored_bytes: u64,
    /// Files of a directory archive, `toc.dat` first.
    pub files: Vec<String>,
}

impl TableData {
    /// Notes that the archive's encoding is not UTF-8.
    pub(crate) fn not_utf8(&mut self) {
        self.lossy |= !(self.schema.is_ascii() && self.name.is_ascii());
    }
}

impl ArchiveSummary {
    pub(crate) fn new(header: Header) -> Self {
        Self {
            header,
            entries: 0,
            tables: Vec::new(),
            large_objects: 0,
            large_object_bytes: 0,
            stored_bytes: 0,
            files: Vec::new(),
        }
    }

    /// Rows of all tables whose rows could be counted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }
}
