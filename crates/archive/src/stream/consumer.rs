//! What takes the data of an archive.

use std::io;

/// An entry with a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsEntry {
    /// Number of the entry.
    pub dump_id: i32,
    /// Oid of the table in the source.
    pub oid: u32,
    /// Schema; empty for what has none.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// `COPY s.t (a, b) FROM stdin;` and a line break.
    pub copy_statement: String,
    /// Whether a text here may be wrong: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
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
