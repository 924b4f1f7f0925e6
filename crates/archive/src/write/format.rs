//! What an archive is written as.

use crate::{
    directory::ending_of,
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
    /// Level: for gzip 1 to 9 or -1 (zlib's own default), for zstd 1 to 22 or
    /// [`WriteFormat::SAMPLED`]; without a meaning for the others.
    pub level: i32,
}

impl WriteFormat {
    /// The level of zstd for which each unit is sampled: 1, or 2 or 3 where they leave so much less
    /// that it is worth their time.
    pub const SAMPLED: i32 = 0;

    /// Whether archives of this version can be written so.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`]: zstd and LZ4 below 1.15, and levels that do not exist.
    pub fn check(&self, version: ArchiveVersion) -> Result<(), ArchiveError> {
        if version.minor < 15 && matches!(self.compression, Compression::Lz4 | Compression::Zstd) {
            return Err(ArchiveError::Unsupported {
                problem: format!(
                    "archives of version {version} know no {}",
                    self.compression.as_str()
                ),
            });
        }
        self.check_level()
    }

    pub(crate) fn check_level(&self) -> Result<(), ArchiveError> {
        let known = match self.compression {
            Compression::None | Compression::Lz4 => true,
            Compression::Gzip => self.level == -1 || (1..=9).contains(&self.level),
            Compression::Zstd => self.level == Self::SAMPLED || (1..=22).contains(&self.level),
        };
        if known {
            Ok(())
        } else {
            Err(ArchiveError::Unsupported {
                problem: format!("{} has no level {}", self.compression.as_str(), self.level),
            })
        }
    }

    /// What stands behind the names of the data files of a directory archive that its table of
    /// contents and its lists of large objects give: `""`, `".gz"`, `".lz4"` or `".zst"`.
    #[must_use]
    pub fn file_suffix(&self) -> &'static str {
        ending_of(self.compression)
    }

    pub(crate) fn custom(&self) -> bool {
        self.kind == ArchiveKind::Custom
    }
}
