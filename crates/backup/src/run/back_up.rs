//! The order of a run: lock, record, preflight, clean up, dump, check, publish.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use dbexec::{PgExecutor, PgProgram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cleanup::{clean_up, remove_backup};
use super::dump::Work;
use super::preflight::{Plan, preflight};
use super::publish::publish;
use crate::lock::{Holder, TargetLock};
use crate::manifest::{DatabaseRecord, FORMAT_VERSION, TargetRecord};
use crate::requests::VerifyProblem;
use crate::verify::Seen;
use crate::{
    BackupError, BackupEvent, BackupId, BackupOptions, BackupReport, EventSink, Manifest,
    Repository, RunRecord, RunState, VerifyLevel, recipe, records, state::StateDir, verify,
};

/// Backs up one target. `id` names the run and the backup; the executor's sessions carry it in
/// their `application_name`.
///
/// # Errors
/// [`BackupError`]; nothing of the run is then left in the store (as far as the store still
/// works), and its record says what went wrong.
pub async fn back_up(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    id: BackupId,
    options: &BackupOptions,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<BackupReport, BackupError> {
    let context = executor.context();
    let target = context.target_name();
    let key = records::lock_key(context.server.system_identifier.as_deref(), &target);
    let state = StateDir::open(&repo.state_dir)?;
    let holder = Holder::this("backup", Some(&id), repo.clock.as_ref());
    let lock = TargetLock::acquire(&state, &key, &target, &holder).await?;
    back_up_locked(repo, executor, id, options, sink, cancel, Some(lock)).await
}

/// As [`back_up`], where the caller holds the target's lock, or gives it away.
pub(crate) async fn back_up_locked(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    id: BackupId,
    options: &BackupOptions,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
    lock: Option<TargetLock>,
) -> Result<BackupReport, BackupError> {
    let begun = Instant::now();
    let context = executor.context();
    let target = context.target_name();
    let key = records::lock_key(context.server.system_identifier.as_deref(), &target);
    let state = StateDir::open(&repo.state_dir)?;
    let newest = repo.newest_sequence().await?;
    let mut record = RunRecord {
        format_version: records::RECORD_VERSION,
        id: id.clone(),
        sequence: records::next_sequence(&state, newest)?,
        target,
        lock_key: key,
        application_name: executor.settings().application_name.clone(),
        started_at: repo.clock.now(),
        ended_at: None,
        state: RunState::Running,
        error_code: None,
        error: None,
    };
    records::write(&state, &record)?;

    let run = Run {
        repo,
        executor,
        options,
        sink,
        cancel,
        record: &record,
        state: &state,
    };
    let result = run.work().await;
    record.ended_at = Some(repo.clock.now());
    match result {
        Ok(manifest) => {
            record.state = RunState::Done;
            if let Err(error) = records::write(&state, &record) {
                // The manifest is in place, so the backup exists; the next run mends the record.
                sink.emit(BackupEvent::Warning {
                    message: format!("the record of the run: {}", chain(&error)),
                });
            }
            drop(lock);
            let bytes = manifest.files().map(|file| file.bytes).sum();
            sink.emit(BackupEvent::Published {
                id: id.clone(),
                bytes,
                verified: manifest.verified,
            });
            Ok(BackupReport {
                manifest,
                location: repo.location(&id),
                bytes,
                seconds: begun.elapsed().as_secs_f64(),
            })
        }
        Err(error) => {
            let error =
                if cancel.is_cancelled() && !matches!(error, BackupError::Interrupted { .. }) {
                    BackupError::Interrupted {
                        operation: format!("backing up ({error})"),
                    }
                } else {
                    error
                };
            if let Err(left) = remove_backup(repo.store.as_ref(), &id).await {
                sink.emit(BackupEvent::Warning {
                    message: format!("files of the failed run are left: {}", chain(&left)),
                });
            }
            record.state = match error {
                BackupError::Interrupted { .. } => RunState::Interrupted,
                _ => RunState::Failed,
            };
            record.error_code = Some(error.code().to_owned());
            record.error = Some(chain(&error));
            // A name that was mistyped is no failure of the target.
            let written = if matches!(error, BackupError::NoSuchDatabase { .. }) {
                records::remove(&state, &id)
            } else {
                records::write(&state, &record)
            };
            if let Err(left) = written {
                sink.emit(BackupEvent::Warning {
                    message: format!("the record of the run: {}", chain(&left)),
                });
            }
            Err(error)
        }
    }
}

/// An error with its sources, for a record.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

pub(super) struct Run<'a> {
    pub(super) repo: &'a Repository,
    pub(super) executor: &'a Arc<dyn PgExecutor>,
    pub(super) options: &'a BackupOptions,
    pub(super) sink: &'a dyn EventSink,
    pub(super) cancel: &'a CancellationToken,
    pub(super) record: &'a RunRecord,
    state: &'a StateDir,
}

