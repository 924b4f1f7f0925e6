//! Custom archives: header, table of contents and data blocks in one file.
//!
//! Source of facts: PostgreSQL's `pg_backup_custom.c`. After the table of contents come blocks:
//! a type byte (1 rows, 3 large objects), the entry's number, and then pieces, each with its
//! length before it, until a length of 0. Large objects are an oid and pieces each, until oid 0.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::{
    contents::{Contents, EachTable, Tables},
    data::{DataEntry, DataSink, LargeObjectSink},
    decode::{DecodeError, Decoder, Wrapping},
    error::ArchiveError,
    header::{ArchiveKind, Compression},
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::ArchiveSummary,
    toc::DataPosition,
};

/// Type of a block of rows.
pub(crate) const BLOCK_DATA: u8 = 1;
/// Type of a block of large objects.
pub(crate) const BLOCK_LARGE_OBJECTS: u8 = 3;

/// Reads a whole custom archive to its last byte: structure, offsets, decompression, terminators
/// of the rows, nothing missing and nothing after the end. Memory is constant but for a few
/// dozen bytes for each table.
///
/// A flipped bit inside compressed data is found by the decompressors' own checks only where
/// there are any: always for gzip, for zstd when frame checksums are on or the structure breaks;
/// in the table of contents, in LZ4 and in uncompressed data only the hash of the file tells.
///
/// # Errors
/// [`ArchiveError`].
pub fn check_custom(
    reader: impl Read,
    options: &CheckOptions<'_>,
) -> Result<ArchiveSummary, ArchiveError> {
    check_custom_each(reader, options, None)
}

/// As [`check_custom`], where `each` takes the tables as they come: the summary holds those that it
/// gives back.
///
/// # Errors
/// [`ArchiveError`].
pub fn check_custom_each(
    reader: impl Read,
    options: &CheckOptions<'_>,
    each: Option<&mut EachTable<'_>>,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the archive");
    let mut contents = Contents::read(&mut reader, ArchiveKind::Custom, options)?;
    let mut tables = Tables::new(&contents, each);
    let summary = &mut contents.summary;
    let entries = &contents.entries;
    let mut promised = Promised::new(entries);
    let mut decoder = decoder(&reader, summary.header.compression)?;
    while let Some((entry, large_objects)) = begin_block(&mut reader, &mut promised)? {
        if large_objects {
            loop {
                let oid = reader.oid("the oid of a large object")?;
                if oid == 0 {
                    break;
                }
                let mut sink = LargeObjectSink::new(oid, options.of_large_objects());
                read_pieces(&mut reader, &mut decoder, &mut |piece| {
                    sink.push(piece);
                    Ok(())
                })?;
                sink.add_to(summary);
            }
        } else {
            let mut sink = DataSink::new(entry, options);
            read_pieces(&mut reader, &mut decoder, &mut |piece| sink.push(piece))?;
            tables.add(sink.finish()?);
        }
    }
    promised.all_there()?;
    summary.stored_bytes = reader.offset();
    summary.tables = tables.kept;
    Ok(contents.finish())
}

/// Reads the data of one entry of a custom archive, decoded, and hands it over in pieces. For an
/// entry with a table's rows these are the lines of COPY with their terminator, or INSERT
/// statements. What stands behind it in the archive is not read.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::DataMissing`] when the entry has no data,
/// [`ArchiveError::Unsupported`] for large objects, [`ArchiveError::Consumer`] when `output`
/// fails.
pub fn read_entry_data(
    reader: impl Read,
    dump_id: i32,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the archive");
    let contents = Contents::read(&mut reader, ArchiveKind::Custom, &CheckOptions::default())?;
    contents.rows_of(dump_id)?;
    let entries = &contents.entries;
    let mut promised = Promised::new(entries);
    let mut decoder = decoder(&reader, contents.summary.header.compression)?;
    while let Some((entry, large_objects)) = begin_block(&mut reader, &mut promised)? {
        if entry.dump_id() == dump_id {
            return read_pieces(&mut reader, &mut decoder, &mut |piece| {
                output(piece).map_err(|source| ArchiveError::Consumer { source })
            });
        }
        if large_objects {
            while reader.oid("the oid of a large object")? != 0 {
                skip_pieces(&mut reader)?;
            }
        } else {
            skip_pieces(&mut reader)?;
        }
    }
    Err(contents.no_data(dump_id))
}

/// Reads pieces to the length of 0 and decodes nothing.
pub(crate) fn skip_pieces<R: Read>(reader: &mut ArchiveReader<R>) -> Result<(), ArchiveError> {
    loop {
        let length = piece_length(reader)?;
        if length == 0 {
            return Ok(());
        }
        reader.take(length, "data", |_| Ok(()))?;
    }
}

/// The entries that data must come for.
pub(crate) struct Promised<'a> {
    /// In the order of the table of contents, which is that of the data as a rule.
    left: &'a [DataEntry],
    /// The same by their numbers, once the data came in another order.
    by_number: Option<HashMap<i32, &'a DataEntry>>,
}

impl<'a> Promised<'a> {
    pub(crate) fn new(entries: &'a [DataEntry]) -> Self {
        Self {
            left: entries,
            by_number: None,
        }
    }

