//! Units: parts of a table's rows that are counted, fingerprinted and compressed by themselves, in
//! any thread.

use crate::{
    error::ArchiveError,
    fingerprint::{Fingerprint, ItemHash},
    rows::RowCounter,
    write::{
        DumpData, WriteFormat,
        compress::{Compressor, Role},
    },
};

/// Most bytes that are counted before they are compressed, so that they are still in the cache.
const SLICE: usize = 64 * 1024;

/// Counts, fingerprints and compresses the rows of one unit. Several may work at once; their bytes
/// are written one after the other, in the order of the rows.
pub struct UnitEncoder {
    rows: RowCounter,
    bytes: u64,
    compressor: Compressor,
    /// The entry's number.
    dump_id: i32,
    /// The entry in words.
    subject: String,
}

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
    /// `hash`: by what the rows are fingerprinted, if at all.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold rows, and for a level that does
    /// not exist.
    pub fn new(
        format: WriteFormat,
        entry: &DumpData,
        hash: Option<ItemHash>,
    ) -> Result<Self, ArchiveError> {
        format.check_level()?;
        let compressor = Compressor::new(format, Role::Part);
        Self::of(compressor, entry, hash)
    }

    fn of(
        compressor: Compressor,
        entry: &DumpData,
        hash: Option<ItemHash>,
    ) -> Result<Self, ArchiveError> {
        entry.copy_statement()?;
        Ok(Self {
            rows: RowCounter::new(hash, entry.columns.as_deref().map(<[usize]>::to_vec)),
            bytes: 0,
            compressor,
            dump_id: entry.dump_id,
            subject: format!("the data of {}", entry.describe()),
        })
    }

    /// Takes bytes of rows, cut anywhere, and appends to `output` what is ready for the file.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when something follows a row that is the terminator,
    /// [`ArchiveError::Compress`].
    pub fn push(&mut self, rows: &[u8], output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        for slice in rows.chunks(SLICE) {
            if let Err(problem) = self.rows.push(slice) {
                return Err(damaged(self.subject.clone(), self.bytes, problem));
            }
            self.bytes += slice.len() as u64;
            self.compressor.push(slice, output)?;
        }
        Ok(())
    }

    /// Ends the unit and appends the rest of its bytes to `output`.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when the last row has no end or is the terminator,
    /// [`ArchiveError::Compress`].
    pub fn finish(self, output: &mut Vec<u8>) -> Result<UnitSummary, ArchiveError> {
        Ok(self.finish_for_another(output)?.0)
    }

    /// As [`Self::finish`]; the room that the compressor took, and what it learned of the entry's
    /// rows, serve another unit.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_for_another(
        mut self,
        output: &mut Vec<u8>,
    ) -> Result<(UnitSummary, UsedEncoder), ArchiveError> {
        let rows = self
            .rows
            .finish_part()
            .map_err(|problem| damaged(self.subject, self.bytes, problem))?;
        let summary = UnitSummary {
            rows: rows.rows,
            bytes: self.bytes,
            fingerprint: rows.fingerprint,
            adler: self.compressor.finish(output)?,
        };
        let used = UsedEncoder {
            compressor: self.compressor,
            dump_id: self.dump_id,
        };
        Ok((summary, used))
    }
}

/// What is left of an encoder when its unit ended: the compressor with its memory and its level.
pub struct UsedEncoder {
    compressor: Compressor,
    dump_id: i32,
}

impl UsedEncoder {
    /// An encoder of the same format for another unit, of the same entry or of another one.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold rows, [`ArchiveError::Compress`].
    pub fn again(
        mut self,
        entry: &DumpData,
        hash: Option<ItemHash>,
    ) -> Result<UnitEncoder, ArchiveError> {
        if entry.dump_id != self.dump_id {
            self.compressor.something_else()?;
        }
        UnitEncoder::of(self.compressor, entry, hash)
    }
}

fn damaged(subject: String, offset: u64, problem: &str) -> ArchiveError {
    ArchiveError::Damaged {
        subject,
        offset,
        problem: problem.to_owned(),
    }
}
