//! The data of a custom archive.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use crate::{
    contents::{Part, walk},
    custom::{Promised, begin_block, decoder, read_pieces, skip_pieces},
    data::DataEntry,
    error::ArchiveError,
    header::ArchiveKind,
    options::CheckOptions,
    primitives::ArchiveReader,
    stream::{
        DataConsumer, RowsEntry,
        rows::{RowStream, refused},
    },
};

/// Reads a custom archive once, to its last byte, and hands over the data of the entries that are
/// wanted by their number, decoded, in the order of the file. `wanted` is asked once for each entry
/// with data, while the table of contents is read; data that is not wanted is not decoded. What has
/// been handed over when an error comes was all from before the damage, but the rest is missing.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Unsupported`] for a wanted entry whose rows are not in COPY's
/// text format, [`ArchiveError::Consumer`] when `consumer` fails.
pub fn stream_custom(
    reader: impl Read,
    wanted: &mut dyn FnMut(i32) -> bool,
    consumer: &mut dyn DataConsumer,
) -> Result<(), ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the archive");
    let mut entries = Vec::new();
    let mut rows: HashMap<i32, RowsEntry> = HashMap::new();
    let mut large_objects = HashSet::new();
    let walked = walk(
        &mut reader,
        Some(ArchiveKind::Custom),
        &CheckOptions::default(),
        &mut |_, part| {
            let Part::Entry { entry, inherits } = part else {
                return Ok(());
            };
            if entry.has_data {
                if wanted(entry.dump_id) {
                    if entry.kind == "BLOBS" {
                        large_objects.insert(entry.dump_id);
                    } else {
                        rows.insert(entry.dump_id, RowsEntry::of(&entry)?);
                    }
                }
                entries.push(DataEntry::of(*entry, inherits));
            }
            Ok(())
        },
    )?;
    if !walked.utf8 {
        rows.values_mut().for_each(RowsEntry::not_utf8);
    }
    let mut promised = Promised::new(&entries);
    let mut decoder = decoder(&reader, walked.summary.header.compression)?;
    while let Some((entry, objects)) = begin_block(&mut reader, &mut promised)? {
        if objects {
            let wanted = large_objects.contains(&entry.dump_id());
            loop {
                let oid = reader.oid("the oid of a large object")?;
                if oid == 0 {
                    break;
                }
                if !wanted {
                    skip_pieces(&mut reader)?;
                    continue;
                }
                consumer.begin_large_object(oid).map_err(refused)?;
                read_pieces(&mut reader, &mut decoder, &mut |piece| {
                    large_object(consumer, piece)
                })?;
                consumer.end_large_object().map_err(refused)?;
            }
        } else if let Some(entry) = rows.remove(&entry.dump_id()) {
            let mut stream = RowStream::begin(&entry, consumer)?;
            read_pieces(&mut reader, &mut decoder, &mut |piece| stream.push(piece))?;
            stream.finish()?;
        } else {
            skip_pieces(&mut reader)?;
        }
    }
    promised.all_there()
}

/// Hands over a part of a large object; a decoder may come out with none.
pub(crate) fn large_object(
    consumer: &mut dyn DataConsumer,
    piece: &[u8],
) -> Result<(), ArchiveError> {
    if piece.is_empty() {
        return Ok(());
    }
    consumer.large_object(piece).map_err(refused)
}