    /// The entry of this number, once.
    fn take(&mut self, dump_id: i32) -> Option<&'a DataEntry> {
        let by_number = match &mut self.by_number {
            Some(by_number) => by_number,
            None => match self.left {
                [next, left @ ..] if next.dump_id() == dump_id => {
                    self.left = left;
                    return Some(next);
                }
                left => {
                    let numbered = left.iter().map(|entry| (entry.dump_id(), entry));
                    self.by_number.insert(numbered.collect())
                }
            },
        };
        by_number.remove(&dump_id)
    }

    /// Refuses an archive that ended before all data was there, and names what is missing in the
    /// order of the table of contents.
    pub(crate) fn all_there(&self) -> Result<(), ArchiveError> {
        let is_missing = |entry: &&DataEntry| match &self.by_number {
            Some(by_number) => by_number.contains_key(&entry.dump_id()),
            None => true,
        };
        let missing = self.left.iter().filter(is_missing);
        let missing: Vec<_> = missing.map(DataEntry::describe).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ArchiveError::DataMissing { missing })
        }
    }
}

fn piece_length<R: Read>(reader: &mut ArchiveReader<R>) -> Result<u64, ArchiveError> {
    let length = reader.int("the length of a piece of data")?;
    u64::try_from(length).map_err(|_| reader.damaged(format!("a piece of data of {length} bytes")))
}

/// The entry whose data comes next, and whether it is large objects; `None` at the end of the
/// file.
pub(crate) fn begin_block<'a, R: Read>(
    reader: &mut ArchiveReader<R>,
    promised: &mut Promised<'a>,
) -> Result<Option<(&'a DataEntry, bool)>, ArchiveError> {
    let begin = reader.offset();
    let Some(kind) = reader.byte_or_end()? else {
        return Ok(None);
    };
    if !matches!(kind, BLOCK_DATA | BLOCK_LARGE_OBJECTS) {
        return Err(reader.damaged(format!("a data block is of the unknown type {kind}")));
    }
    let dump_id = reader.int32("the number of a data block")?;
    let Some(entry) = promised.take(dump_id) else {
        return Err(reader.damaged(format!(
            "there is data for entry {dump_id}, which has none or had its data already"
        )));
    };
    if let DataPosition::At(offset) = entry.position()
        && offset != begin
    {
        return Err(reader.damaged(format!(
            "the data of {} begins here, and the table of contents says {offset}",
            entry.describe()
        )));
    }
    let large_objects = kind == BLOCK_LARGE_OBJECTS;
    if large_objects != entry.is_large_objects() {
        return Err(reader.damaged(format!(
            "the data of {} is of the wrong type",
            entry.describe()
        )));
    }
    Ok(Some((entry, large_objects)))
}

/// Reads pieces to the length of 0 and decodes them.
pub(crate) fn read_pieces<R: Read>(
    reader: &mut ArchiveReader<R>,
    decoder: &mut Decoder,
    output: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    loop {
        let mut left = piece_length(reader)?;
        if left == 0 {
            break;
        }
        decoder.begin_block();
        while left > 0 {
            let buffered = reader.fill()?;
            if buffered.is_empty() {
                return Err(reader.cut("data"));
            }
            let now = buffered
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let decoded = decoder.push(&buffered[..now], output);
            reader.consume(now);
            left -= now as u64;
            if let Err(error) = decoded {
                return Err(located(reader, error));
            }
        }
    }
    decoder.finish().map_err(|error| located(reader, error))
}

/// One decoder serves all entries of an archive, one after the other.
pub(crate) fn decoder<R: Read>(
    reader: &ArchiveReader<R>,
    compression: Compression,
) -> Result<Decoder, ArchiveError> {
    Decoder::new(compression, Wrapping::Blocks).map_err(|error| located(reader, error))
}

/// Adds the place to what a decoder said.
pub(crate) fn located<R: Read>(reader: &ArchiveReader<R>, error: DecodeError) -> ArchiveError {
    match error {
        DecodeError::Problem(problem) => reader.damaged(problem),
        DecodeError::Output(ArchiveError::Damaged {
            subject, problem, ..
        }) => ArchiveError::Damaged {
            subject,
            offset: reader.offset(),
            problem,
        },
        DecodeError::Output(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::{Section, TocEntry};

    fn entry(dump_id: i32) -> DataEntry {
        let entry = TocEntry {
            dump_id,
            table_oid: 0,
            oid: 7,
            has_data: true,
            kind: "TABLE DATA".into(),
            name: format!("t{dump_id}").into(),
            schema: None,
            tablespace: None,
            access_method: None,
            owner: None,
            section: Section::Data,
            definition: None,
            copy_statement: None,
            dependencies: Box::default(),
            position: DataPosition::NotSet,
            file_name: None,
            lossy: false,
        };
        DataEntry::of(entry, false)
    }

    #[test]
    fn each_entry_has_its_data_once_in_any_order() {
        let entries: Vec<_> = [9, 2, 5, 4].map(entry).into();
        for (order, missing) in [
            (&[9, 2, 5, 4][..], &[][..]),
            (&[4, 5, 2, 9], &[]),
            (&[9, 4], &["t2", "t5"]),
            (&[9], &["t2", "t5", "t4"]),
            (&[], &["t9", "t2", "t5", "t4"]),
        ] {
            let mut promised = Promised::new(&entries);
            for dump_id in order {
                let taken = promised.take(*dump_id).map(DataEntry::dump_id);
                assert_eq!(taken, Some(*dump_id), "{order:?}");
            }
            match promised.all_there() {
                Ok(()) => assert!(missing.is_empty(), "{order:?}"),
                Err(ArchiveError::DataMissing { missing: named }) => {
                    assert_eq!(named.len(), missing.len(), "{named:?}");
                    let mut both = named.iter().zip(missing);
                    assert!(
                        both.all(|(named, table)| named.contains(table)),
                        "{named:?}"
                    );
                }
                Err(other) => panic!("{other}"),
            }
            for dump_id in order.iter().chain(&[1]) {
                assert!(promised.take(*dump_id).is_none(), "{order:?}");
            }
        }
    }
}
