//! The frame around the units of one `TABLE DATA` entry.

use crate::{
    custom::BLOCK_DATA,
    error::ArchiveError,
    fingerprint::Fingerprint,
    header::Compression,
    rows::END as TERMINATOR,
    summary::TableData,
    write::{
        DumpData, UnitSummary, WriteFormat,
        adler::{EMPTY, adler, combine},
        compress::{Compressor, Role, write_block_begin, write_int, write_piece},
    },
};

/// Deflate with a window of 32 KiB, no dictionary, the fastest level, and the check bits (RFC 1950,
/// 2.2).
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];
/// A deflate block that is the last, is not compressed, and holds as many bytes as the terminator
/// has (RFC 1951, 3.2.4).
const STORED: &[u8] = &[0x01, 0x05, 0x00, 0xFA, 0xFF];

/// Writes what stands before and behind the units of an entry, in the order of the file: `begin`,
/// the bytes of each unit followed by `add` of its summary, `finish`. The bytes belong into the
/// custom archive, or into the entry's own file of a directory.
pub struct EntryWriter {
    format: WriteFormat,
    adler: u32,
    table: TableData,
}

impl EntryWriter {
    /// Appends what stands before the first unit to `output`.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold rows, and for a level that does
    /// not exist.
    pub fn begin(
        format: WriteFormat,
        entry: &DumpData,
        output: &mut Vec<u8>,
    ) -> Result<Self, ArchiveError> {
        format.check_level()?;
        entry.copy_statement()?;
        write_block_begin(format, BLOCK_DATA, entry.dump_id, output);
        if stitched(format) {
            write_piece(&ZLIB_HEADER, output);
        }
        Ok(Self {
            format,
            adler: EMPTY,
            table: TableData {
                dump_id: entry.dump_id,
                oid: entry.oid,
                schema: entry.schema.clone(),
                name: entry.name.clone(),
                bytes: 0,
                rows: Some(0),
                fingerprint: None,
                lossy: entry.lossy,
            },
        })
    }

    /// Adds a unit whose bytes were written.
    pub fn add(&mut self, unit: &UnitSummary) {
        self.adler = combine(self.adler, unit.adler, unit.bytes);
        let table = &mut self.table;
        table.bytes += unit.bytes;
        table.rows = table.rows.map(|rows| rows + unit.rows);
        Fingerprint::merge_some(&mut table.fingerprint, unit.fingerprint);
    }

    /// Appends the rows' terminator and what ends the data to `output`; says what the entry holds,
    /// as [`crate::check_custom`] would. A table whose rows are fingerprinted needs a unit even when
    /// it has no rows.
    ///
    /// # Errors
    /// [`ArchiveError::Compress`].
    pub fn finish(mut self, output: &mut Vec<u8>) -> Result<TableData, ArchiveError> {
        if stitched(self.format) {
            let bytes = TERMINATOR.len() as u64;
            let adler = combine(self.adler, adler(TERMINATOR), bytes);
            write_piece(&[STORED, TERMINATOR, &adler.to_be_bytes()].concat(), output);
        } else {
            let mut compressor = Compressor::new(self.format, Role::Part);
            compressor.push(TERMINATOR, output)?;
            compressor.finish(output)?;
        }
        if self.format.custom() {
            write_int(0, output);
        }
        self.table.bytes += TERMINATOR.len() as u64;
        Ok(self.table)
    }
}

/// Whether the units are parts of one zlib stream.
fn stitched(format: WriteFormat) -> bool {
    format.custom() && format.compression == Compression::Gzip
}
