//! What comes after a restore that replaced a database, or that was killed on the way: finish it,
//! undo it, put the old database back, drop what is kept. Everything looks at the server first,
//! by oid, and may be repeated.

use std::sync::Arc;
use std::time::Duration;

use dbexec::{DbContext, ExecError, PgExecutor, query};
use serde::Deserialize;

use super::{
    check::in_words,
    create,
    fill::exec,
    journal::{self, RestoreJournal, RestoreStep, Writer},
    source::refused,
    swap::{self, Exchange, Exchanged, Standing},
};
use crate::{
    BackupError, BackupEvent, BackupId, EventSink, Repository, SwapReport,
    lock::{Holder, TargetLock},
    state::StateDir,
};

/// How long sessions of a dead run may take to end.
const SETTLE: Duration = Duration::from_secs(30);
/// How often they are looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// The exchange that makes the restored database live.
pub(super) fn forward(journal: &RestoreJournal) -> Exchange<'_> {
    Exchange {
        name: &journal.database,
        out: journal.live_oid.map(|oid| (oid, journal.before.as_str())),
        come: journal
            .staging_oid
            .map(|oid| (oid, journal.staging.as_str())),
    }
}

/// The exchange that makes the old database live again.
fn backward(journal: &RestoreJournal) -> Exchange<'_> {
    Exchange {
        name: &journal.database,
        out: journal
            .staging_oid
            .map(|oid| (oid, journal.undone.as_str())),
        come: journal.live_oid.map(|oid| (oid, journal.before.as_str())),
    }
}

/// A restore of which nobody knows how it stands.
pub(super) fn unclear(journal: &RestoreJournal, left: String, source: ExecError) -> BackupError {
    BackupError::RestoreNeedsAttention {
        database: journal.database.clone(),
        phase: "exchanging the names of the databases".to_owned(),
        left,
        source: Box::new(exec("exchanging the names", source)),
    }
}

/// Ends what a run left at work, and waits until its last session is gone: what it had begun on
/// the server has then either happened or never will.
pub(super) async fn settle(
    executor: &dyn PgExecutor,
    application_name: &str,
) -> Result<(), ExecError> {
    #[derive(Deserialize)]
    struct Row {
        left: u32,
    }
    let own = executor.context().creds.database.clone();
    let begun = tokio::time::Instant::now();
    loop {
        executor.reap(application_name).await?;
        let rows: Vec<Row> = query::rows(
            executor,
            &own,
            "sessions of the restore",
            "SELECT count(*) AS left FROM pg_catalog.pg_stat_activity \
             WHERE application_name = :'name' AND pid <> pg_catalog.pg_backend_pid()",
            &[("name", application_name)],
        )
        .await?;
        match rows.first() {
            Some(row) if row.left > 0 && begun.elapsed() < SETTLE => {
                tokio::time::sleep(PAUSE).await;
            }
            Some(row) if row.left > 0 => {
                return Err(ExecError::Query {
                    query: "sessions of the restore",
                    database: own,
                    message: format!("{} of its sessions do not end", row.left),
                });
            }
            _ => return Ok(()),
        }
    }
}

/// Refuses a restore of a database whose names an earlier restore may be exchanging.
pub(crate) fn refuse_unfinished(
    repo: &Repository,
    context: &DbContext,
    database: &str,
) -> Result<(), BackupError> {
    let Some(state) = StateDir::existing(&repo.state_dir)? else {
        return Ok(());
    };
    let unfinished = journal::read_all(&state)?.into_iter().find(|journal| {
        matches!(
            journal.step,
            RestoreStep::Swapping | RestoreStep::RollingBack
        ) && journal.database == database
            && journal.is_of(context)
    });
    match unfinished {
        None => Ok(()),
        Some(journal) => Err(refused(
            format!(
                "restore {} of database {database:?} stopped while the databases changed their \
                 names",
                journal.id
            ),
            "pgstow restore --resume finishes it, pgstow rollback takes it back".to_owned(),
        )),
    }
}

/// Undoes restores of this target that were killed before their swap. The caller holds the
/// target's lock.
pub(super) async fn undo_dead(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    sink: &dyn EventSink,
) -> Result<(), BackupError> {
    let state = StateDir::open(&repo.state_dir)?;
    for journal in journal::read_all(&state)? {
        if !journal.step.unfinished()
            || journal.step >= RestoreStep::Swapping
            || !journal.is_of(executor.context())
        {
            continue;
        }
        let id = journal.id.clone();
        let mut writer = Writer::open(repo, sink, journal)?;
        settle(executor.as_ref(), &writer.journal.application_name)
            .await
            .map_err(|source| exec(format!("ending what restore {id} left at work"), source))?;
        undo(executor.as_ref(), &mut writer, sink).await?;
    }
    Ok(())
}