impl Run<'_> {
    async fn work(&self) -> Result<Manifest, BackupError> {
        let id = &self.record.id;
        let mut plan = preflight(self.repo, self.executor, self.options, self.sink).await?;
        for message in &plan.warnings {
            self.sink.emit(BackupEvent::Warning {
                message: message.clone(),
            });
        }
        clean_up(self.repo, self.state, self.executor, self.record, self.sink).await?;
        self.go_on("starting")?;
        self.sink.emit(BackupEvent::RunStarted {
            id: id.clone(),
            target: self.record.target.clone(),
            databases: plan.databases.iter().map(|(d, _)| d.name.clone()).collect(),
            size_bytes: plan
                .databases
                .iter()
                .filter_map(|(d, _)| d.size_bytes)
                .sum(),
        });
        let work = Work {
            store: &self.repo.store,
            executor: self.executor,
            dir: id.as_str(),
            cancel: self.cancel,
        };
        let mut warnings = std::mem::take(&mut plan.warnings);
        let dumps = self.dump_all(&work, &plan, &mut warnings).await?;
        let mut manifest = self.manifest(&plan, dumps.databases, dumps.globals, warnings);
        // Bound to one server from its discovery to the end: an archive of another server that
        // took its place must not be published under this target's name.
        let (same, checked) = tokio::join!(
            dbexec::query::check_same_server(plan.route.as_deref(), self.executor.as_ref()),
            self.check(&manifest, &dumps.seen, dumps.problems)
        );
        same.map_err(|source| BackupError::Exec {
            operation: "checking that the server is still the same".to_owned(),
            source,
        })?;
        checked?;
        self.go_on("publishing")?;
        manifest.finished_at = self.repo.clock.now();
        manifest.recipe = recipe::recipe(&manifest);
        let manifest = Arc::new(manifest);
        publish(self.repo.store.as_ref(), &manifest).await?;
        // Nobody else holds it any more.
        Ok(Arc::unwrap_or_clone(manifest))
    }

    pub(super) fn go_on(&self, operation: &str) -> Result<(), BackupError> {
        if self.cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: operation.to_owned(),
            });
        }
        Ok(())
    }

    fn manifest(
        &self,
        plan: &Plan,
        databases: Vec<DatabaseRecord>,
        globals: crate::manifest::GlobalsRecord,
        warnings: Vec<String>,
    ) -> Manifest {
        let context = self.executor.context();
        Manifest {
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.record.id.clone(),
            sequence: self.record.sequence,
            started_at: self.record.started_at,
            finished_at: self.record.started_at,
            target: TargetRecord {
                name: self.record.target.clone(),
                mode: context.mode,
                credential_source: context.source,
                transport: self.executor.transport(),
                host: context.creds.host.clone(),
                port: context.creds.port,
                user: context.creds.user.clone(),
                database: Some(context.creds.database.clone()),
                container: context.container.clone(),
                server: context.server.lasting(),
                settings: plan.settings.clone(),
            },
            programs: BTreeMap::from([(
                PgProgram::PgDump.as_str().to_owned(),
                plan.pg_dump.version.clone(),
            )]),
            globals,
            databases,
            verified: self.options.verify.min(VerifyLevel::Read),
            warnings,
            tags: self.options.tags.clone(),
            recipe: Vec::new(),
        }
    }

    /// Checks the stored files before anything points to them. `problems`: what was found already.
    async fn check(
        &self,
        manifest: &Manifest,
        seen: &[Seen],
        mut problems: Vec<VerifyProblem>,
    ) -> Result<(), BackupError> {
        if self.options.verify == VerifyLevel::None {
            return Ok(());
        }
        let checked = verify::check_archives(
            self.repo,
            manifest,
            self.options.verify,
            Some(seen),
            self.sink,
            self.cancel,
        )
        .await?;
        problems.extend(checked.problems);
        if problems.is_empty() {
            return Ok(());
        }
        Err(BackupError::VerifyFailed {
            id: manifest.id.to_string(),
            problems,
        })
    }
}
