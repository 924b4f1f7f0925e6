//! Carries a plan out, phase by phase; what fails takes back what this run made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dbexec::{NativeRoute, PgExecutor, executor::ScratchDir, query};
use tokio_util::sync::CancellationToken;

use super::{
    analyze, count,
    create::{self, quoted},
    fill::{Destination, Filled, exec, fill, place, remove},
    journal::{RestoreStep, Writer},
    parallel,
    plan::{PlannedWork, role_statements},
};
use crate::{
    BackupError, BackupEvent, EventSink, Repository, RestorePlace, RestorePlan, RestoreReport,
    SwapReport,
    lock::{Holder, TargetLock},
    records,
    state::StateDir,
};

/// What this run made on the target, and takes back when it fails.
#[derive(Default)]
pub(super) struct Made {
    roles: Vec<String>,
    /// Name and oid.
    pub(super) database: Option<(String, u32)>,
    /// A CREATE DATABASE was sent and its outcome is not known.
    creating: Option<String>,
    /// Files next to the server.
    scratch: Option<ScratchDir>,
}

/// Carries out a plan.
///
/// # Errors
/// [`BackupError::RestoreFailed`] when the target is as it was before,
/// [`BackupError::RestoreNeedsAttention`] when something is left,
/// [`BackupError::Interrupted`] when it was cancelled and everything was taken back,
/// [`BackupError::Locked`] when another run works on the target.
pub async fn restore(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    plan: &RestorePlan,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<RestoreReport, BackupError> {
    carry_out(repo, executor, plan, true, sink, cancel).await
}

/// As [`restore`]; into a server that is this run's alone without a lock, so that no file of a
/// lock stays behind.
pub(crate) async fn carry_out(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    plan: &RestorePlan,
    locked: bool,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<RestoreReport, BackupError> {
    let route = parallel::route(executor.as_ref(), &plan.work).await;
    let way = route.as_deref().ok();
    // Each of them takes its time, and none needs another.
    let (same, leftovers) = tokio::join!(
        query::check_same_server(way, executor.as_ref()),
        leftovers(way, executor.as_ref(), plan),
    );
    same.map_err(|source| {
        exec(
            "comparing the server with the one that was planned for",
            source,
        )
    })?;
    // A backup run beside this one would take a half-filled database for a whole one.
    let context = executor.context();
    let target = context.target_name();
    let key = records::lock_key(context.server.system_identifier.as_deref(), &target);
    let state = StateDir::open(&repo.state_dir)?;
    let holder = Holder::this("restore", None, repo.clock.as_ref());
    let _lock = match locked {
        true => Some(TargetLock::acquire(&state, &key, &target, &holder).await?),
        false => None,
    };
    let started = repo.clock.now();
    for message in &plan.warnings {
        sink.emit(BackupEvent::Warning {
            message: message.clone(),
        });
    }
    let name = plan.place.database();
    let mut run = Run {
        repo,
        executor,
        route,
        work: &plan.work,
        database: name,
        working: match (&plan.place, &plan.work.swap) {
            (RestorePlace::InPlace { .. }, _) => name.to_owned(),
            (_, Some(swap)) => swap.staging.clone(),
            (_, None) => create::working_name(name),
        },
        sink,
        cancel,
        made: Made::default(),
        phase: "starting",
        journal: None,
        swapped: None,
    };
    let result = match (&plan.place, &plan.work.swap) {
        (RestorePlace::InPlace { .. }, _) => run.in_place().await,
        (_, Some(swap)) => run.staged(swap).await,
        (_, None) => run.new_database(&leftovers).await,
    };
    match result {
        Ok((counts, warnings)) => Ok(RestoreReport {
            database: name.to_owned(),
            tables: counts.tables,
            rows: counts.rows,
            warnings,
            seconds: seconds_since(repo, started),
            swap: run.swapped,
        }),
        Err(error) => Err(run.failed(error).await),
    }
}

/// Databases that killed restores left, where a new one is made beside them.
async fn leftovers(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    plan: &RestorePlan,
) -> Vec<String> {
    match plan.place {
        RestorePlace::NewDatabase { .. } => {
            create::leftovers(route, executor).await.unwrap_or_default()
        }
        RestorePlace::Swap { .. } | RestorePlace::InPlace { .. } => Vec::new(),
    }
}

fn seconds_since(repo: &Repository, started: jiff::Timestamp) -> f64 {
    (repo.clock.now() - started)
        .total(jiff::Unit::Second)
        .unwrap_or_default()
}

pub(super) struct Run<'a> {
    pub(super) repo: &'a Repository,
    pub(super) executor: &'a Arc<dyn PgExecutor>,
    /// The way of sessions of ours to the server, or why there is none.
    route: Result<Arc<NativeRoute>, String>,
    pub(super) work: &'a PlannedWork,
    /// The name that the user asked for.
    pub(super) database: &'a str,
    /// The name while it is filled: a run that is killed leaves nothing behind that could be
    /// taken for the restored database.
    pub(super) working: String,
    pub(super) sink: &'a dyn EventSink,
    pub(super) cancel: &'a CancellationToken,
    pub(super) made: Made,
    /// What is going on, for messages.
    pub(super) phase: &'static str,
    /// Of a restore that replaces a database.
    pub(super) journal: Option<Writer<'a>>,
    /// What its swap did.
    pub(super) swapped: Option<SwapReport>,
}

pub(super) type Restored = (count::Counts, Vec<String>);

impl Run<'_> {
    async fn new_database(&mut self, leftovers: &[String]) -> Result<Restored, BackupError> {
        self.tell_leftovers(leftovers);
        let restored = self.whole_database().await?;
        self.enter("giving the database its name")?;
        let executor = self.executor.as_ref();
        create::rename(self.route(), executor, &self.working, self.database)
            .await
            .map_err(|source| exec("giving the database its name", source))?;
        Ok(restored)
    }

    /// A database under its working name that equals the source in everything but its name.
    pub(super) async fn whole_database(&mut self) -> Result<Restored, BackupError> {
        let executor = self.executor.as_ref();
        self.step(RestoreStep::StagingCreated)?;
        self.create_roles().await?;
        self.enter("creating the database")?;
        self.made.creating = Some(self.working.clone());
        // Wherever sessions fill, files are put next to the server.
        let place = async {
            match &self.route {
                Ok(_) => place(executor).await.map(Some),
                Err(_) => Ok(None),
            }
        };
        let creating = create::create(
            self.route(),
            executor,
            &self.working,
            &self.work.facts,
            self.work.target_major,
            self.work.keep_owner,
            self.work.decision.no_tablespaces,
        );
        let (created, placed) = tokio::join!(creating, place);
        if let Ok(scratch) = &placed {
            self.made.scratch.clone_from(scratch);
        }
        let oid = created
            .map_err(|source| exec(format!("creating database {:?}", self.database), source))?;
        self.made.creating = None;
        self.made.database = Some((self.working.clone(), oid));
        placed?;
        if let Some(writer) = &mut self.journal {
            writer.journal.staging_oid = Some(oid);
        }
        // The oid has to be known before anything is in it.
        self.step(RestoreStep::Filling)?;
        self.enter("setting the database's parameters")?;
        create::early_settings(self.route(), executor, &self.working, &self.work.facts)
            .await
            .map_err(|source| exec("setting the database's parameters", source))?;
        let filled = self.fill(false).await?;
        let (executor, scratch) = (Arc::clone(self.executor), self.made.scratch.take());
        let removing = tokio::spawn(async move { remove(executor.as_ref(), scratch).await });
        let finished = self.finished(filled).await;
        let removed = removing.await;
        let finished = finished?;
        removed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(finished)
    }

    /// Compares what was filled with the source and gives it what comes last.
    async fn finished(&mut self, filled: Filled) -> Result<Restored, BackupError> {
        let executor = self.executor.as_ref();
        self.step(RestoreStep::Comparing)?;
        // A database that is going to be the live one has to prove more.
        let counts = match (&self.journal, &self.work.checked.part) {
            (Some(_), _) => self.compare().await?,
            (None, None) => self.count(false, &filled.taken).await?,
            // Rows are taken out of a part by hand, and nobody compares them again.
            (None, Some(_)) => {
                let counts = self.count(false, &filled.taken).await?;
                self.compare().await?;
                counts
            }
        };
        self.enter("setting the database's properties")?;
        create::finish(
            self.route(),
            executor,
            &self.working,
            &self.work.facts,
            self.work.keep_owner,
        )
        .await
        .map_err(|source| exec("setting the database's properties", source))?;
        self.analyze(filled.sessions, &filled.analyzed).await?;
        Ok((counts, filled.stderr))
    }

    /// Writes the next step ahead, where there is a journal.
    pub(super) fn step(&mut self, step: RestoreStep) -> Result<(), BackupError> {
        match &mut self.journal {
            Some(writer) => writer.step(step),
            None => Ok(()),
        }
    }

    /// Databases that killed restores left: whose they are is not certain, so they are told.
    fn tell_leftovers(&self, leftovers: &[String]) {
        for name in leftovers {
            self.sink.emit(BackupEvent::Warning {
                message: format!(
                    "database {name:?} was left by a restore that was killed; unless one runs \
                     right now, drop it: DROP DATABASE {}",
                    quoted(name)
                ),
            });
        }
    }

    async fn in_place(&mut self) -> Result<Restored, BackupError> {
        self.create_roles().await?;
        let filled = self.fill(true).await?;
        remove(self.executor.as_ref(), self.made.scratch.take()).await?;
        let counts = self.count(true, &filled.taken).await?;
        self.analyze(filled.sessions, &filled.analyzed).await?;
        Ok((counts, filled.stderr))
    }

    fn route(&self) -> Option<&NativeRoute> {
        self.route.as_deref().ok()
    }

    /// Begins a phase, unless the run was cancelled.
    pub(super) fn enter(&mut self, phase: &'static str) -> Result<(), BackupError> {
        self.phase = phase;
        if self.cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: phase.to_owned(),
            });
        }
        Ok(())
    }

    async fn create_roles(&mut self) -> Result<(), BackupError> {
        let wanted = &self.work.decision.create_roles;
        if wanted.is_empty() {
            return Ok(());
        }
        self.enter("creating the missing roles")?;
        let made = role_statements(&self.work.source, wanted, &self.work.existing_roles).await?;
        // Terse: the server's message must not show the statement, which holds the password
        // verifier.
        let mut script = "\\set VERBOSITY terse\n\\set SHOW_CONTEXT never\n".to_owned();
        for statement in &made.statements {
            script.push_str(statement);
            script.push_str(";\n");
        }
        let own = self.executor.context().creds.database.clone();
        query::execute(
            self.executor.as_ref(),
            &own,
            "creating the missing roles",
            &script,
            &[],
            true,
        )
        .await
        .map_err(|source| exec("creating the missing roles", source))?;
        self.made.roles = wanted.iter().cloned().collect();
        Ok(())
    }

    async fn fill(&mut self, in_place: bool) -> Result<Filled, BackupError> {
        self.enter("restoring the rows")?;
        let started = self.repo.clock.now();
        let subject = self.database.to_owned();
        self.sink.emit(BackupEvent::PhaseStarted {
            phase: "restore",
            subject: subject.clone(),
            expected_bytes: Some(self.work.checked.bytes()),
        });
        let destination = Destination {
            database: &self.working,
            in_place,
        };
        let finished = fill(
            self.executor,
            &self.route,
            &mut self.made.scratch,
            self.work,
            &destination,
            self.sink,
            self.cancel,
        )
        .await?;
        self.sink.emit(BackupEvent::PhaseFinished {
            phase: "restore",
            subject,
            bytes: self.work.checked.bytes(),
            seconds: seconds_since(self.repo, started),
        });
        Ok(finished)
    }

    async fn count(
        &mut self,
        in_place: bool,
        known: &BTreeMap<(String, String), u64>,
    ) -> Result<count::Counts, BackupError> {
        self.enter("comparing the rows with the archive")?;
        let executor = self.executor.as_ref();
        let counts = count::count(executor, self.route(), &self.working, known, self.cancel)
            .await
            .map_err(|source| exec("counting the restored rows", source))?;
        let differences = count::compare(
            &self.work.checked.tables,
            self.work.checked.large_objects,
            &counts,
        );
        if differences.is_empty() {
            return Ok(counts);
        }
        let shown = differences.iter().take(5).cloned().collect::<Vec<_>>();
        let problem = format!(
            "{} tables differ from the archive: {}",
            differences.len(),
            shown.join("; ")
        );
        if in_place {
            // Others write to a live database as soon as the transaction ends.
            self.sink.emit(BackupEvent::Warning { message: problem });
            return Ok(counts);
        }
        Err(BackupError::ArchiveIncomplete {
            subject: format!("database {:?}", self.database),
            problem,
        })
    }

    async fn analyze(&mut self, sessions: u32, done: &BTreeSet<String>) -> Result<(), BackupError> {
        self.enter("ANALYZE")?;
        let started = self.repo.clock.now();
        let subject = self.database.to_owned();
        self.sink.emit(BackupEvent::PhaseStarted {
            phase: "analyze",
            subject: subject.clone(),
            expected_bytes: None,
        });
        let executor = self.executor.as_ref();
        analyze::run(executor, &self.working, sessions, done, self.cancel).await?;
        self.sink.emit(BackupEvent::PhaseFinished {
            phase: "analyze",
            subject,
            bytes: 0,
            seconds: seconds_since(self.repo, started),
        });
        Ok(())
    }

    /// Takes back what was made and says how things stand.
    async fn failed(&mut self, error: BackupError) -> BackupError {
        if matches!(error, BackupError::RestoreNeedsAttention { .. }) {
            // Nothing may be taken back where it is not known what is there.
            return error;
        }
        let mut left = Vec::new();
        let executor = self.executor.as_ref();
        if let Err(problem) = remove(executor, self.made.scratch.take()).await {
            let message = super::check::in_words(&problem);
            self.sink.emit(BackupEvent::Warning { message });
        }
        if let Some((name, oid)) = &self.made.database
            && let Err(problem) = create::drop(executor, name, *oid).await
        {
            left.push(format!(
                "the new database {name:?} is still there ({}); drop it by hand: DROP DATABASE {}",
                super::check::in_words(&problem),
                quoted(name)
            ));
        }
        if let Some(name) = &self.made.creating {
            match create::oid(executor, name).await {
                Ok(None) => {}
                Ok(Some(_)) => left.push(format!(
                    "there is a database {name:?}, which this run or somebody else created at \
                     the same time; it was left alone"
                )),
                Err(problem) => left.push(format!(
                    "whether database {name:?} was created is not known ({})",
                    super::check::in_words(&problem)
                )),
            }
        }
        if left.is_empty() {
            for role in &self.made.roles {
                if let Err(problem) = drop_role(executor, role).await {
                    left.push(format!(
                        "the new role {role:?} is still there ({})",
                        super::check::in_words(&problem)
                    ));
                }
            }
        } else if !self.made.roles.is_empty() {
            left.push(format!(
                "the new roles {} are still there",
                super::roles::list(&self.made.roles)
            ));
        }
        if matches!(
            self.phase,
            "comparing the rows with the archive" | "ANALYZE"
        ) && self.made.database.is_none()
        {
            left.push(format!(
                "the rows in database {:?} were restored and committed",
                self.database
            ));
        }
        let interrupted = self.cancel.is_cancelled();
        if left.is_empty()
            && let Err(problem) = self.step(RestoreStep::Undone)
        {
            self.sink.emit(BackupEvent::Warning {
                message: format!(
                    "nothing of the restore is left, but its journal could not be closed: {}",
                    super::check::in_words(&problem)
                ),
            });
        }
        if !left.is_empty() {
            return BackupError::RestoreNeedsAttention {
                database: self.database.to_owned(),
                phase: self.phase.to_owned(),
                left: left.join("; "),
                source: Box::new(error),
            };
        }
        if interrupted {
            return BackupError::Interrupted {
                operation: format!(
                    "restoring into {:?} ({}); nothing on the target was changed",
                    self.database, self.phase
                ),
            };
        }
        BackupError::RestoreFailed {
            database: self.database.to_owned(),
            phase: self.phase.to_owned(),
            source: Box::new(error),
        }
    }
}

async fn drop_role(executor: &dyn PgExecutor, role: &str) -> Result<(), dbexec::ExecError> {
    let own = executor.context().creds.database.clone();
    query::execute(
        executor,
        &own,
        "dropping a new role",
        "DROP ROLE IF EXISTS :\"role\";",
        &[("role", role)],
        false,
    )
    .await
}
