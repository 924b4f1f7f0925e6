//! Units: parts of a table's rows that are counted, fingerprinted and compressed by themselves, in
//! any thread.

use crate::{
    error::ArchiveError,
    fingerprint::Fingerprint,
    write::{DumpData, WriteFormat},
};

/// Counts, fingerprints and compresses the rows of one unit.
pub struct UnitEncoder(());

/// What a unit held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSummary {
    /// Rows.
    pub rows: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Fingerprint of the rows, where it was asked for.
    pub fingerprint: Option<Fingerprint>,
    /// Checksum of the bytes, for gzip in a custom archive.
    pub(crate) adler: u32,
}

impl UnitEncoder {
    /// `fingerprint` says whether the rows are fingerprinted.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold rows, or a compressor cannot be
    /// made.
    pub fn new(
        format: WriteFormat,
        entry: &DumpData,
        fingerprint: bool,
    ) -> Result<Self, ArchiveError> {
        let _ = (format, entry, fingerprint);
        Err(crate::write::soon())
    }

    /// Takes bytes of rows, cut anywhere, and appends to `output` what is ready for the file.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when a row is the terminator, [`ArchiveError::Unsupported`] when
    /// the compressor fails.
    pub fn push(&mut self, rows: &[u8], output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let _ = (rows, output);
        Err(crate::write::soon())
    }

    /// Ends the unit and appends the rest of its bytes to `output`.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when the last row has no end, and those of [`UnitEncoder::push`].
    pub fn finish(self, output: &mut Vec<u8>) -> Result<UnitSummary, ArchiveError> {
        let _ = output;
        Err(crate::write::soon())
    }
}
