//! Identifiers of backups, and the clock they are made from.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where the time comes from; the binary passes the system's clock, tests a fixed one.
pub trait Clock: Send + Sync {
    /// The time now, UTC.
    fn now(&self) -> Timestamp;
}

/// Identifier of a backup: `20261123T053319Z-k3f9x2`, UTC time and a random tail, so that names
/// sort by time and never collide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// Makes an id from a time and six random characters.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        const ALPHABET: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let tail: String = (0..6)
            .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
            .collect();
        Self(format!("{}-{tail}", now.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// Reads an id; `None` for anything that is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, tail) = text.split_once('-')?;
        let time = time.as_bytes();
        let digits = |range: std::ops::Range<usize>| {
            time.get(range)
                .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
        };
        let shaped = time.len() == 16
            && digits(0..8)
            && time[8] == b'T'
            && digits(9..15)
            && time[15] == b'Z'
            && tail.len() == 6
            && tail
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        shaped.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no backup id"))
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}
