//! Removing what runs that were killed or failed have left: files, programs, server sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use dbexec::PgExecutor;
use storage::{Store, StoreError};

use crate::{
    BackupError, BackupEvent, EventSink, Repository, RunRecord, RunState, id::BackupId, manifest,
    records, state::StateDir,
};

/// Runs that are looked at for temporary files, which no listing shows; the run after a failed one
/// has removed those of older ones.
const RECENT: u64 = 20;
/// Error of a run that was killed.
pub(crate) const KILLED: &str = "it was killed before it ended";

/// Removes every file of a backup: the manifest first, so that a crash leaves an incomplete
/// directory and never a listed backup that lacks files. Returns how many there were.
pub(crate) async fn remove_backup(store: &dyn Store, id: &BackupId) -> Result<u64, StoreError> {
    let dir = format!("{id}/");
    let listed = store.list(&dir).await?;
    store
        .delete(&format!("{dir}{}", manifest::FILE_NAME))
        .await?;
    for entry in &listed {
        store.delete(&entry.name).await?;
    }
    let leftovers = store.remove_leftovers(&dir).await?;
    Ok(listed.len() as u64 + leftovers)
}

/// Cleans up after earlier runs of this target; the caller holds the target's lock, so none of
/// them is alive.
pub(crate) async fn clean_up(
    repo: &Repository,
    state: &StateDir,
    executor: &Arc<dyn PgExecutor>,
    own: &RunRecord,
    sink: &dyn EventSink,
) -> Result<(), BackupError> {
    let stored = |source| BackupError::Store {
        operation: "cleaning up after earlier runs".to_owned(),
        source,
    };
    let cleaned = |message: String| sink.emit(BackupEvent::CleanedUp { message });
    let mut complete: BTreeMap<String, bool> = BTreeMap::new();
    for entry in repo.store.list("").await.map_err(stored)? {
        if let Some((dir, file)) = entry.name.split_once('/') {
            *complete.entry(dir.to_owned()).or_default() |= file == manifest::FILE_NAME;
        }
    }
    for mut record in records::read_all(state)? {
        if record.lock_key != own.lock_key || record.id == own.id {
            continue;
        }
        let published = complete.get(record.id.as_str()).copied();
        if record.state == RunState::Running {
            if published == Some(true) {
                // Killed after the manifest was in place: the backup exists.
                record.state = RunState::Done;
            } else {
                record.state = RunState::Failed;
                record.error_code = Some(dbexec::codes::INTERRUPTED.to_owned());
                record.error = Some(KILLED.to_owned());
            }
            match executor.reap(&record.application_name).await {
                Ok(reaped) if reaped.processes + reaped.sessions > 0 => cleaned(format!(
                    "run {}: ended {} processes and {} sessions that it had left",
                    record.id, reaped.processes, reaped.sessions
                )),
                Ok(_) => {}
                Err(error) => sink.emit(BackupEvent::Warning {
                    message: format!("what run {} left running: {error}", record.id),
                }),
            }
            if published != Some(true) {
                sweep(repo, &record.id, sink).await.map_err(stored)?;
            }
            records::write(state, &record)?;
        } else if published == Some(false)
            || (published.is_none()
                && record.state != RunState::Done
                && record.sequence + RECENT >= own.sequence)
        {
            // A failed run whose files could not be removed, or a prune that was killed.
            sweep(repo, &record.id, sink).await.map_err(stored)?;
        }
    }
    Ok(())
}

async fn sweep(repo: &Repository, id: &BackupId, sink: &dyn EventSink) -> Result<(), StoreError> {
    let removed = remove_backup(repo.store.as_ref(), id).await?;
    if removed > 0 {
        sink.emit(BackupEvent::CleanedUp {
            message: format!("run {id}: removed {removed} files that it had left"),
        });
    }
    Ok(())
}