/// Takes up one journal under the target's lock, with nothing of its run left at work.
async fn take_up<'a>(
    repo: &'a Repository,
    executor: &Arc<dyn PgExecutor>,
    id: &BackupId,
    work: &str,
    sink: &'a dyn EventSink,
) -> Result<(TargetLock, Writer<'a>), BackupError> {
    query::check_same_server(None, executor.as_ref())
        .await
        .map_err(|source| exec("comparing the server with the one that was found", source))?;
    let state = StateDir::open(&repo.state_dir)?;
    let find = || -> Result<RestoreJournal, BackupError> {
        let mut journals = journal::read_all(&state)?;
        journals.retain(|journal| journal.id == *id);
        let found = journals.pop().ok_or_else(|| BackupError::NotFound {
            wanted: id.to_string(),
            reason: "no restore that replaced a database has this id".to_owned(),
        })?;
        if found.is_of(executor.context()) {
            Ok(found)
        } else {
            Err(refused(
                format!(
                    "restore {id} was made on {}, and this is another server ({})",
                    found.target,
                    executor.context().target_name()
                ),
                "name the server of the restore".to_owned(),
            ))
        }
    };
    let first = find()?;
    let holder = Holder::this(work, None, repo.clock.as_ref());
    let lock = TargetLock::acquire(&state, &first.lock_key, &first.target, &holder).await?;
    // Only under the lock it stays as it is.
    let journal = find()?;
    if journal.step.unfinished() {
        settle(executor.as_ref(), &journal.application_name)
            .await
            .map_err(|source| exec(format!("ending what restore {id} left at work"), source))?;
    }
    let mut writer = Writer::open(repo, sink, journal)?;
    // Whoever comes after a kill of this run has to end its sessions.
    writer
        .journal
        .application_name
        .clone_from(&executor.settings().application_name);
    Ok((lock, writer))
}

/// Finishes a restore that stopped while names were exchanged, and undoes one that stopped
/// earlier. One that is finished is left as it is.
///
/// # Errors
/// [`BackupError::RestoreNeedsAttention`] when somebody else changed the databases meanwhile;
/// [`BackupError::Locked`] when a run works on the target; the server's failure otherwise, after
/// which it may be tried again.
pub async fn resume(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    id: &BackupId,
    sink: &dyn EventSink,
) -> Result<(RestoreJournal, Option<SwapReport>), BackupError> {
    let (_lock, mut writer) = take_up(repo, executor, id, "restore", sink).await?;
    let executor = executor.as_ref();
    match writer.journal.step {
        RestoreStep::Swapping => match look(executor, &writer.journal, Way::Forward).await? {
            Standing::After => {
                finish(&mut writer, Way::Forward, None)?;
            }
            Standing::Before => {
                go(executor, &mut writer, Way::Forward).await?;
            }
            Standing::Gone => writer.step(RestoreStep::Undone)?,
            Standing::Other(what) => return Err(attention(&writer.journal, what)),
        },
        RestoreStep::RollingBack => match look(executor, &writer.journal, Way::Back).await? {
            Standing::After => {
                finish(&mut writer, Way::Back, None)?;
            }
            Standing::Before => {
                go(executor, &mut writer, Way::Back).await?;
            }
            Standing::Gone => {
                return Err(attention(
                    &writer.journal,
                    "the old database is not there any more; nothing was changed".to_owned(),
                ));
            }
            Standing::Other(what) => return Err(attention(&writer.journal, what)),
        },
        step if step.unfinished() => undo(executor, &mut writer, sink).await?,
        _ => {}
    }
    let report = report(&writer.journal);
    Ok((writer.journal, report))
}

/// Puts the database back that a restore replaced; the restored one is kept beside it. A restore
/// that has not replaced it yet is undone.
///
/// # Errors
/// As [`resume`]; [`BackupError::RestoreRefused`] when there is nothing to put back.
pub async fn rollback(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    id: &BackupId,
    sink: &dyn EventSink,
) -> Result<(RestoreJournal, Option<SwapReport>), BackupError> {
    let (_lock, mut writer) = take_up(repo, executor, id, "rollback", sink).await?;
    let executor = executor.as_ref();
    match writer.journal.step {
        RestoreStep::Swapped | RestoreStep::RollingBack => back(executor, &mut writer).await?,
        RestoreStep::Swapping => match look(executor, &writer.journal, Way::Forward).await? {
            Standing::After => back(executor, &mut writer).await?,
            Standing::Before => undo(executor, &mut writer, sink).await?,
            Standing::Gone => writer.step(RestoreStep::Undone)?,
            Standing::Other(what) => return Err(attention(&writer.journal, what)),
        },
        step if step.unfinished() => undo(executor, &mut writer, sink).await?,
        RestoreStep::RolledBack | RestoreStep::Undone => {}
        step => {
            return Err(refused(
                format!(
                    "restore {id} cannot be rolled back: the old database was dropped ({})",
                    step.as_str()
                ),
                match &writer.journal.safety_backup {
                    Some(backup) => format!("restore its safety backup: pgstow restore {backup}"),
                    None => "pgstow list shows the backups".to_owned(),
                },
            ));
        }
    }
    let report = report(&writer.journal);
    Ok((writer.journal, report))
}

