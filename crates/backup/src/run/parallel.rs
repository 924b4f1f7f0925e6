//! One database of a run by sessions of our own: whether, and how.

use std::sync::Arc;

use archive::ArchiveKind;
use dbexec::executor::Finished;
use dbexec::{ExecError, NativeRoute, PgExecutor};
use tokio::sync::watch;

use super::Progress;
use super::back_up::Run;
use super::database::{InStore, Subject};
use super::dump::common;
use super::queries::{DatabaseFacts, InsideFacts};
use crate::attest::{Attesting, Contents, Wanted};
use crate::engine::{self, Failure, Stage};
use crate::manifest::EngineRecord;
use crate::{BackupError, BackupEvent, BackupOptions, DumpFormat, EngineChoice, VerifyLevel};

/// Most tables of an archive that is read while it is stored; of another one the reader would hold
/// the table of contents beside the movers' plan.
const READ_ALONG: u64 = 20_000;

/// Whether our own sessions move the rows.
pub(super) enum Engine {
    /// They do, over this route.
    Parallel(Arc<NativeRoute>),
    /// pg_dump does it alone, for this reason.
    Stock(String),
}

/// Why pg_dump has to do it alone.
pub(super) struct Alone {
    pub(super) reason: String,
    /// Whether our own sessions had begun.
    pub(super) begun: bool,
}

impl Alone {
    /// Nothing was begun.
    fn at_once(reason: String) -> Self {
        Self {
            reason,
            begun: false,
        }
    }

    /// The failure of a run that asked for the parallel engine and for nothing else.
    pub(super) fn forced(self, database: &str) -> BackupError {
        if self.begun {
            return BackupError::EngineFailed {
                database: database.to_owned(),
                reason: self.reason,
            };
        }
        BackupError::Preflight {
            problem: format!(
                "the parallel engine cannot dump database {database:?}: {}",
                self.reason
            ),
            remedy: "leave the choice of the engine to pgstow, or choose stock".to_owned(),
        }
    }
}

/// Whether our own sessions may move the rows of a database, and over which route.
async fn engine(
    executor: &dyn PgExecutor,
    options: &BackupOptions,
    inside: &InsideFacts,
) -> Engine {
    let extensions: Vec<&str> = inside.extensions.keys().map(String::as_str).collect();
    let may = engine::may(&engine::Before {
        choice: options.engine,
        format: options.format,
        max_connections: executor.settings().max_connections,
        extensions: &extensions,
    });
    match may {
        Err(reason) => Engine::Stock(reason),
        Ok(()) => match executor.native().await {
            Ok(route) => Engine::Parallel(route),
            Err(none) => Engine::Stock(none.to_string()),
        },
    }
}

/// Refuses, before anything begins, a run that asks for the parallel engine where it cannot be had.
pub(super) async fn refuse(
    executor: &Arc<dyn PgExecutor>,
    options: &BackupOptions,
    databases: &[(DatabaseFacts, InsideFacts)],
) -> Result<(), BackupError> {
    if options.engine != EngineChoice::Parallel {
        return Ok(());
    }
    for (database, inside) in databases {
        if let Engine::Stock(reason) = engine(executor.as_ref(), options, inside).await {
            return Err(Alone::at_once(reason).forced(&database.name));
        }
    }
    Ok(())
}

