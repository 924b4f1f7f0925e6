//! Why there is no throw-away server. None of it says anything about a backup.

use std::time::Duration;

use crate::codes;
use crate::executor::ExecError;
use crate::runtime::RuntimeError;

/// Errors of throw-away servers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The image is not on the engine.
    #[error(
        "image {image} is not on this engine, and nothing is pulled unasked; `docker pull {image}` \
         fetches it, or name another one"
    )]
    ImageMissing {
        /// Image that was asked for.
        image: String,
    },
    /// The image has no shell to start a server with.
    #[error(
        "image {image} has no shell (sh), so no throw-away server can be started from it; name another image of this major"
    )]
    NoShell {
        /// Image.
        image: String,
    },
    /// The server programs of the major are not there.
    #[error("{place} has no server programs (initdb, postgres) of PostgreSQL {major}")]
    ProgramsMissing {
        /// Image, or this host.
        place: String,
        /// Major that was wanted.
        major: u32,
    },
    /// Nothing that is needed to run a server as.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user postgres to run it as: {reason}"
    )]
    NoUser {
        /// What was tried.
        reason: String,
    },
    /// No directory can be written.
    #[error("{place} has no directory that the server could work in (tried /var/tmp and /tmp)")]
    NoPlace {
        /// Image, or this host.
        place: String,
    },
    /// Not enough room.
    #[error(
        "a throw-away server needs {} MiB of free space, {directory} in {place} has {} MiB",
        needed >> 20,
        free >> 20
    )]
    NoSpace {
        /// Image, or this host.
        place: String,
        /// Directory with the most room.
        directory: String,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// initdb or the server failed.
    #[error("the throw-away server did not start ({step}): {}", last_lines(log))]
    NotStarted {
        /// `initdb`, `server`, or what was waited for.
        step: String,
        /// The last lines that it said.
        log: Vec<String>,
    },
    /// The server did not come up in time.
    #[error("the throw-away server was not ready within {} s: {}", waited.as_secs(), last_lines(log))]
    TooSlow {
        /// How long it had.
        waited: Duration,
        /// The last lines that it said.
        log: Vec<String>,
    },
    /// The engine failed.
    #[error("the container engine failed: {operation}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// The engine's failure.
        #[source]
        source: RuntimeError,
    },
    /// A program or a query on the new server failed.
    #[error("the throw-away server does not work")]
    Server {
        /// The failure.
        #[source]
        source: ExecError,
    },
    /// A process or a file of this host failed.
    #[error("{operation} failed")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// The system's failure.
        #[source]
        source: std::io::Error,
    },
    /// Something stayed behind.
    #[error("{what} could not be removed: {reason}")]
    NotRemoved {
        /// Container or directory.
        what: String,
        /// What was seen.
        reason: String,
    },
    /// Cancelled; what was begun is removed.
    #[error("the start of a throw-away server was interrupted")]
    Interrupted,
}

impl SandboxError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ImageMissing { .. }
            | Self::NoShell { .. }
            | Self::ProgramsMissing { .. }
            | Self::NoUser { .. }
            | Self::NoPlace { .. }
            | Self::NoSpace { .. } => codes::SANDBOX_UNAVAILABLE,
            Self::NotStarted { .. }
            | Self::TooSlow { .. }
            | Self::Engine { .. }
            | Self::Server { .. }
            | Self::Host { .. }
            | Self::NotRemoved { .. } => codes::SANDBOX_FAILED,
            Self::Interrupted => codes::INTERRUPTED,
        }
    }
}

fn last_lines(log: &[String]) -> String {
    const SHOWN: usize = 5;
    if log.is_empty() {
        return "it said nothing".to_owned();
    }
    log[log.len().saturating_sub(SHOWN)..].join(" | ")
}