/// Drops the database that a restore or rollback keeps. Whether it is due is the caller's to say.
///
/// # Errors
/// As [`resume`]. A database of the name that is not the one that was kept is left alone, and the
/// kept one is forgotten.
pub async fn drop_kept(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    id: &BackupId,
    sink: &dyn EventSink,
) -> Result<(), BackupError> {
    let (_lock, mut writer) = take_up(repo, executor, id, "prune", sink).await?;
    let Some(kept) = writer.journal.kept() else {
        return Ok(());
    };
    let failed = |source| exec(format!("dropping database {:?}", kept.name), source);
    let found = create::oid(executor.as_ref(), &kept.name)
        .await
        .map_err(failed)?;
    if found == Some(kept.oid) {
        create::drop(executor.as_ref(), &kept.name, kept.oid)
            .await
            .map_err(failed)?;
    } else {
        sink.emit(BackupEvent::Warning {
            message: match found {
                Some(_) => format!(
                    "database {:?} is not the one that was kept; it was left alone",
                    kept.name
                ),
                None => format!(
                    "database {:?} was dropped or renamed by somebody else",
                    kept.name
                ),
            },
        });
    }
    writer.step(RestoreStep::Dropped)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

impl Way {
    fn exchange(self, journal: &RestoreJournal) -> Exchange<'_> {
        match self {
            Self::Forward => forward(journal),
            Self::Back => backward(journal),
        }
    }

    fn done(self) -> RestoreStep {
        match self {
            Self::Forward => RestoreStep::Swapped,
            Self::Back => RestoreStep::RolledBack,
        }
    }
}

async fn look(
    executor: &dyn PgExecutor,
    journal: &RestoreJournal,
    way: Way,
) -> Result<Standing, BackupError> {
    swap::standing(executor, &way.exchange(journal))
        .await
        .map_err(|source| exec("looking at the names of the databases", source))
}

/// The old database gets its name back.
async fn back(executor: &dyn PgExecutor, writer: &mut Writer<'_>) -> Result<(), BackupError> {
    match look(executor, &writer.journal, Way::Back).await? {
        Standing::After => finish(writer, Way::Back, None),
        Standing::Before => {
            writer.step(RestoreStep::RollingBack)?;
            go(executor, writer, Way::Back).await
        }
        Standing::Gone => Err(attention(
            &writer.journal,
            format!(
                "the old database {:?} is not there any more; nothing was changed",
                writer.journal.before
            ),
        )),
        Standing::Other(what) => Err(attention(&writer.journal, what)),
    }
}

/// Exchanges the names; the journal says already that it may have been done.
async fn go(
    executor: &dyn PgExecutor,
    writer: &mut Writer<'_>,
    way: Way,
) -> Result<(), BackupError> {
    // With the name of this run's sessions.
    writer.save()?;
    let journal = writer.journal.clone();
    let wanted = way.exchange(&journal);
    let error = match swap::exchange(executor, &journal.maintenance, &wanted).await {
        Ok(done) => return finish(writer, way, Some(done)),
        Err(error) => error,
    };
    let looked = match settle(executor, &journal.application_name).await {
        Ok(()) => swap::standing(executor, &wanted).await,
        Err(problem) => Err(problem),
    };
    match looked {
        Ok(Standing::After) => finish(writer, way, None),
        Ok(Standing::Before) if way == Way::Back => {
            // Nothing has changed: the restored database is live as before.
            writer.step(RestoreStep::Swapped)?;
            Err(BackupError::RestoreFailed {
                database: journal.database.clone(),
                phase: "putting the old database back".to_owned(),
                source: Box::new(exec("exchanging the names of the databases", error)),
            })
        }
        Ok(Standing::Before) => Err(BackupError::RestoreFailed {
            database: journal.database.clone(),
            phase: "swapping the databases".to_owned(),
            source: Box::new(exec("exchanging the names of the databases", error)),
        }),
        Ok(Standing::Gone) => Err(unclear(
            &journal,
            "one of the two databases is not there any more".to_owned(),
            error,
        )),
        Ok(Standing::Other(what)) => Err(unclear(&journal, what, error)),
        Err(problem) => Err(unclear(
            &journal,
            format!(
                "which database is live is not known ({})",
                in_words(&problem)
            ),
            error,
        )),
    }
}

