//! The store's contract; one suite of tests runs over every implementation.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::codes;

/// A committed stream in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, with `/` between its parts.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Named byte streams. Object-safe; one implementation per kind of store.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What and where, for messages: `local directory /var/lib/pgstow/backups`.
    fn describe(&self) -> String;
    /// Begins a stream under a temporary name that no listing shows.
    ///
    /// # Errors
    /// When the name is not safe ([`check_name`]), exists already, or cannot be created.
    async fn create(&self, name: &str) -> Result<Box<dyn StoreWriter>, StoreError>;
    /// Opens a committed stream for reading from its start.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or when it cannot be read or is unsafe (a link, a FIFO).
    async fn open(&self, name: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, StoreError>;
    /// Committed streams whose names start with `prefix`, in name order.
    ///
    /// # Errors
    /// When the store cannot be listed.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;
    /// Deletes a committed stream durably; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be deleted.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;
    /// Removes what uncommitted streams under `prefix` left behind, and containers (directories)
    /// that are empty then. Returns how many leftovers were removed. The caller holds the lock
    /// that says nobody is writing there.
    ///
    /// # Errors
    /// When something stays behind.
    async fn remove_leftovers(&self, prefix: &str) -> Result<u64, StoreError>;
    /// The stream as a seekable file of this host, where the store has one.
    fn local_path(&self, name: &str) -> Option<PathBuf>;
    /// Free space in bytes, where the store can tell.
    ///
    /// # Errors
    /// When the store cannot be asked.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError>;
}

/// A stream being written. Dropping it without `commit` removes it as far as possible.
#[async_trait]
pub trait StoreWriter: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// When not every byte was taken; the writer is then good for `abort` alone.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
    /// Makes the stream durable under its name (local: fsync, rename, fsync of the directory)
    /// and returns its size in bytes. A failed fsync is a failure for good.
    ///
    /// # Errors
    /// When it is not certain that every byte is stored; nothing is listed then.
    async fn commit(self: Box<Self>) -> Result<u64, StoreError>;
    /// Removes what was written.
    ///
    /// # Errors
    /// When something stays behind.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
}

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A name that is not safe in every store.
    #[error("{name:?} is no name for a stored stream: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Nothing is stored under the name.
    #[error("{name} is not in {store}")]
    NotFound {
        /// The name.
        name: String,
        /// The store's description.
        store: String,
    },
    /// Something is stored under the name already.
    #[error("{name} exists already in {store}")]
    Exists {
        /// The name.
        name: String,
        /// The store's description.
        store: String,
    },
    /// No room.
    #[error("no space left while {operation} {name} in {store}")]
    Full {
        /// `writing`, `creating`, ….
        operation: &'static str,
        /// The name.
        name: String,
        /// The store's description.
        store: String,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// Something is there that must not be trusted.
    #[error("{path} must not be used: {problem}")]
    Unsafe {
        /// Which path.
        path: String,
        /// Link, FIFO, foreign owner, loose mode.
        problem: String,
    },
    /// Anything else.
    #[error("{operation} {name} in {store} failed")]
    Io {
        /// `writing`, `reading`, `listing`, ….
        operation: &'static str,
        /// The name.
        name: String,
        /// The store's description.
        store: String,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts a failure of the system: no space and no quota are [`StoreError::Full`].
    #[must_use]
    pub fn from_io(operation: &'static str, name: &str, store: &str, source: io::Error) -> Self {
        let (name, store) = (name.to_owned(), store.to_owned());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                operation,
                name,
                store,
                source,
            },
            io::ErrorKind::NotFound => Self::NotFound { name, store },
            _ => Self::Io {
                operation,
                name,
                store,
                source,
            },
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => codes::STORE_NOT_FOUND,
            Self::Full { .. } => codes::STORE_FULL,
            Self::Unsafe { .. } => codes::STORE_UNSAFE,
            Self::BadName { .. } | Self::Exists { .. } | Self::Io { .. } => {
                codes::STORE_UNREACHABLE
            }
        }
    }
}

/// Checks a name: parts of `A–Z a–z 0–9 . _ -` joined by `/`, none empty, none starting with a
/// dot, at most 200 bytes a part.
///
/// # Errors
/// [`StoreError::BadName`] with the rule that is broken.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let bad = |reason| {
        Err(StoreError::BadName {
            name: name.to_owned(),
            reason,
        })
    };
    for part in name.split('/') {
        if part.is_empty() {
            return bad("a part is empty");
        }
        if part.starts_with('.') {
            return bad("a part starts with a dot");
        }
        if part.len() > 200 {
            return bad("a part is longer than 200 bytes");
        }
        if !part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return bad("a part holds a character other than letters, digits, dot, _ and -");
        }
    }
    Ok(())
}
