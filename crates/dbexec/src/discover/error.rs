//! How discovery fails; every variant carries the trail of what was tried.

use std::sync::Arc;

use crate::{
    RuntimeError, codes,
    executor::ExecError,
    trail::{Outcome, Trail},
};

use super::recorder::{CONTAINER_LIST, PERSISTED_FILE};

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
        source: Arc<RuntimeError>,
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

    /// What to do next, one line each, for people.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        match self {
            Self::NotFound { trail } => {
                hints.extend(trail.entries.iter().filter_map(|entry| {
                    let told = matches!(entry.outcome, Outcome::Failed | Outcome::Refused)
                        || (entry.step == PERSISTED_FILE && entry.outcome == Outcome::Nothing);
                    told.then(|| format!("{}: {}", entry.step, entry.reason))
                }));
                hints.extend(WAYS_OUT.iter().map(|hint| (*hint).to_owned()));
            }
            Self::ContainerNotFound { .. } => hints.push(
                "list what can be named with `pgstow discover --all`".to_owned(),
            ),
            Self::Ambiguous { candidates, .. } => {
                hints.extend(candidates.iter().map(|candidate| {
                    let ports = if candidate.ports.is_empty() {
                        String::new()
                    } else {
                        format!(", ports {}", candidate.ports.join(" "))
                    };
                    format!(
                        "{}  (image {}{ports}; {})",
                        candidate.target, candidate.image, candidate.evidence
                    )
                }));
                hints.push(
                    "name one of them as TARGET, or label the containers: pgstow.enable=true for the one that is meant, pgstow.enable=false for the others".to_owned(),
                );
            }
            Self::InvalidConfig { .. } => hints.push(
                "set what is missing, or name the target: `pgstow discover --explain` shows where each value comes from".to_owned(),
            ),
            Self::MixedSources { .. } => hints.push(
                "let host and password come from one place, or consent with --allow-mixed-sources".to_owned(),
            ),
            Self::PersistedFileUnsafe { .. } => hints.push(
                "find out who changed the file, then remove it or correct its owner and mode (0600); pgstow writes it again after the next backup".to_owned(),
            ),
            Self::Runtime { source, .. } => {
                hints.extend(runtime_hints(source));
                hints.push("or name a server: pgstow … postgres://USER@HOST/DATABASE".to_owned());
            }
            Self::Unusable { source, .. } => hints.extend(unusable_hints(source)),
        }
        if !matches!(self, Self::Runtime { .. })
            && let Some(entry) = self
                .trail()
                .entries
                .iter()
                .find(|entry| entry.step == CONTAINER_LIST && entry.outcome == Outcome::Failed)
        {
            hints.push(format!("containers were not searched: {}", entry.reason));
            if names_refusal(&entry.reason) {
                hints.push(PERMISSION_HINT.to_owned());
            }
        }
        hints
    }
}

const WAYS_OUT: [&str; 3] = [
    "name a target: pgstow … container:NAME, project/service or postgres://USER@HOST/DATABASE",
    "or set POSTGRES_HOST, POSTGRES_DATABASE, POSTGRES_USERNAME and POSTGRES_PASSWORD (or DATABASE_URL)",
    "or start the container of the database, and give it the label pgstow.enable=true if it is not recognised",
];

const PERMISSION_HINT: &str = "the container engine's socket refused this user: run pgstow with sudo, add the user to the group that owns the socket (`sudo usermod -aG docker $USER`, then log in again), or point DOCKER_HOST to an engine that may be used";

/// Whether the engine is there and refuses this user.
pub(super) fn refuses_us(error: &RuntimeError) -> bool {
    names_refusal(&error.to_string())
}

fn names_refusal(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["permission denied", "eacces", "os error 13"]
        .iter()
        .any(|words| text.contains(words))
}

fn runtime_hints(error: &RuntimeError) -> Vec<String> {
    if refuses_us(error) {
        return vec![PERMISSION_HINT.to_owned()];
    }
    match error {
        RuntimeError::Unavailable { .. } => vec![
            "start the container engine (`sudo systemctl start docker`), or point DOCKER_HOST or `docker context use` to one that runs".to_owned(),
        ],
        _ => vec!["try again; `docker ps` and the engine's log say more".to_owned()],
    }
}

fn unusable_hints(error: &ExecError) -> Vec<String> {
    let hint = match error {
        ExecError::CredentialsRefused { .. } => {
            "give the right login: --username and --password-file, or correct the variables that `pgstow discover --explain` names; a password that was changed after the container's first start is not in its environment"
        }
        ExecError::ServerUnreachable { .. } => {
            "check that the server runs and listens at this address, and that no firewall is in between"
        }
        ExecError::Tls { .. } => {
            "check sslmode and sslrootcert: the authority has to be the one that signed the server's certificate"
        }
        ExecError::ProgramMissing { .. } | ExecError::ProgramTooOld { .. } => {
            "install the PostgreSQL client programs of the server's version where they have to run, or name their directory with --pg-bin-dir"
        }
        ExecError::ServerChanged { .. } | ExecError::ContainerChanged { .. } => {
            "run discovery again; another server is there now"
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}
