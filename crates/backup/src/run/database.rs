//! One database of a run: attested, dumped, stored.

use std::sync::Arc;

use dbexec::executor::Finished;
use dbexec::{ExecError, NativeRoute, PgProgram};
use tokio::sync::watch;

use super::back_up::Run;
use super::dump::{Kind, Source, Stored, Work, arguments, exec_error, filters};
use super::parallel::Engine;
use super::preflight::Plan;
use super::queries::{DatabaseFacts, InsideFacts};
use super::structure::Along;
use super::{Progress, patterns};
use crate::attest::{
    Attestation, Attesting, Budget, Contents, Wanted, differences, settle, settle_unread,
};
use crate::engine::{Stage, Started};
use crate::manifest::{ArchiveRecord, DatabaseRecord, EngineRecord, StoredFile};
use crate::requests::VerifyProblem;
use crate::verify::{Seen, VerifyWork};
use crate::{BackupError, BackupEvent, DumpFormat, EngineChoice, VerifyLevel, names, script};

/// What is being done, for errors.
fn attesting_of(database: &str) -> String {
    format!("attesting database {database:?}")
}

/// A database whose dump went well.
pub(super) struct Dumped {
    pub(super) record: DatabaseRecord,
    /// How much of its archive was checked.
    pub(super) seen: Seen,
}

/// A database whose dump may begin.
pub(super) struct Begun {
    engine: Engine,
    attesting: Attesting,
    /// pg_dump, where it was started already.
    program: Option<Result<Started, ExecError>>,
}

impl Begun {
    /// Whether it is certain that our own sessions move the rows.
    pub(super) fn is_certain(&self) -> bool {
        matches!(self.program, Some(Ok(_)))
    }

    /// Ends it; its sessions and its program are gone afterwards.
    pub(super) async fn abandon(self) {
        if let Some(Ok(program)) = self.program {
            program.end().await;
        }
        self.attesting.abandon().await;
    }
}

/// What is dumped, and where to.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) plan: &'a Plan,
    pub(super) number: usize,
    pub(super) facts: &'a DatabaseFacts,
    pub(super) inside: &'a InsideFacts,
}

impl Subject<'_> {
    /// What is being done, for errors.
    pub(super) fn operation(&self) -> String {
        format!("dumping database {:?}", self.facts.name)
    }

    /// Name of its archive, with the ending of its format.
    pub(super) fn archive_name(&self, format: DumpFormat) -> String {
        let ending = match format {
            DumpFormat::Custom => "dump",
            DumpFormat::Directory => "dir",
            DumpFormat::Plain => "sql.zst",
        };
        format!("{}.{ending}", names::stem(self.number, &self.facts.name))
    }
}

/// A dump in the store.
pub(super) struct InStore {
    pub(super) files: Vec<StoredFile>,
    pub(super) finished: Finished,
    pub(super) compression: &'static str,
    /// What was read along, or moved by us; a directory archive of pg_dump's is read back instead.
    pub(super) contents: Option<Contents>,
    /// What the archive's reader saw of what we moved, where it was read along.
    pub(super) read: Option<Contents>,
    pub(super) seconds: f64,
    pub(super) engine: Option<EngineRecord>,
}