impl Run<'_> {
    /// Starts pg_dump for its table of contents, in the snapshot of our own session.
    pub(super) async fn start_program(
        &self,
        subject: Subject<'_>,
        snapshot: &str,
    ) -> Result<engine::Started, ExecError> {
        let args = common(self.options, self.executor.settings().lock_wait_timeout);
        let database = (subject.number, subject.facts.name.as_str());
        engine::start(
            self.executor.as_ref(),
            args,
            snapshot,
            database,
            self.cancel,
        )
        .await
    }

    /// Dumps with our own sessions, where they are chosen and it pays; else says why pg_dump has
    /// to do it alone. `program`: pg_dump, where it was started already.
    pub(super) async fn store_by(
        &self,
        engine: Engine,
        subject: Subject<'_>,
        attesting: &mut Attesting,
        wanted: &Wanted,
        program: Option<Result<engine::Started, ExecError>>,
        stage: &watch::Sender<Stage>,
    ) -> Result<Result<InStore, Alone>, BackupError> {
        let route = match engine {
            Engine::Parallel(route) => route,
            Engine::Stock(reason) => return Ok(Err(Alone::at_once(reason))),
        };
        if let Err(reason) = self.pays(subject, attesting) {
            if let Some(Ok(program)) = program {
                program.end().await;
            }
            return Ok(Err(Alone::at_once(reason)));
        }
        let moved = self
            .store_parallel(subject, attesting, &route, wanted, program, stage)
            .await;
        let reason = match moved {
            Ok(stored) => return Ok(Ok(stored)),
            Err(Failure::Run(error)) => return Err(error),
            Err(Failure::Stock(reason)) => reason,
        };
        let reason = format!("the parallel engine gave up: {reason}");
        self.sink.emit(BackupEvent::Warning {
            message: format!("database {:?}: {reason}", subject.facts.name),
        });
        Ok(Err(Alone {
            reason,
            begun: true,
        }))
    }

    /// Whether our own sessions may move the rows of a database, and over which route.
    pub(super) async fn engine(&self, inside: &InsideFacts) -> Engine {
        engine(self.executor.as_ref(), self.options, inside).await
    }

    /// Whether they are expected to be faster.
    fn pays(&self, subject: Subject<'_>, attesting: &mut Attesting) -> Result<(), String> {
        if attesting.leader().is_none() {
            return Err("the session that leads has no snapshot, or is psql".to_owned());
        }
        self.pays_with(subject, attesting.sizes())
    }

    /// Whether they are expected to be faster whatever the sizes of tables and large objects are.
    pub(super) fn pays_anyway(&self, subject: Subject<'_>) -> bool {
        self.pays_with(subject, (0, 0)).is_ok()
    }

    /// `sizes`: bytes of the largest table, and how many large objects there are.
    fn pays_with(&self, subject: Subject<'_>, sizes: (u64, u64)) -> Result<(), String> {
        let (largest, large_objects) = sizes;
        engine::pays(&engine::Size {
            choice: self.options.engine,
            transport: self.executor.transport(),
            pg_dump: subject.plan.pg_dump.major,
            database: subject.facts.size_bytes.unwrap_or(0),
            largest,
            large_objects,
        })
    }

    /// Movers of a dump.
    pub(super) fn movers(&self) -> u32 {
        let most = self.executor.settings().max_connections;
        engine::movers(self.options.jobs, engine::processors(), most)
    }

    /// Dumps with our own sessions.
    async fn store_parallel(
        &self,
        subject: Subject<'_>,
        attesting: &mut Attesting,
        route: &Arc<NativeRoute>,
        wanted: &Wanted,
        program: Option<Result<engine::Started, ExecError>>,
        stage: &watch::Sender<Stage>,
    ) -> Result<InStore, Failure> {
        let Subject {
            work, plan, facts, ..
        } = subject;
        let movers = self.movers();
        let compression = plan.compression.of_engine();
        self.sink.emit(BackupEvent::Chosen {
            message: format!(
                "parallel engine for {:?} over {}: {movers} movers, {compression}",
                facts.name,
                route.route()
            ),
        });
        let operation = subject.operation();
        let Some((leader, snapshot)) = attesting.leader() else {
            if let Some(Ok(program)) = program {
                program.end().await;
            }
            return Err(Failure::Stock("no session leads".to_owned()));
        };
        let snapshot = snapshot.to_owned();
        let program = match program {
            Some(started) => started,
            None => self.start_program(subject, &snapshot).await,
        };
        let program = program.map_err(|error| engine::failure(&operation, error))?;
        let name = subject.archive_name(self.options.format);
        let kind = match self.options.format {
            DumpFormat::Directory => ArchiveKind::DirectoryOrTar,
            _ => ArchiveKind::Custom,
        };
        let mut progress = Progress::start(self.sink, "dump", &facts.name, facts.size_bytes);
        // A second table of contents in memory is for databases with few tables alone.
        let read_along = self.options.verify >= VerifyLevel::Read
            && kind == ArchiveKind::Custom
            && subject.inside.tables <= READ_ALONG;
        let job = engine::Job {
            executor: self.executor.as_ref(),
            route: Arc::clone(route),
            database: &facts.name,
            number: subject.number,
            program,
            format: plan.compression.write_format(kind),
            wanted: wanted.clone(),
            movers,
            read_along,
            target: engine::Target {
                store: work.store.as_ref(),
                dir: work.dir,
                name: &name,
                operation: &operation,
                cancel: self.cancel,
            },
            stage,
        };
        let done = engine::dump(job, leader, &snapshot, &mut progress).await?;
        attesting.counted(&done.summary.tables).await;
        let at_work = movers - done.refused;
        if at_work < movers {
            self.sink.emit(BackupEvent::Warning {
                message: format!(
                    "{at_work} movers instead of {movers} for {:?}: the server had no connection \
                     left for more",
                    facts.name
                ),
            });
        }
        Ok(InStore {
            files: done.files,
            finished: Finished {
                stderr: done.stderr,
                stderr_dropped: 0,
            },
            compression,
            contents: Some(Contents::Archive(done.summary)),
            read: done.read,
            seconds: progress.finish(),
            engine: Some(EngineRecord {
                engine: EngineRecord::PARALLEL.to_owned(),
                route: Some(route.route().to_string()),
                jobs: Some(at_work),
                reason: None,
            }),
        })
    }
}
