//! What an archive is written as.

use crate::{
    error::ArchiveError,
    header::{ArchiveKind, ArchiveVersion, Compression},
};

/// What an archive is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteFormat {
    /// One file, or a directory ([`ArchiveKind::DirectoryOrTar`]).
    pub kind: ArchiveKind,
    /// Compression of the data.
    pub compression: Compression,
    /// Level: for gzip 1 to 9 or -1 (zlib's own default), for zstd 1 to 22; without a meaning for
    /// the others.
    pub level: i32,
}

impl WriteFormat {
    /// Whether archives of this version can be written so.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`]: zstd and LZ4 below 1.15, and levels that do not exist.
    pub fn check(&self, version: ArchiveVersion) -> Result<(), ArchiveError> {
        let problem = match (self.compression, self.level) {
            (Compression::Lz4 | Compression::Zstd, _) if version.minor < 15 => format!(
                "archives of version {version} know no {}",
                self.compression.as_str()
            ),
            (Compression::Gzip, level) if level != -1 && !(1..=9).contains(&level) => {
                format!("gzip has no level {level}")
            }
            (Compression::Zstd, level) if !(1..=22).contains(&level) => {
                format!("zstd has no level {level}")
            }
            _ => return Ok(()),
        };
        Err(ArchiveError::Unsupported { problem })
    }

    /// What stands behind the names of the data files of a directory archive that its table of
    /// contents and its lists of large objects give: `""`, `".gz"`, `".lz4"` or `".zst"`.
    #[must_use]
    pub fn file_suffix(&self) -> &'static str {
        match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Lz4 => ".lz4",
            Compression::Zstd => ".zst",
        }
    }

    pub(crate) fn custom(&self) -> bool {
        self.kind == ArchiveKind::Custom
    }
}

pub(crate) fn soon() -> ArchiveError {
    ArchiveError::Unsupported {
        problem: "not yet written".to_owned(),
    }
}
