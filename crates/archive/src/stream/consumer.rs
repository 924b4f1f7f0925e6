//! What takes the data of an archive.

use std::io;

use crate::{error::ArchiveError, name::Name, toc::TocEntry};

/// An entry with a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsEntry {
    /// Number of the entry.
    pub dump_id: i32,
    /// Oid of the table in the source.
    pub oid: u32,
    /// Schema; empty for what has none.
    pub schema: Name,
    /// Name of the table.
    pub name: Name,
    /// `COPY s.t (a, b) FROM stdin;` and a line break.
    pub copy_statement: Box<str>,
    /// Whether a text here may be wrong: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
}

impl RowsEntry {
    /// The entry, when it holds a table's rows in COPY's text format; others are refused.
    pub(crate) fn of(entry: &TocEntry) -> Result<Self, ArchiveError> {
        match &entry.copy_statement {
            Some(copy_statement) if entry.kind == "TABLE DATA" => Ok(Self {
                dump_id: entry.dump_id,
                oid: entry.oid,
                schema: entry.schema.clone().unwrap_or_default(),
                name: entry.name.clone(),
                copy_statement: copy_statement.clone(),
                lossy: entry.lossy,
            }),
            _ => Err(ArchiveError::Unsupported {
                problem: format!("{} holds no rows in COPY's text format", entry.describe()),
            }),
        }
    }

    /// Notes that the archive's encoding is not UTF-8.
    pub(crate) fn not_utf8(&mut self) {
        let texts = [&*self.schema, &*self.name, &*self.copy_statement];
        self.lossy |= !texts.iter().all(|text| text.is_ascii());
    }
}

/// Takes the data of an archive, one entry after the other. An error ends the stream.
pub trait DataConsumer {
    /// Rows of a table begin.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn begin_rows(&mut self, entry: &RowsEntry) -> io::Result<()>;

    /// Bytes of rows, cut anywhere, never those of the terminator.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn rows(&mut self, piece: &[u8]) -> io::Result<()>;

    /// The rows are all there: so many, and they were followed by their terminator.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn end_rows(&mut self, rows: u64) -> io::Result<()>;

    /// A large object begins.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn begin_large_object(&mut self, oid: u32) -> io::Result<()>;

    /// A part of its content.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn large_object(&mut self, piece: &[u8]) -> io::Result<()>;

    /// The large object is all there.
    ///
    /// # Errors
    /// Any; ends the stream.
    fn end_large_object(&mut self) -> io::Result<()>;
}
