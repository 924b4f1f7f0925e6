//! How discovery fails; every variant carries the trail of what was tried.

use crate::{codes, executor::ExecError, trail::Trail};

/// A container that could be meant, for the list in an ambiguity.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Candidate {
    /// What to type to choose it: `container:NAME` or `project/service`.
    pub target: String,
    /// Image reference.
    pub image: String,
    /// Published ports, for recognition.
    pub ports: Vec<String>,
    /// Why it is a candidate.
    pub evidence: String,
}

/// Errors of discovery.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// Nothing was found by any step.
    #[error("no PostgreSQL database was found")]
    NotFound {
        /// What was tried.
        trail: Trail,
    },
    /// The container that was asked for does not exist, is not running or runs no PostgreSQL.
    #[error("container {wanted:?} cannot be used: {reason}")]
    ContainerNotFound {
        /// Name, pattern or compose service that was asked for.
        wanted: String,
        /// Why not, and what is there instead.
        reason: String,
        /// What was tried.
        trail: Trail,
    },
    /// More than one container matches.
    #[error("{} containers run PostgreSQL and none was named", candidates.len())]
    Ambiguous {
        /// The candidates.
        candidates: Vec<Candidate>,
        /// What was tried.
        trail: Trail,
    },
    /// Settings are incomplete or contradict each other.
    #[error("the database settings cannot be used: {problem}")]
    InvalidConfig {
        /// What is wrong, naming the variables or flags.
        problem: String,
        /// What was tried.
        trail: Trail,
    },
    /// A secret of one source would have been sent to a host that another source named.
    #[error("{problem}")]
    MixedSources {
        /// Which field of which source would go where.
        problem: String,
        /// What was tried.
        trail: Trail,
    },
    /// The persisted file may not be used.
    #[error("the persisted credentials file cannot be trusted: {problem}")]
    PersistedFileUnsafe {
        /// What is wrong with it.
        problem: String,
        /// What was tried.
        trail: Trail,
    },
    /// The container runtime that was needed does not answer.
    #[error("containers cannot be searched")]
    Runtime {
        /// The runtime's failure.
        #[source]
        source: crate::RuntimeError,
        /// What was tried.
        trail: Trail,
    },
    /// The server was found, but logging in or asking it failed; the source tells
    /// credentials refused, unreachable, TLS, pooler, program missing.
    #[error("the database at {target} was found but cannot be used")]
    Unusable {
        /// Which target.
        target: String,
        /// Why.
        #[source]
        source: ExecError,
        /// What was tried.
        trail: Trail,
    },
}

impl DiscoverError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => codes::DATABASE_NOT_FOUND,
            Self::ContainerNotFound { .. } => codes::CONTAINER_NOT_FOUND,
            Self::Ambiguous { .. } => codes::CONTAINER_AMBIGUOUS,
            Self::InvalidConfig { .. } => codes::INVALID_DB_CONFIG,
            Self::MixedSources { .. } => codes::MIXED_SOURCES,
            Self::PersistedFileUnsafe { .. } => codes::PERSISTED_FILE_UNSAFE,
            Self::Runtime { source, .. } => source.code(),
            Self::Unusable { source, .. } => source.code(),
        }
    }

    /// What was tried before it failed.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        match self {
            Self::NotFound { trail }
            | Self::ContainerNotFound { trail, .. }
            | Self::Ambiguous { trail, .. }
            | Self::InvalidConfig { trail, .. }
            | Self::MixedSources { trail, .. }
            | Self::PersistedFileUnsafe { trail, .. }
            | Self::Runtime { trail, .. }
            | Self::Unusable { trail, .. } => trail,
        }
    }
}
