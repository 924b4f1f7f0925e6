//! An archive that is a table of contents alone.

use std::io::{self, Read};

use crate::error::ArchiveError;

/// Writes a custom archive in which every entry of this one stands and none has data: for the parts
/// of a restore that need no rows. `reader` is a custom archive or a directory's `toc.dat`; of it
/// only header and table of contents are read.
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Consumer`] when `output` fails.
pub fn toc_without_data(
    reader: impl Read,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let _ = (reader, output);
    Err(crate::write::soon())
}
