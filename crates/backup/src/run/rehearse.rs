//! The preflight of a backup alone, for checks by people and monitoring.

use std::sync::Arc;

use dbexec::PgExecutor;

use super::preflight::preflight;
use crate::{BackupError, BackupOptions, Repository, event::NoEvents};

/// What a rehearsal learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    /// Databases that a backup would dump, each with its size on the server in bytes, where the
    /// role may ask for it.
    pub databases: Vec<(String, Option<u64>)>,
    /// What would not forbid the backup and is to be read all the same.
    pub warnings: Vec<String>,
}

/// Checks everything that a backup checks before it begins: server, programs, databases, rights,
/// locks, room in the store. Nothing is written.
///
/// # Errors
/// What would refuse the backup.
pub async fn rehearse(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    options: &BackupOptions,
) -> Result<Rehearsal, BackupError> {
    let plan = preflight(repo, executor, options, &NoEvents).await?;
    Ok(Rehearsal {
        databases: plan
            .databases
            .into_iter()
            .map(|(database, _)| (database.name, database.size_bytes))
            .collect(),
        warnings: plan.warnings,
    })
}
