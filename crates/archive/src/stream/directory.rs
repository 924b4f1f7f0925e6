//! The data of a directory archive, file by file: a caller may decode several at once.

use std::io::Read;

use crate::{
    error::ArchiveError,
    stream::{DataConsumer, RowsEntry},
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
    let _ = (toc, wanted);
    Err(crate::write::soon())
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
    let _ = (file, file_name, entry, consumer);
    Err(crate::write::soon())
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
    let _ = (file, file_name, oid, consumer);
    Err(crate::write::soon())
}
