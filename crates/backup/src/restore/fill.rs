//! Runs the program that fills a database: pg_restore for archives, psql for plain dumps. What it
//! reads has to be, byte for byte, what was checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dbexec::{
    ExecError, Invocation, NativeRoute, PgExecutor, PgProgram,
    executor::{Input, ScratchDir, conninfo_dbname},
};
use tokio_util::sync::CancellationToken;

use super::{
    check::{self, Checked},
    early,
    feed::{checked_file, script, upload},
    messages::Listener,
    parallel,
    plan::PlannedWork,
    source::SourceFormat,
};
use crate::{BackupError, BackupEvent, EventSink};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);
/// How long a program may go on after a fatal message.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Where the rows go.
pub(crate) struct Destination<'a> {
    pub(crate) database: &'a str,
    /// In one transaction, dropping what the archive holds first.
    pub(crate) in_place: bool,
}

/// A database that was filled.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// What the program said and what was judged harmless, in words.
    pub(crate) stderr: Vec<String>,
    /// Rows by schema and name of tables that sessions of ours filled, as the server told them.
    pub(crate) taken: BTreeMap<(String, String), u64>,
    /// Sessions of ours that filled; 0 where programs did it alone.
    pub(crate) sessions: u32,
    /// Tables that have their statistics already, quoted.
    pub(crate) analyzed: BTreeSet<String>,
}

/// Fills the database. What is made next to the server is in `scratch`, and the caller's to remove.
pub(crate) async fn fill(
    executor: &Arc<dyn PgExecutor>,
    route: &Result<Arc<NativeRoute>, String>,
    scratch: &mut Option<ScratchDir>,
    work: &PlannedWork,
    destination: &Destination<'_>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Filled, BackupError> {
    let executor = executor.as_ref();
    let filling = Filling {
        executor,
        route,
        work,
        destination,
        sink,
        cancel,
        local: work.source.place.local_path(),
        progress: Arc::default(),
    };
    let prepared = parallel::prepare(&filling).await?;
    if prepared.is_none() && !work.checked.decoded {
        // Nobody else decodes and counts it.
        let found = check::check(&work.source).await?;
        same_rows(work, &found)?;
    }
    if scratch.is_none() && (prepared.is_some() || filling.uploads() || filling.lists()) {
        *scratch = Some(place(executor).await?);
    }
    match (prepared, scratch.as_ref()) {
        (Some(prepared), Some(scratch)) => filling.parallel(prepared, scratch).await,
        (_, scratch) => filling.passes(scratch).await,
    }
}

/// A place for files next to the server.
pub(super) async fn place(executor: &dyn PgExecutor) -> Result<ScratchDir, BackupError> {
    executor.scratch_create().await.map_err(|source| {
        exec(
            "making a place for files of the restore next to the server",
            source,
        )
    })
}

/// Removes such a place, where there is one.
pub(super) async fn remove(
    executor: &dyn PgExecutor,
    scratch: Option<ScratchDir>,
) -> Result<(), BackupError> {
    let Some(scratch) = scratch else {
        return Ok(());
    };
    executor.scratch_remove(&scratch).await.map_err(|source| {
        exec(
            "removing the files of the restore next to the server",
            source,
        )
    })
}

/// Compares what an archive holds with what its manifest said of it.
fn same_rows(work: &PlannedWork, found: &Checked) -> Result<(), BackupError> {
    let known = |checked: &Checked| -> BTreeMap<i32, Option<u64>> {
        let tables = checked.tables.iter();
        tables.map(|table| (table.dump_id, table.rows)).collect()
    };
    let same =
        known(&work.checked) == known(found) && work.checked.large_objects == found.large_objects;
    if same {
        return Ok(());
    }
    Err(BackupError::ArchiveIncomplete {
        subject: work.source.label.clone(),
        problem: "it holds other numbers of rows or large objects than its manifest says"
            .to_owned(),
    })
}

