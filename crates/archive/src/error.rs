//! What is wrong with an archive.

use std::io;

use crate::codes;

/// Errors of reading and checking archives. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The underlying reader failed (also: a program that fed it failed).
    #[error("{subject} could not be read after byte {offset}")]
    Read {
        /// Which file or part.
        subject: String,
        /// How far it was read.
        offset: u64,
        /// The reader's failure.
        #[source]
        source: io::Error,
    },
    /// What takes the decoded data failed.
    #[error("the decoded data could not be handed on")]
    Consumer {
        /// Its failure.
        #[source]
        source: io::Error,
    },
    /// A compressor failed (it got no memory).
    #[error("the data could not be compressed")]
    Compress {
        /// Its failure.
        #[source]
        source: io::Error,
    },
    /// The bytes end in the middle of something.
    #[error("{subject} ends at byte {offset} in the middle of {inside}")]
    Cut {
        /// Which file or part.
        subject: String,
        /// Length that is there.
        offset: u64,
        /// What was being read.
        inside: String,
    },
    /// The bytes contradict the format.
    #[error("{subject} is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Which file or part.
        subject: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// Data that the table of contents promises is not there.
    #[error("the data of {} is missing: {}", if missing.len() == 1 { "one entry" } else { "several entries" }, first(missing))]
    DataMissing {
        /// Entries in words.
        missing: Vec<String>,
    },
    /// A version or kind that this program does not know.
    #[error("this kind of archive cannot be read: {problem}")]
    Unsupported {
        /// What is not known.
        problem: String,
    },
    /// Larger than what is accepted.
    #[error("{subject} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What.
        subject: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// A file name in a directory archive that is not one of pg_dump's.
    #[error("the archive names the file {name:?}, which is no name that pg_dump gives")]
    UnsafeFileName {
        /// The name.
        name: String,
    },
    /// A plain dump holds something that pg_dump never writes and that could run commands or
    /// lead elsewhere.
    #[error("line {line} of the plain dump is refused: {problem}")]
    UnsafeScript {
        /// Line number, from 1.
        line: u64,
        /// What is there.
        problem: String,
    },
    /// A plain dump that is not complete.
    #[error("the plain dump is not complete: {problem}")]
    ScriptIncomplete {
        /// What is missing.
        problem: String,
    },
}

impl ArchiveError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Consumer { .. } | Self::Compress { .. } => {
                codes::ARCHIVE_UNREADABLE
            }
            Self::Cut { .. }
            | Self::Damaged { .. }
            | Self::DataMissing { .. }
            | Self::ScriptIncomplete { .. } => codes::ARCHIVE_DAMAGED,
            Self::Unsupported { .. } => codes::ARCHIVE_UNSUPPORTED,
            Self::TooLarge { .. } | Self::UnsafeFileName { .. } | Self::UnsafeScript { .. } => {
                codes::ARCHIVE_UNSAFE
            }
        }
    }
}

fn first(missing: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = missing
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if missing.len() > SHOWN {
        text.push_str(&format!(" and {} more", missing.len() - SHOWN));
    }
    text
}
