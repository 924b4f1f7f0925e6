//! An archive that is a table of contents alone.

use std::io::{self, Read};

use crate::{
    contents::{Part, walk},
    directory::check_file_name,
    error::ArchiveError,
    header::{ArchiveKind, Compression},
    options::CheckOptions,
    primitives::ArchiveReader,
    write::{WriteFormat, toc::TocWriter},
};

/// Bytes of an integer.
const INT: usize = 5;
/// Place of the data flag's lowest byte in an entry: behind the entry's number and the flag's sign.
const HAS_DATA_AT: usize = INT + 1;
/// The state of an entry without data.
const NO_DATA: u8 = 3;

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
    let mut reader = ArchiveReader::new(reader, "the table of contents").copying();
    let mut writer = TocWriter {
        format: WriteFormat {
            kind: ArchiveKind::Custom,
            compression: Compression::None,
            level: 0,
        },
        bytes: 0,
        buffer: Vec::new(),
        output,
    };
    let mut custom = true;
    walk(
        &mut reader,
        None,
        &CheckOptions::default(),
        &mut |reader, part| match part {
            Part::Header(header, _) => {
                custom = header.kind == ArchiveKind::Custom;
                writer.header(reader.take_copied(), header.version)
            }
            Part::Entry { entry, .. } => {
                if let Some(name) = &entry.file_name {
                    // So that its length is that of its bytes.
                    check_file_name(name)?;
                }
                let mut bytes = reader.take_copied();
                let position = if custom {
                    1 + reader.off_size()
                } else {
                    INT + entry.file_name.as_ref().map_or(0, |name| name.len())
                };
                bytes.truncate(bytes.len() - position);
                bytes[HAS_DATA_AT] = 0;
                bytes.push(NO_DATA);
                bytes.resize(bytes.len() + reader.off_size(), 0);
                writer.write(&bytes)
            }
        },
    )?;
    writer.flush()
}