impl Run<'_> {
    /// What comes before the dump of a database: which engine, and the session that leads.
    pub(super) async fn begin(&self, subject: Subject<'_>) -> Result<Begun, BackupError> {
        let engine = self.engine(subject.inside).await;
        let route = match &engine {
            Engine::Parallel(route) => Some(route),
            Engine::Stock(_) => None,
        };
        let (attesting, program) = self.lead(subject, route).await?;
        Ok(Begun {
            engine,
            attesting,
            program,
        })
    }

    /// Attests and dumps one database. `stage`: who is told how far it is.
    pub(super) async fn dump(
        &self,
        subject: Subject<'_>,
        begun: Begun,
        budget: &mut Budget,
        stage: &watch::Sender<Stage>,
    ) -> Result<Dumped, BackupError> {
        let Subject { facts, inside, .. } = subject;
        let Begun {
            engine,
            mut attesting,
            program,
        } = begun;
        let untouched = *budget;
        let mut wanted = attesting.choose(budget);
        let stored = async {
            let alone = match self
                .store_by(engine, subject, &mut attesting, &wanted, program, stage)
                .await?
            {
                Ok(stored) => return Ok(stored),
                Err(alone) => alone,
            };
            if self.options.engine == EngineChoice::Parallel {
                return Err(alone.forced(&facts.name));
            }
            if self.options.engine == EngineChoice::Auto && self.options.format != DumpFormat::Plain
            {
                self.sink.emit(BackupEvent::Chosen {
                    message: format!("pg_dump alone for {:?}: {}", facts.name, alone.reason),
                });
            }
            stage.send_replace(Stage::Again);
            let native = attesting.leader().is_some();
            // Whoever waited for a lock that was given back may rewrite that table: the snapshot
            // does not show its rows any more then, neither to pg_dump nor to the count.
            if alone.begun || (native && !attesting.recover().await) {
                let none = Attesting::without("", self.cancel);
                std::mem::replace(&mut attesting, none).abandon().await;
                (attesting, _) = self.lead(subject, None).await?;
                *budget = untouched;
                wanted = attesting.choose(budget);
            }
            self.store_stock(subject, &mut attesting, &wanted, alone.reason)
                .await
        }
        .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                attesting.abandon().await;
                return Err(error);
            }
        };
        let attested = attesting.finish().await;
        for missing in &attested.missing {
            self.sink.emit(BackupEvent::Warning {
                message: format!("attestation of database {:?}: {missing}", facts.name),
            });
        }
        for line in &stored.finished.stderr {
            self.sink.emit(BackupEvent::Warning {
                message: format!("pg_dump of {:?}: {line}", facts.name),
            });
        }
        let mut warnings = stored.finished.stderr;
        if stored.finished.stderr_dropped > 0 {
            warnings.push(format!(
                "({} earlier lines left out)",
                stored.finished.stderr_dropped
            ));
        }
        let archive = ArchiveRecord {
            format: self.options.format,
            compression: stored.compression.to_owned(),
            files: stored.files,
            seconds: stored.seconds,
            filters: filters(self.options),
            warnings,
            engine: stored.engine,
        };
        let by_pg_dump = !archive
            .engine
            .as_ref()
            .is_some_and(EngineRecord::moved_rows);
        let read_along = match archive.format {
            DumpFormat::Custom if by_pg_dump => stored.contents.is_some(),
            _ => stored.read.is_some(),
        };
        // What was moved by us is known already; the check at the end reads it all the same.
        let read_back = stored.contents.is_none()
            && archive.format == DumpFormat::Directory
            && self.options.verify >= VerifyLevel::Read;
        let contents = if read_back {
            self.read_back(&facts.name, &archive, wanted.clone())
                .await?
        } else {
            stored.contents
        };
        let attestation = match contents {
            Some(contents) => settle(attested, contents, &wanted).map_err(|problems| {
                BackupError::AttestationFailed {
                    database: facts.name.clone(),
                    problems,
                }
            })?,
            None => settle_unread(attested),
        };
        if let Some(read) = stored.read {
            self.compare(&attestation, read, &archive)?;
        }
        Ok(Dumped {
            record: record(facts, inside, archive, attestation),
            seen: match (read_back, read_along) {
                (true, _) => Seen::Whole,
                (false, true) => Seen::Decoded,
                (false, false) => Seen::Nothing,
            },
        })
    }

    /// What was moved has to be what is in the archive.
    fn compare(
        &self,
        attestation: &Attestation,
        read: Contents,
        archive: &ArchiveRecord,
    ) -> Result<(), BackupError> {
        let object = archive.files.first().map_or("", |file| &*file.name);
        let problems: Vec<VerifyProblem> = differences(attestation, read, None)
            .into_iter()
            .map(|problem| VerifyProblem {
                object: object.to_owned(),
                problem,
            })
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(BackupError::VerifyFailed {
            id: self.record.id.to_string(),
            problems,
        })
    }

    /// Dumps with pg_dump alone, and counts beside it.
    async fn store_stock(
        &self,
        subject: Subject<'_>,
        attesting: &mut Attesting,
        wanted: &Wanted,
        reason: String,
    ) -> Result<InStore, BackupError> {
        let snapshot = attesting.snapshot().map(str::to_owned);
        let dumping = self.store(subject, snapshot.as_deref(), wanted);
        let counting = attesting.count();
        tokio::pin!(dumping, counting);
        let stored = tokio::select! {
            stored = &mut dumping => {
                if stored.is_ok() {
                    counting.await;
                }
                stored
            }
            () = &mut counting => dumping.await,
        };
        let mut stored = stored?;
        if let Some(record) = &mut stored.engine {
            record.reason = Some(reason);
        }
        Ok(stored)
    }

    /// Opens the session that lends its snapshot and lets it look around. Where it is certain that
    /// our own sessions will move the rows, pg_dump is started meanwhile: it asks the server for
    /// its catalogue, which takes as long where there are many tables.
    async fn lead(
        &self,
        subject: Subject<'_>,
        route: Option<&Arc<NativeRoute>>,
    ) -> Result<(Attesting, Option<Result<Started, ExecError>>), BackupError> {
        let database = &subject.facts.name;
        let mut attesting = self.attest(database, route).await?;
        let snapshot = attesting.leader().map(|(_, snapshot)| snapshot.to_owned());
        let (looked, program) = match snapshot.filter(|_| self.pays_anyway(subject)) {
            Some(snapshot) => {
                let starting = self.start_program(subject, &snapshot);
                let (looked, program) = tokio::join!(attesting.look(), starting);
                (looked, Some(program))
            }
            None => (attesting.look().await, None),
        };
        match looked {
            Ok(()) => Ok((attesting, program)),
            Err(source) => {
                if let Some(Ok(program)) = program {
                    program.end().await;
                }
                attesting.abandon().await;
                Err(exec_error(attesting_of(database), source))
            }
        }
    }

    /// Opens the session that lends its snapshot: one of our own where there is a route for it.
    async fn attest(
        &self,
        database: &str,
        route: Option<&Arc<NativeRoute>>,
    ) -> Result<Attesting, BackupError> {
        // One session is the dump's own.
        if self.executor.settings().max_connections < 2 {
            let reason = "max_connections leaves no session for them";
            return Ok(Attesting::without(reason, self.cancel));
        }
        let filters = patterns::all(self.options);
        Attesting::open(
            self.executor.as_ref(),
            database,
            route,
            filters,
            self.cancel,
        )
        .await
        .map_err(|source| exec_error(attesting_of(database), source))
    }

    async fn store(
        &self,
        subject: Subject<'_>,
        snapshot: Option<&str>,
        wanted: &Wanted,
    ) -> Result<InStore, BackupError> {
        let Subject {
            work, plan, facts, ..
        } = subject;
        let settings = self.executor.settings();
        let mut args = arguments(self.options, plan.compression, settings.lock_wait_timeout);
        args.extend(snapshot.map(|snapshot| format!("--snapshot={snapshot}")));
        let operation = subject.operation();
        let name = subject.archive_name(self.options.format);
        let mut progress = Progress::start(self.sink, "dump", &facts.name, facts.size_bytes);
        let mut jobs_used = None;
        let (files, finished, contents, compression) = match self.options.format {
            DumpFormat::Custom | DumpFormat::Plain => {
                let (kind, along, compression) = match self.options.format {
                    DumpFormat::Plain => (
                        Kind::Script(script::DATABASE_END),
                        Along::Plain,
                        script::COMPRESSION,
                    ),
                    _ => (
                        Kind::Custom,
                        Along::Custom(wanted.clone()),
                        plan.compression.as_str(),
                    ),
                };
                let source = Source {
                    program: PgProgram::PgDump,
                    args,
                    database: facts.name.clone(),
                    kind,
                    along: Some(along),
                    name: &name,
                    operation: &operation,
                };
                let Stored {
                    file,
                    finished,
                    contents,
                } = work.store_output(source, &mut progress).await?;
                (vec![file], finished, contents, compression)
            }
            DumpFormat::Directory => {
                // Each job is a session, the leader is one more, and so is the one that counts.
                let taken = 1 + u32::from(snapshot.is_some());
                let most = settings.max_connections.saturating_sub(taken).max(1);
                let jobs = self.options.jobs.unwrap_or(2).clamp(1, most);
                jobs_used = Some(jobs);
                let (files, finished) = work
                    .store_directory(args, &facts.name, jobs, &name, &operation, &mut progress)
                    .await?;
                (files, finished, None, plan.compression.as_str())
            }
        };
        Ok(InStore {
            files,
            finished,
            compression,
            contents,
            read: None,
            seconds: progress.finish(),
            engine: Some(EngineRecord {
                engine: "stock".to_owned(),
                route: None,
                jobs: jobs_used,
                reason: None,
            }),
        })
    }

    /// Reads a directory archive back, which is its check at level `read` as well.
    async fn read_back(
        &self,
        database: &str,
        archive: &ArchiveRecord,
        wanted: Wanted,
    ) -> Result<Option<Contents>, BackupError> {
        let mut work =
            VerifyWork::new(self.repo, &self.record.id, self.options.verify, self.cancel);
        let contents = work.database(database, archive, wanted, self.sink).await?;
        if work.checked.problems.is_empty() {
            return Ok(contents);
        }
        Err(BackupError::VerifyFailed {
            id: self.record.id.to_string(),
            problems: work.checked.problems,
        })
    }
}

fn record(
    facts: &DatabaseFacts,
    inside: &InsideFacts,
    archive: ArchiveRecord,
    attestation: Attestation,
) -> DatabaseRecord {
    DatabaseRecord {
        name: facts.name.clone(),
        owner: facts.owner.clone(),
        encoding: facts.encoding.clone(),
        collate: facts.collate.clone(),
        ctype: facts.ctype.clone(),
        locale_provider: facts.locale_provider.clone(),
        locale: facts.locale.clone(),
        icu_rules: facts.icu_rules.clone(),
        collation_version: facts.collation_version.clone(),
        tablespace: facts.tablespace.clone(),
        connection_limit: facts.connection_limit,
        comment: facts.comment.clone(),
        size_bytes: facts.size_bytes.unwrap_or(0),
        settings: facts.settings.clone(),
        acl: facts.acl.clone(),
        extensions: inside.extensions.clone(),
        archive,
        attestation: Some(attestation),
    }
}