/// One database on its way.
pub(super) struct Filling<'a> {
    pub(super) executor: &'a dyn PgExecutor,
    /// The way of sessions of ours to the server, or why there is none.
    pub(super) route: &'a Result<Arc<NativeRoute>, String>,
    pub(super) work: &'a PlannedWork,
    pub(super) destination: &'a Destination<'a>,
    pub(super) sink: &'a dyn EventSink,
    pub(super) cancel: &'a CancellationToken,
    /// The source on this host.
    local: Option<PathBuf>,
    /// Bytes of the source that were read.
    pub(super) progress: Arc<AtomicU64>,
}

/// Files of a restore next to the server.
#[derive(Default)]
pub(super) struct Beside {
    /// The uploaded directory archive.
    pub(super) archive: Option<String>,
    /// The list of entries for one run of pg_restore.
    pub(super) list: Option<String>,
    /// A table of contents without data, a custom archive; pg_restore reads it and not the source.
    pub(super) contents: Option<String>,
}

impl Filling<'_> {
    /// Whether a directory archive has to be put next to the server.
    fn uploads(&self) -> bool {
        self.work.source.format == SourceFormat::Directory
            && !(self.executor.shares_files() && self.local.is_some())
    }

    /// Whether pg_restore is given a list of entries.
    fn lists(&self) -> bool {
        let early = self.work.decision.early.as_ref();
        early.is_some_and(|early| !early.schemas.is_empty()) || self.chosen().is_some()
    }

    /// Entries of the run that brings the rows, in the order of the archive; `None` for all.
    pub(super) fn chosen(&self) -> Option<Vec<i32>> {
        let decision = &self.work.decision;
        let early = decision.early.as_ref().map(|early| &early.schemas);
        let done = |id: &i32| {
            decision.left_out.contains(id) || early.is_some_and(|early| early.contains(id))
        };
        let toc = self.work.checked.toc.as_ref()?;
        let ids = toc.entries.iter().map(|entry| entry.dump_id);
        let chosen: Vec<_> = ids.filter(|id| !done(id)).collect();
        let all = chosen.len() == toc.entries.len() && self.work.checked.part.is_none();
        (!all).then_some(chosen)
    }

    async fn passes(&self, scratch: Option<&ScratchDir>) -> Result<Filled, BackupError> {
        let mut beside = Beside::default();
        if let (true, Some(scratch)) = (self.uploads(), scratch) {
            let path = upload(self.executor, self.work, scratch, &self.progress).await?;
            beside.archive = Some(path);
        }
        let mut filled = Filled::default();
        let database = self.destination.database;
        if let Some(early) = &self.work.decision.early {
            if !early.schemas.is_empty() {
                let ids: Vec<_> = early.schemas.iter().copied().collect();
                beside.list = Some(self.list(scratch, "schemas.list", &ids).await?);
                // What is read here is read again for the rows, and compared then.
                let said = self.pass(&beside, 1, &Arc::default()).await?;
                filled.stderr.extend(said.stderr);
            }
            self.go_on()?;
            early::create(self.executor, database, early)
                .await
                .map_err(|source| exec("creating the extensions", source))?;
        }
        beside.list = match self.chosen() {
            Some(ids) => Some(self.list(scratch, "entries.list", &ids).await?),
            None => None,
        };
        self.go_on()?;
        let jobs = self.work.decision.jobs;
        let said = self.pass(&beside, jobs, &self.progress).await?;
        filled.stderr.extend(said.stderr);
        if let Some(early) = &self.work.decision.early {
            early::finish(self.executor, database, early)
                .await
                .map_err(|source| exec("telling the extensions that all rows are there", source))?;
        }
        Ok(filled)
    }

    pub(super) fn go_on(&self) -> Result<(), BackupError> {
        if self.cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: format!("filling database {:?}", self.destination.database),
            });
        }
        Ok(())
    }

    /// Puts a list for `pg_restore -L` next to the program; returns its path there.
    pub(super) async fn list(
        &self,
        scratch: Option<&ScratchDir>,
        name: &str,
        ids: &[i32],
    ) -> Result<String, BackupError> {
        let Some(scratch) = scratch else {
            return Err(BackupError::ArchiveIncomplete {
                subject: "the list of entries".to_owned(),
                problem: "there is no place for it".to_owned(),
            });
        };
        let text: String = ids.iter().map(|id| format!("{id};\n")).collect();
        let size = text.len() as u64;
        let content = Box::pin(io::Cursor::new(text.into_bytes()));
        self.executor
            .scratch_put(scratch, name, size, content)
            .await
            .map_err(|source| exec("putting the list of entries next to the server", source))?;
        Ok(format!("{}/{name}", scratch.path))
    }

    /// One run of the program.
    pub(super) async fn pass(
        &self,
        beside: &Beside,
        jobs: u32,
        progress: &Arc<AtomicU64>,
    ) -> Result<Filled, BackupError> {
        let work = self.work;
        let program = match work.source.format {
            SourceFormat::Plain => PgProgram::Psql,
            SourceFormat::Custom | SourceFormat::Directory => PgProgram::PgRestore,
        };
        let run = |args, input| {
            let database = Some(self.destination.database.to_owned());
            let cancel = self.cancel.clone();
            let mut invocation = Invocation::new(program, args, database, input, cancel);
            // A new database counts when it gets its name, and the transaction that gives it waits
            // for the disk, as far as everything before it too. Each of pg_restore's statements is
            // a transaction.
            invocation.asynchronous_commit = !self.destination.in_place;
            run(self.executor, invocation, progress, self.sink)
        };
        let format = match &beside.contents {
            Some(_) => SourceFormat::Custom,
            None => work.source.format,
        };
        let mut args = restore_args(work, format, self.destination, jobs);
        if let Some(list) = &beside.list {
            args.push(format!("--use-list={list}"));
        }
        if let Some(contents) = &beside.contents {
            args.push(contents.clone());
            return run(args, Input::Nothing).await;
        }
        match (work.source.format, &self.local, &beside.archive) {
            (SourceFormat::Plain, ..) => {
                let input = script(work, Arc::clone(progress)).await?;
                run(psql_args(), input).await
            }
            (SourceFormat::Custom, Some(path), _) if self.executor.shares_files() && jobs > 1 => {
                let before = stamp(path)?;
                args.push(path_text(path)?);
                let filled = run(args, Input::Nothing).await?;
                same_stamp(path, before)?;
                Ok(filled)
            }
            (SourceFormat::Custom, ..) => {
                let input = checked_file(work, "", Arc::clone(progress)).await?;
                run(args, Input::Stream(input)).await
            }
            (SourceFormat::Directory, _, Some(uploaded)) => {
                args.push(uploaded.clone());
                run(args, Input::Nothing).await
            }
            (SourceFormat::Directory, local, None) => {
                let path = local.as_deref().unwrap_or(std::path::Path::new(""));
                let before = stamp(&path.join("toc.dat"))?;
                args.push(path_text(path)?);
                let filled = run(args, Input::Nothing).await?;
                same_stamp(&path.join("toc.dat"), before)?;
                Ok(filled)
            }
        }
    }
}

