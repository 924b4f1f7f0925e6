//! What goes wrong in backup, verify, prune, restore and export.

use std::io;
use std::path::PathBuf;

use crate::{codes, requests::VerifyProblem};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A PostgreSQL program, the server or the container failed.
    #[error("{operation} failed")]
    Exec {
        /// What was tried, for example `dumping database "shop"`.
        operation: String,
        /// The executor's failure.
        #[source]
        source: dbexec::ExecError,
    },
    /// The store failed.
    #[error("{operation} failed")]
    Store {
        /// What was tried.
        operation: String,
        /// The store's failure.
        #[source]
        source: storage::StoreError,
    },
    /// A database that was named does not exist or does not accept connections.
    #[error("database {name:?} cannot be backed up: {reason}")]
    NoSuchDatabase {
        /// Its name.
        name: String,
        /// Why, and which there are.
        reason: String,
    },
    /// The role may not read everything.
    #[error("the role may not read everything in database {database:?}: {}", missing.join("; "))]
    RightsMissing {
        /// Database.
        database: String,
        /// Each object that may not be read.
        missing: Vec<String>,
        /// The GRANTs that would help.
        grants: Vec<String>,
    },
    /// A preflight check forbids the run.
    #[error("{problem}")]
    Preflight {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The parallel engine was asked for, began and could not go on. Nothing of the run is left.
    #[error("dumping database {database:?}: {reason}")]
    EngineFailed {
        /// Which.
        database: String,
        /// What happened, with the server's own words.
        reason: String,
    },
    /// The server found no room in a file system, that of its shared memory too, while it read. To
    /// read again is no way out. Nothing of the run is left.
    #[error("dumping database {database:?}: the server has no room: {reason}")]
    ServerFull {
        /// Which.
        database: String,
        /// What happened, with the server's own words.
        reason: String,
    },
    /// The dump ended well but what it wrote is not an archive, or not all of one.
    #[error("the archive of {subject} is not complete: {problem}")]
    ArchiveIncomplete {
        /// Database or `globals`.
        subject: String,
        /// What is wrong.
        problem: String,
    },
    /// The archive does not hold what the server counted in the dump's own snapshot.
    #[error(
        "the archive of database {database:?} does not hold what the server counted in the dump's \
         own snapshot: {}",
        first(problems)
    )]
    AttestationFailed {
        /// Database.
        database: String,
        /// Each table, sequence or kind of object, with both numbers.
        problems: Vec<String>,
    },
    /// Another run holds the lock.
    #[error("another run works on {target}: {holder}")]
    Locked {
        /// Target.
        target: String,
        /// Who holds it since when.
        holder: String,
    },
    /// No backup matches.
    #[error("no backup matches {wanted:?}: {reason}")]
    NotFound {
        /// Id, prefix or `latest`.
        wanted: String,
        /// What there is.
        reason: String,
    },
    /// More than one matches.
    #[error("{wanted:?} matches {} backups: {}", ids.len(), ids.join(", "))]
    Ambiguous {
        /// The prefix.
        wanted: String,
        /// Which match.
        ids: Vec<String>,
    },
    /// A manifest cannot be read or trusted.
    #[error("the manifest of {id} cannot be used: {problem}")]
    Manifest {
        /// Which backup.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// Verification found differences.
    #[error("backup {id} failed verification: {}", summary(problems))]
    VerifyFailed {
        /// Which backup.
        id: String,
        /// Differences.
        problems: Vec<VerifyProblem>,
    },
    /// The restore was refused before anything was touched.
    #[error("the restore was refused: {problem}")]
    RestoreRefused {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The restore failed and the target is as before.
    #[error(
        "the restore into {database:?} failed while {phase}; nothing on the target was changed"
    )]
    RestoreFailed {
        /// Database that was being filled (dropped again).
        database: String,
        /// What was going on.
        phase: String,
        /// The failure.
        #[source]
        source: Box<BackupError>,
    },
    /// The restore failed and something is left.
    #[error("the restore into {database:?} failed while {phase}, and {left}")]
    RestoreNeedsAttention {
        /// Database.
        database: String,
        /// What was going on.
        phase: String,
        /// What is left where, and the command that removes it.
        left: String,
        /// The failure.
        #[source]
        source: Box<BackupError>,
    },
    /// The state directory cannot be used.
    #[error("{operation} {} failed", path.display())]
    State {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// Something under our directories must not be trusted.
    #[error("{} must not be used: {problem}", path.display())]
    Unsafe {
        /// Which path.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Reading or writing a file that the user named failed.
    #[error("{operation} {} failed", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// Pruning was refused.
    #[error("nothing was pruned: {problem}")]
    PruneRefused {
        /// Why.
        problem: String,
    },
    /// A throw-away server could not be had, or could not take the backup: nothing is known of the
    /// backup itself.
    #[error("{operation} in the throw-away server failed, which says nothing of the backup")]
    Sandbox {
        /// What was tried.
        operation: String,
        /// The failure.
        #[source]
        source: Box<BackupError>,
    },
    /// The run was cancelled.
    #[error("interrupted while {operation}")]
    Interrupted {
        /// What was going on.
        operation: String,
    },
}

impl BackupError {
    /// Stable code: of the cause, where the cause has one of its own.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exec { source, .. } => match source.code() {
                dbexec::codes::PROGRAM_FAILED | dbexec::codes::QUERY_FAILED => codes::BACKUP_FAILED,
                code => code,
            },
            Self::Store { source, .. } => source.code(),
            Self::NoSuchDatabase { .. } => dbexec::codes::DATABASE_NOT_FOUND,
            Self::RightsMissing { .. } => codes::RIGHTS_MISSING,
            Self::Preflight { .. }
            | Self::EngineFailed { .. }
            | Self::ServerFull { .. }
            | Self::ArchiveIncomplete { .. }
            | Self::File { .. } => codes::BACKUP_FAILED,
            Self::AttestationFailed { .. } => codes::ATTESTATION_FAILED,
            Self::Locked { .. } => codes::TARGET_LOCKED,
            Self::NotFound { .. } => codes::BACKUP_NOT_FOUND,
            Self::Ambiguous { .. } => codes::BACKUP_AMBIGUOUS,
            Self::Manifest { .. } => codes::MANIFEST_UNREADABLE,
            Self::VerifyFailed { .. } => codes::VERIFY_FAILED,
            Self::RestoreRefused { .. } => codes::RESTORE_REFUSED,
            Self::RestoreFailed { .. } => codes::RESTORE_FAILED,
            Self::RestoreNeedsAttention { .. } => codes::RESTORE_NEEDS_ATTENTION,
            Self::State { .. } | Self::Unsafe { .. } => codes::STATE_UNUSABLE,
            Self::PruneRefused { .. } => codes::PRUNE_REFUSED,
            Self::Sandbox { source, .. } => match source.as_ref() {
                // It came up, but lacks something: an extension, a locale.
                Self::RestoreRefused { .. } => dbexec::codes::SANDBOX_UNAVAILABLE,
                _ => dbexec::codes::SANDBOX_FAILED,
            },
            Self::Interrupted { .. } => dbexec::codes::INTERRUPTED,
        }
    }
}

/// Most differences that a message names.
const NAMED: usize = 10;

fn first(problems: &[String]) -> String {
    let mut text = problems
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if problems.len() > NAMED {
        text.push_str(&format!("; and {} more", problems.len() - NAMED));
    }
    text
}

fn summary(problems: &[VerifyProblem]) -> String {
    problems
        .iter()
        .take(3)
        .map(|problem| format!("{}: {}", problem.object, problem.problem))
        .collect::<Vec<_>>()
        .join("; ")
}
