//! The data of a directory archive, file by file: a caller may decode several at once.

use std::io::Read;

use crate::{
    contents::{Part, walk},
    directory::{check_file_name, compression_of, decode_file},
    error::ArchiveError,
    header::ArchiveKind,
    options::CheckOptions,
    primitives::ArchiveReader,
    stream::{
        DataConsumer, RowsEntry,
        custom::large_object,
        rows::{RowStream, refused},
    },
};

/// An entry of a directory archive that has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryEntry {
    /// A table's rows, in a file.
    Rows {
        /// The entry.
        entry: RowsEntry,
        /// Name of the file, without the suffix of its compression.
        file_name: String,
    },
    /// Large objects.
    LargeObjects {
        /// Number of the entry.
        dump_id: i32,
        /// Name of their list, for [`read_large_object_list`].
        list_name: String,
    },
}

/// The entries of a directory archive's `toc.dat` that have data and are wanted by their number, in
/// its order.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Unsupported`] for a wanted entry whose rows are not in COPY's
/// text format.
pub fn read_directory_entries(
    toc: impl Read,
    wanted: &mut dyn FnMut(i32) -> bool,
) -> Result<Vec<DirectoryEntry>, ArchiveError> {
    let mut reader = ArchiveReader::new(toc, "toc.dat");
    let mut entries = Vec::new();
    let walked = walk(
        &mut reader,
        Some(ArchiveKind::DirectoryOrTar),
        &CheckOptions::default(),
        &mut |_, part| {
            if let Part::Entry { entry, .. } = part
                && entry.has_data
                && wanted(entry.dump_id)
            {
                let name = entry.file_name.as_deref().unwrap_or_default().to_owned();
                check_file_name(&name)?;
                entries.push(if entry.kind == "BLOBS" {
                    DirectoryEntry::LargeObjects {
                        dump_id: entry.dump_id,
                        list_name: name,
                    }
                } else {
                    DirectoryEntry::Rows {
                        entry: RowsEntry::of(&entry)?,
                        file_name: name,
                    }
                });
            }
            Ok(())
        },
    )?;
    if reader.byte_or_end()?.is_some() {
        return Err(reader.damaged("bytes follow the last entry"));
    }
    if !walked.utf8 {
        for entry in &mut entries {
            if let DirectoryEntry::Rows { entry, .. } = entry {
                entry.not_utf8();
            }
        }
    }
    Ok(entries)
}

/// Reads a list of large objects: oid, and the name of the file without the suffix of its
/// compression.
///
/// # Errors
/// [`ArchiveError`].
pub fn read_large_object_list(
    list: impl Read,
    list_name: &str,
) -> Result<Vec<(u32, String)>, ArchiveError> {
    crate::directory::read_list(list, list_name, &mut 0)
}

/// Decodes a file of rows to its end. Its name, with the suffix, says how it is compressed.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Consumer`] when `consumer` fails.
pub fn stream_directory_rows(
    file: impl Read,
    file_name: &str,
    entry: &RowsEntry,
    consumer: &mut dyn DataConsumer,
) -> Result<(), ArchiveError> {
    let mut stream = RowStream::begin(entry, consumer)?;
    decode_file(file_name, compression_of(file_name), file, &mut |piece| {
        stream.push(piece)
    })?;
    stream.finish()
}

/// Decodes the file of a large object to its end. Its name, with the suffix, says how it is
/// compressed.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Consumer`] when `consumer` fails.
pub fn stream_directory_large_object(
    file: impl Read,
    file_name: &str,
    oid: u32,
    consumer: &mut dyn DataConsumer,
) -> Result<(), ArchiveError> {
    consumer.begin_large_object(oid).map_err(refused)?;
    decode_file(file_name, compression_of(file_name), file, &mut |piece| {
        large_object(consumer, piece)
    })?;
    consumer.end_large_object().map_err(refused)
}
