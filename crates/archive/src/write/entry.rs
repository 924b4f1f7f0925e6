//! The frame around the units of one `TABLE DATA` entry.

use crate::{
    error::ArchiveError,
    summary::TableData,
    write::{DumpData, UnitSummary, WriteFormat},
};

/// Writes what stands before and behind the units of an entry, in the order of the file: `begin`,
/// the bytes of each unit followed by `add` of its summary, `finish`. The bytes belong into the
/// custom archive, or into the entry's own file of a directory.
pub struct EntryWriter(());

impl EntryWriter {
    /// Appends what stands before the first unit to `output`.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold rows.
    pub fn begin(
        format: WriteFormat,
        entry: &DumpData,
        output: &mut Vec<u8>,
    ) -> Result<Self, ArchiveError> {
        let _ = (format, entry, output);
        Err(crate::write::soon())
    }

    /// Adds a unit whose bytes were written.
    pub fn add(&mut self, unit: &UnitSummary) {
        let _ = unit;
    }

    /// Appends the rows' terminator and what ends the data to `output`; says what the entry holds,
    /// as [`crate::check_custom`] would.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the compressor fails.
    pub fn finish(self, output: &mut Vec<u8>) -> Result<TableData, ArchiveError> {
        let _ = output;
        Err(crate::write::soon())
    }
}