async fn run(
    executor: &dyn PgExecutor,
    mut invocation: Invocation,
    progress: &AtomicU64,
    sink: &dyn EventSink,
) -> Result<Filled, BackupError> {
    let program = invocation.program;
    let database = invocation.database.clone().unwrap_or_default();
    let operation = format!("{program} into database {database:?}");
    let failed = |source| exec(operation.clone(), source);
    // psql stops by itself; of pg_restore it is decided here which error is one.
    let listener = (program == PgProgram::PgRestore).then(Listener::default);
    let cancel = invocation.cancel.clone();
    let stop = cancel.child_token();
    if let Some(listener) = &listener {
        invocation.on_stderr = Some(listener.watch());
        invocation.cancel = stop.clone();
    }
    let fatal = listener
        .as_ref()
        .map(|listener| listener.fatal.clone())
        .unwrap_or_default();
    let finish = async {
        let running = executor.start(invocation).await?;
        running.finish(program).await
    };
    tokio::pin!(finish);
    let stopping = async {
        fatal.cancelled().await;
        // The lines that explain the error are on their way.
        tokio::time::sleep(LAST_WORDS).await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::pin!(stopping);
    let mut tick = tokio::time::interval(TICK);
    let mut told = 0;
    let ended = loop {
        tokio::select! {
            ended = &mut finish => break ended,
            () = &mut stopping => {}
            _ = tick.tick() => {
                let bytes = progress.load(Ordering::Relaxed);
                if bytes != told {
                    told = bytes;
                    sink.emit(BackupEvent::Progress {
                        phase: "restore",
                        subject: database.clone(),
                        bytes,
                    });
                }
            }
        }
    };
    let Some(listener) = listener else {
        let stderr = ended.map_err(failed)?.stderr;
        return Ok(Filled {
            stderr,
            ..Filled::default()
        });
    };
    match listener.outcome(ended, cancel.is_cancelled()) {
        Ok(stderr) => Ok(Filled {
            stderr,
            ..Filled::default()
        }),
        Err(error) => {
            for message in listener.harmless() {
                sink.emit(BackupEvent::Warning { message });
            }
            Err(failed(error))
        }
    }
}

fn restore_args(
    work: &PlannedWork,
    format: SourceFormat,
    destination: &Destination<'_>,
    jobs: u32,
) -> Vec<String> {
    let mut args = vec![
        "--no-password".to_owned(),
        format!("--dbname={}", conninfo_dbname(destination.database)),
    ];
    if destination.in_place {
        // After an error the transaction is lost, harmless or not.
        args.extend(
            [
                "--exit-on-error",
                "--clean",
                "--if-exists",
                "--single-transaction",
            ]
            .map(str::to_owned),
        );
    } else if jobs > 1 {
        args.push(format!("--jobs={jobs}"));
    }
    if !work.keep_owner {
        args.extend(["--no-owner", "--no-acl"].map(str::to_owned));
    }
    if work.decision.no_tablespaces {
        args.push("--no-tablespaces".to_owned());
    }
    match format {
        SourceFormat::Custom => args.push("--format=custom".to_owned()),
        SourceFormat::Directory => args.push("--format=directory".to_owned()),
        SourceFormat::Plain => {}
    }
    args
}

fn psql_args() -> Vec<String> {
    [
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "--no-password",
        "--single-transaction",
        "-f",
        "-",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What tells that a file in place was not touched while pg_restore read it.
fn stamp(path: &std::path::Path) -> Result<(u64, Option<std::time::SystemTime>), BackupError> {
    let metadata = std::fs::metadata(path).map_err(|source| BackupError::File {
        operation: "looking at",
        path: path.to_owned(),
        source,
    })?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn same_stamp(
    path: &std::path::Path,
    before: (u64, Option<std::time::SystemTime>),
) -> Result<(), BackupError> {
    if stamp(path)? == before {
        return Ok(());
    }
    Err(BackupError::ArchiveIncomplete {
        subject: path.display().to_string(),
        problem: "it changed while it was restored".to_owned(),
    })
}

fn path_text(path: &std::path::Path) -> Result<String, BackupError> {
    let absolute = std::path::absolute(path).map_err(|source| BackupError::File {
        operation: "finding",
        path: path.to_owned(),
        source,
    })?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| BackupError::File {
            operation: "naming",
            path: PathBuf::from(path),
            source: io::Error::other("its path is not UTF-8"),
        })
}

pub(crate) fn exec(operation: impl Into<String>, source: ExecError) -> BackupError {
    BackupError::Exec {
        operation: operation.into(),
        source,
    }
}