fn finish(
    writer: &mut Writer<'_>,
    way: Way,
    exchanged: Option<Exchanged>,
) -> Result<(), BackupError> {
    writer.journal.outage_seconds = exchanged.map(|done| done.outage_seconds);
    writer.keep_from_now();
    writer.step(way.done())
}

/// Drops the staging database of a restore that stopped before its swap.
async fn undo(
    executor: &dyn PgExecutor,
    writer: &mut Writer<'_>,
    sink: &dyn EventSink,
) -> Result<(), BackupError> {
    let journal = &writer.journal;
    let failed = |source| exec(format!("dropping database {:?}", journal.staging), source);
    let oid = match journal.staging_oid {
        Some(oid) => Some(oid),
        None => unrecorded(executor, journal).await?,
    };
    if let Some(oid) = oid {
        let found = create::oid(executor, &journal.staging)
            .await
            .map_err(failed)?;
        if found == Some(oid) {
            create::drop(executor, &journal.staging, oid)
                .await
                .map_err(failed)?;
        } else if found.is_some() {
            sink.emit(BackupEvent::Warning {
                message: format!(
                    "database {:?} is not the one that the restore made; it was left alone",
                    journal.staging
                ),
            });
        }
    }
    if !journal.roles.is_empty() && journal.step >= RestoreStep::StagingCreated {
        sink.emit(BackupEvent::Warning {
            message: format!(
                "restore {} may have created the roles {}; they are left as they are",
                journal.id,
                super::roles::list(&journal.roles)
            ),
        });
    }
    sink.emit(BackupEvent::CleanedUp {
        message: format!(
            "restore {} stopped at step {} and was undone: database {:?} was not touched{}",
            journal.id,
            journal.step.as_str(),
            journal.database,
            match oid {
                Some(_) => format!(", staging database {:?} is gone", journal.staging),
                None => String::new(),
            }
        ),
    });
    writer.step(RestoreStep::Undone)
}

/// Oid of a staging database that was made just before the kill, so that its oid was not written.
/// It is ours when nothing is in it: the oid is written before anything comes into it.
async fn unrecorded(
    executor: &dyn PgExecutor,
    journal: &RestoreJournal,
) -> Result<Option<u32>, BackupError> {
    #[derive(Deserialize)]
    struct Row {
        objects: u64,
    }
    const SELECT: &str = "\
SELECT (SELECT count(*) FROM pg_catalog.pg_class WHERE oid >= 16384) \
     + (SELECT count(*) FROM pg_catalog.pg_namespace WHERE oid >= 16384) \
     + (SELECT count(*) FROM pg_catalog.pg_proc WHERE oid >= 16384) \
     + (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata) AS objects";
    let looking = |source| exec(format!("looking at database {:?}", journal.staging), source);
    if journal.step < RestoreStep::StagingCreated {
        return Ok(None);
    }
    let Some(oid) = create::oid(executor, &journal.staging)
        .await
        .map_err(looking)?
    else {
        return Ok(None);
    };
    let rows: Vec<Row> = query::rows(executor, &journal.staging, "what is in it", SELECT, &[])
        .await
        .map_err(looking)?;
    match rows.first() {
        Some(row) if row.objects == 0 => Ok(Some(oid)),
        _ => Err(attention(
            journal,
            format!(
                "database {:?} is there and not empty, so it is not known to be of this restore; \
                 it was left alone: drop it by hand when it is nobody's",
                journal.staging
            ),
        )),
    }
}

fn attention(journal: &RestoreJournal, left: String) -> BackupError {
    BackupError::RestoreNeedsAttention {
        database: journal.database.clone(),
        phase: format!("step {} of restore {}", journal.step.as_str(), journal.id),
        left,
        source: Box::new(BackupError::Preflight {
            problem: "somebody else changed the databases meanwhile".to_owned(),
            remedy: "look at the databases that the message names (psql -l), and rename them by \
                     hand as they should be"
                .to_owned(),
        }),
    }
}

fn report(journal: &RestoreJournal) -> Option<SwapReport> {
    matches!(journal.step, RestoreStep::Swapped | RestoreStep::RolledBack).then(|| SwapReport {
        restore: journal.id.clone(),
        outage_seconds: journal.outage_seconds,
        sessions_ended: None,
        kept: journal.kept(),
        safety_backup: journal.safety_backup.clone(),
    })
}
