//! A restore that replaces a database: safety backup, staging database, exchange of names.

use std::collections::BTreeMap;

use super::{
    apply::{Restored, Run},
    check::in_words,
    count::Counts,
    create,
    fill::exec,
    journal::{Beginning, RestoreStep, Writer},
    live::SwapWork,
    rollback::{self, forward},
    source::refused,
    swap::{self, Exchanged, Standing},
};
use crate::{
    BackupError, BackupEvent, BackupId, BackupOptions, SwapReport, VerifyLevel,
    compare::{Expected, compare, observe},
    manifest::SAFETY_TAG,
    run,
};

/// Differences that a message names.
const SHOWN: usize = 5;

impl Run<'_> {
    /// Makes the staging database and gives it the name of the live one.
    pub(super) async fn staged(&mut self, work: &SwapWork) -> Result<Restored, BackupError> {
        self.begin(work).await?;
        let safety_backup = self.safety_backup(work).await?;
        let restored = self.whole_database().await?;
        self.enter("swapping the databases")?;
        // Written before the statement is sent: from here on the staging database may be the
        // live one, and nobody drops it who has not looked.
        self.step(RestoreStep::Swapping)?;
        let exchanged = self.exchange().await?;
        self.tell_swapped(exchanged, safety_backup);
        Ok(restored)
    }

    async fn begin(&mut self, work: &SwapWork) -> Result<(), BackupError> {
        self.enter("looking at the live database")?;
        let executor = self.executor.as_ref();
        rollback::refuse_unfinished(self.repo, executor.context(), self.database)?;
        // Whoever began these is dead: this run holds the target's lock.
        rollback::undo_dead(self.repo, self.executor, self.sink).await?;
        let live = create::oid(executor, self.database)
            .await
            .map_err(|source| exec("looking at the live database", source))?;
        if live != work.live {
            return Err(refused(
                format!(
                    "database {:?} is not the one that was planned for: it was created, dropped \
                     or renamed meanwhile",
                    self.database
                ),
                "run the command again".to_owned(),
            ));
        }
        let mut journal = Beginning {
            id: &work.id,
            context: executor.context(),
            application_name: &executor.settings().application_name,
            started_at: self.repo.clock.now(),
        }
        .journal();
        journal.source.clone_from(&self.work.source.label);
        journal.backup = self.work.source.backup.as_ref().map(|b| b.0.id.clone());
        journal.database = self.database.to_owned();
        journal.maintenance.clone_from(&work.maintenance);
        journal.live_oid = work.live;
        journal.staging.clone_from(&work.staging);
        journal.before.clone_from(&work.before);
        journal.undone.clone_from(&work.undone);
        journal.roles = self.work.decision.create_roles.iter().cloned().collect();
        journal.keep_old_seconds = work.keep_old_seconds;
        self.journal = Some(Writer::begin(self.repo, self.sink, journal)?);
        Ok(())
    }

    async fn safety_backup(&mut self, work: &SwapWork) -> Result<Option<BackupId>, BackupError> {
        if work.live.is_none() || !work.safety_backup {
            return Ok(None);
        }
        self.enter("backing up the live database")?;
        self.step(RestoreStep::SafetyBackup)?;
        let id = BackupId::new(self.repo.clock.now());
        let options = BackupOptions {
            databases: vec![self.database.to_owned()],
            verify: VerifyLevel::Read,
            tags: BTreeMap::from([(SAFETY_TAG.to_owned(), work.id.to_string())]),
            ..BackupOptions::default()
        };
        // This run holds the lock of the target already.
        let made = run::back_up_locked(
            self.repo,
            self.executor,
            id.clone(),
            &options,
            self.sink,
            self.cancel,
            None,
        )
        .await?;
        if let Some(writer) = &mut self.journal {
            writer.journal.safety_backup = Some(made.manifest.id);
        }
        Ok(Some(id))
    }

    /// Reads the staging database again and compares it with what was attested: rows,
    /// fingerprints, sequences, large objects, catalogue.
    pub(super) async fn compare(&mut self) -> Result<Counts, BackupError> {
        self.enter("comparing the staging database with the backup")?;
        let expected = Expected::of_work(self.work).await?;
        let wanted = expected.wanted();
        let observed = observe(
            self.executor,
            &self.working,
            &wanted,
            self.sink,
            self.cancel,
        );
        let observed = observed.await?;
        let compared = compare(&expected, &observed);
        if compared.is_equal() {
            self.sink.emit(BackupEvent::Chosen {
                message: format!(
                    "{} equals the backup: {}/{} tables, {} by their content, {} rows{}",
                    match &self.journal {
                        Some(_) => "the staging database",
                        None => "the restored part",
                    },
                    compared.tables_equal,
                    compared.tables_total,
                    compared.fingerprints,
                    compared.rows,
                    match compared.not_compared.as_slice() {
                        [] => String::new(),
                        missing => format!(" ({})", missing.join("; ")),
                    }
                ),
            });
            return Ok(Counts::of(compared.tables_total, compared.rows));
        }
        let shown: Vec<_> = compared
            .differences
            .iter()
            .take(SHOWN)
            .map(|one| {
                format!(
                    "{}: {} expected, {} found",
                    one.object, one.expected, one.found
                )
            })
            .collect();
        Err(BackupError::ArchiveIncomplete {
            subject: format!("database {:?}", self.database),
            problem: format!(
                "{} differences between the backup and what was restored of it: {}{}",
                compared.differences.len(),
                shown.join("; "),
                match &self.journal {
                    Some(_) => "; a restore beside (--as NEWDB) lets you look",
                    None => "",
                }
            ),
        })
    }

    /// Exchanges the names. An error is only returned when the live database is the old one, or
    /// when nobody knows.
    async fn exchange(&mut self) -> Result<Option<Exchanged>, BackupError> {
        let Some(writer) = &self.journal else {
            return Ok(None);
        };
        let executor = self.executor.as_ref();
        let journal = writer.journal.clone();
        let wanted = forward(&journal);
        let staging = self.made.database.take();
        let error = match swap::exchange(executor, &journal.maintenance, &wanted).await {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        // The server may have done it all the same, or may still be at it.
        let looked = match rollback::settle(executor, &journal.application_name).await {
            Ok(()) => swap::standing(executor, &wanted).await,
            Err(problem) => Err(problem),
        };
        match looked {
            Ok(Standing::After) => Ok(None),
            Ok(Standing::Before) => {
                self.made.database = staging;
                Err(exec("exchanging the names of the databases", error))
            }
            Ok(Standing::Gone) => Err(exec("exchanging the names of the databases", error)),
            Ok(Standing::Other(what)) => Err(rollback::unclear(&journal, what, error)),
            Err(problem) => {
                let left = format!(
                    "which database is live is not known ({}); pgstow restore --resume looks and \
                     finishes or undoes it",
                    in_words(&problem)
                );
                Err(rollback::unclear(&journal, left, error))
            }
        }
    }

    /// The restored database is live: nothing may fail any more.
    fn tell_swapped(&mut self, exchanged: Option<Exchanged>, safety_backup: Option<BackupId>) {
        let Some(writer) = &mut self.journal else {
            return;
        };
        writer.journal.outage_seconds = exchanged.map(|done| done.outage_seconds);
        if writer.journal.live_oid.is_some() {
            writer.keep_from_now();
        }
        if let Err(problem) = writer.step(RestoreStep::Swapped) {
            self.sink.emit(BackupEvent::Warning {
                message: format!(
                    "the restored database is live, but the journal could not say so: {}; pgstow \
                     restore --resume does",
                    in_words(&problem)
                ),
            });
        }
        self.swapped = Some(SwapReport {
            restore: writer.journal.id.clone(),
            outage_seconds: exchanged.map(|done| done.outage_seconds),
            sessions_ended: exchanged.map(|done| done.ended),
            kept: writer.journal.kept(),
            safety_backup,
        });
    }
}
