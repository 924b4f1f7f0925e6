//! The header of an archive: magic, version, sizes, format, compression, time and versions.
//!
//! Source of facts: `ReadHead` and `WriteHead` of PostgreSQL's `pg_backup_archiver.c`.

use std::fmt;
use std::io::Read;

use crate::{error::ArchiveError, primitives::ArchiveReader};

/// First bytes of a custom archive and of `toc.dat`.
pub const MAGIC: &[u8; 5] = b"PGDMP";
/// Longest string of a header that is accepted, bytes.
const HEADER_STRING_LIMIT: u64 = 64 * 1024;
/// Oldest minor version that is read: PostgreSQL 9.0's.
const MINOR_MIN: u8 = 12;
/// Newest minor version that is read: PostgreSQL 17's and 18's.
const MINOR_MAX: u8 = 16;

/// Version of the archive format, not of PostgreSQL.
///
/// 1.12 was written by majors 9.0–10, 1.13 by late 10 and 11, 1.14 by 12–15, 1.15 by 16, 1.16 by
/// 17 and 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveVersion {
    /// Always 1.
    pub major: u8,
    /// 12 to 16.
    pub minor: u8,
    /// Always 0 so far.
    pub revision: u8,
}

impl fmt::Display for ArchiveVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How data blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zlib in custom archives, gzip files in directory archives.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// The word that pg_dump uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What the format byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// One file with table of contents and data (`-Fc`).
    Custom,
    /// The table of contents of a directory (`-Fd`) or tar (`-Ft`) archive, which share a byte.
    DirectoryOrTar,
}

/// Local time of the dump as `struct tm` holds it (year counts from 1900, month from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpTime {
    /// Seconds.
    pub second: i32,
    /// Minutes.
    pub minute: i32,
    /// Hours.
    pub hour: i32,
    /// Day of the month, from 1.
    pub day: i32,
    /// Month, from 0.
    pub month: i32,
    /// Years since 1900.
    pub year: i32,
}

/// The header of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: ArchiveVersion,
    /// Kind.
    pub kind: ArchiveKind,
    /// Compression of the data.
    pub compression: Compression,
    /// Local time of the dump.
    pub created: DumpTime,
    /// Database that was dumped, as far as it is UTF-8.
    pub database: String,
    /// Version of the server, for example `15.18 (Debian 15.18-1)`.
    pub server_version: String,
    /// Version of the pg_dump that wrote it.
    pub dump_version: String,
}

impl Header {
    /// Major version of the server that was dumped, where the text says one.
    #[must_use]
    pub fn server_major(&self) -> Option<u32> {
        major_of(&self.server_version)
    }

    /// Major version of the pg_dump that wrote the archive, where the text says one.
    #[must_use]
    pub fn dump_major(&self) -> Option<u32> {
        major_of(&self.dump_version)
    }

    /// Lowest major of pg_restore that reads this version of the format.
    #[must_use]
    pub fn restore_major(&self) -> u32 {
        match self.version.minor {
            ..=13 => 11,
            14 => 12,
            15 => 16,
            _ => 17,
        }
    }
}

/// The number before the first dot: `15.18 (Debian)` is 15, `19devel` is 19.
pub(crate) fn major_of(version: &str) -> Option<u32> {
    let digits = version
        .trim_start()
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    digits.parse().ok()
}

/// Reads a header and leaves the reader at the number of entries.
pub(crate) fn read_header<R: Read>(reader: &mut ArchiveReader<R>) -> Result<Header, ArchiveError> {
    for expected in MAGIC {
        match reader.byte_or_end()? {
            Some(byte) if byte == *expected => {}
            Some(_) => {
                return Err(reader.damaged("it does not begin with PGDMP, so it is no archive"));
            }
            None => return Err(reader.cut("the first bytes (PGDMP)")),
        }
    }
    let version = ArchiveVersion {
        major: reader.byte("the format version")?,
        minor: reader.byte("the format version")?,
        revision: reader.byte("the format version")?,
    };
    if version.major != 1 || !(MINOR_MIN..=MINOR_MAX).contains(&version.minor) {
        return Err(ArchiveError::Unsupported {
            problem: format!(
                "its format version is {version}, and this program reads 1.{MINOR_MIN} to \
                 1.{MINOR_MAX}"
            ),
        });
    }
    let int_size = reader.byte("the size of integers")?;
    if int_size != 4 {
        return Err(reader.damaged(format!("integers of {int_size} bytes")));
    }
    let off_size = reader.byte("the size of offsets")?;
    if !matches!(off_size, 4 | 8) {
        return Err(reader.damaged(format!("offsets of {off_size} bytes")));
    }
    reader.set_off_size(usize::from(off_size));
    let kind = match reader.byte("the format byte")? {
        1 => ArchiveKind::Custom,
        3 => ArchiveKind::DirectoryOrTar,
        other => return Err(reader.damaged(format!("the format byte is {other}"))),
    };
    let compression = if version.minor >= 15 {
        match reader.byte("the compression")? {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Lz4,
            3 => Compression::Zstd,
            other => return Err(reader.damaged(format!("the compression is {other}"))),
        }
    } else {
        match reader.int32("the compression level")? {
            0 => Compression::None,
            // -1 is zlib's own default level.
            -1..=9 => Compression::Gzip,
            other => return Err(reader.damaged(format!("the compression level is {other}"))),
        }
    };
    let mut time = [0; 7];
    for part in &mut time {
        *part = reader.int32("the time of the dump")?;
    }
    let [second, minute, hour, day, month, year, _daylight_saving] = time;
    Ok(Header {
        version,
        kind,
        compression,
        created: DumpTime {
            second,
            minute,
            hour,
            day,
            month,
            year,
        },
        database: header_string(reader, "the database's name")?,
        server_version: header_string(reader, "the server's version")?,
        dump_version: header_string(reader, "pg_dump's version")?,
    })
}

fn header_string<R: Read>(
    reader: &mut ArchiveReader<R>,
    inside: &str,
) -> Result<String, ArchiveError> {
    let bytes = reader
        .bytes(inside, HEADER_STRING_LIMIT)?
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
