//! What a check of a whole archive found.

use crate::{
    catalogue::Catalogue, fingerprint::Fingerprint, header::Header, name::Name, toc::TocEntry,
};

/// Rows of one `TABLE DATA` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableData {
    /// Number of the entry.
    pub dump_id: i32,
    /// Oid of the table in the source; 0 in plain dumps.
    pub oid: u32,
    /// Schema of the table.
    pub schema: Name,
    /// Name of the table.
    pub name: Name,
    /// Decoded bytes, with the terminator.
    pub bytes: u64,
    /// Rows, where they are in COPY's text format; `None` for INSERT statements.
    pub rows: Option<u64>,
    /// Fingerprint of the rows, each without its line break, where one was asked for and the
    /// rows are in COPY's text format. Rows of a table that inherits are hashed over the hashes of
    /// their columns in the order of their names, because a restore may change the columns' order.
    pub fingerprint: Option<Fingerprint>,
    /// Whether a name may be shown wrongly: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
}

/// Value of one sequence: what the `setval` of its `SEQUENCE SET` entry sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceValue {
    /// Oid of the sequence in the source.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Value (`last_value`).
    pub value: i64,
    /// Whether the value was given out already (`is_called`).
    pub called: bool,
    /// As [`TableData::lossy`].
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
    /// Fingerprint of the large objects, where it was asked for: over the oid (4 bytes, big
    /// endian) and the hash of the content of each (16 bytes, big endian).
    pub large_object_fingerprint: Option<Fingerprint>,
    /// Values of sequences, in the order of the table of contents. One whose statement is not
    /// understood is not here.
    pub sequences: Vec<SequenceValue>,
    /// Definitions of all objects, where they were asked for.
    pub catalogue: Option<Catalogue>,
    /// Fingerprint of the catalogue ([`Catalogue::fingerprint`]), where it was asked for.
    pub catalogue_fingerprint: Option<Fingerprint>,
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

impl SequenceValue {
    /// The value that an entry `SEQUENCE SET` sets, where it is written as pg_dump does:
    /// `SELECT pg_catalog.setval('schema.name', 42, true);`.
    pub(crate) fn of(entry: &TocEntry) -> Option<Self> {
        let statement = entry.definition.as_deref()?.trim();
        let arguments = statement
            .strip_prefix("SELECT pg_catalog.setval(")?
            .strip_suffix(");")?;
        let mut from_end = arguments.rsplitn(3, ", ");
        let called = from_end.next()?.parse().ok()?;
        let value = from_end.next()?.parse().ok()?;
        Some(Self {
            oid: entry.oid,
            schema: entry.schema.clone().unwrap_or_default().to_string(),
            name: entry.name.to_string(),
            value,
            called,
            lossy: entry.lossy,
        })
    }

    fn not_utf8(&mut self) {
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
            large_object_fingerprint: None,
            sequences: Vec::new(),
            catalogue: None,
            catalogue_fingerprint: None,
            stored_bytes: 0,
            files: Vec::new(),
        }
    }

    /// Notes that the archive's encoding is not UTF-8.
    pub(crate) fn not_utf8(&mut self) {
        self.tables.iter_mut().for_each(TableData::not_utf8);
        self.sequences.iter_mut().for_each(SequenceValue::not_utf8);
    }

    /// Rows of all tables whose rows could be counted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }
}
