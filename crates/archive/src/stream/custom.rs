//! The data of a custom archive.

use std::io::Read;

use crate::{error::ArchiveError, stream::DataConsumer};

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
    let _ = (reader, wanted, consumer);
    Err(crate::write::soon())
}
