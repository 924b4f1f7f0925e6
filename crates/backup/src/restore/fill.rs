//! Runs the program that fills a database: pg_restore for archives, psql for plain dumps. What it
//! reads has to be, byte for byte, what was checked.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dbexec::{
    ExecError, Invocation, PgExecutor, PgProgram,
    executor::{Input, ScratchDir, conninfo_dbname},
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::{
    check::Fingerprint,
    early,
    messages::Listener,
    plan::PlannedWork,
    source::{Source, SourceFormat, SourcePlace},
};
use crate::{BackupError, BackupEvent, EventSink};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);
/// How long a program may go on after a fatal message.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Size of a piece of a plain dump on its way, bytes.
const PIECE: usize = 256 * 1024;

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
}

/// Fills the database.
pub(crate) async fn fill(
    executor: &Arc<dyn PgExecutor>,
    work: &PlannedWork,
    destination: &Destination<'_>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Filled, BackupError> {
    let executor = executor.as_ref();
    let filling = Filling {
        executor,
        work,
        destination,
        sink,
        cancel,
        local: work.source.place.local_path(),
        progress: Arc::default(),
    };
    if !filling.uploads() && !filling.lists() {
        return filling.passes(None).await;
    }
    let scratch = executor.scratch_create().await.map_err(|source| {
        exec(
            "making a place for files of the restore next to the server",
            source,
        )
    })?;
    let result = filling.passes(Some(&scratch)).await;
    let removed = executor.scratch_remove(&scratch).await.map_err(|source| {
        exec(
            "removing the files of the restore next to the server",
            source,
        )
    });
    let filled = result?;
    removed?;
    Ok(filled)
}

/// One database on its way.
struct Filling<'a> {
    executor: &'a dyn PgExecutor,
    work: &'a PlannedWork,
    destination: &'a Destination<'a>,
    sink: &'a dyn EventSink,
    cancel: &'a CancellationToken,
    /// The source on this host.
    local: Option<PathBuf>,
    progress: Arc<AtomicU64>,
}

/// Files of a restore next to the server.
#[derive(Default)]
struct Beside {
    /// The uploaded directory archive.
    archive: Option<String>,
    /// The list of entries for one run of pg_restore.
    list: Option<String>,
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
    fn chosen(&self) -> Option<Vec<i32>> {
        let decision = &self.work.decision;
        let early = decision.early.as_ref().map(|early| &early.schemas);
        let done = |id: &i32| {
            decision.left_out.contains(id) || early.is_some_and(|early| early.contains(id))
        };
        let toc = self.work.checked.toc.as_ref()?;
        let ids = toc.entries.iter().map(|entry| entry.dump_id);
        let chosen: Vec<_> = ids.filter(|id| !done(id)).collect();
        (chosen.len() < toc.entries.len()).then_some(chosen)
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

    fn go_on(&self) -> Result<(), BackupError> {
        if self.cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: format!("filling database {:?}", self.destination.database),
            });
        }
        Ok(())
    }

    /// Puts a list for `pg_restore -L` next to the program; returns its path there.
    async fn list(
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
    async fn pass(
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
            let invocation = Invocation::new(program, args, database, input, cancel);
            run(self.executor, invocation, progress, self.sink)
        };
        let mut args = restore_args(work, self.destination, jobs);
        if let Some(list) = &beside.list {
            args.push(format!("--use-list={list}"));
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
        return Ok(Filled { stderr });
    };
    match listener.outcome(ended, cancel.is_cancelled()) {
        Ok(stderr) => Ok(Filled { stderr }),
        Err(error) => {
            for message in listener.harmless() {
                sink.emit(BackupEvent::Warning { message });
            }
            Err(failed(error))
        }
    }
}

fn restore_args(work: &PlannedWork, destination: &Destination<'_>, jobs: u32) -> Vec<String> {
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
    match work.source.format {
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

/// Puts a directory archive that was checked next to the server; returns its path there.
async fn upload(
    executor: &dyn PgExecutor,
    work: &PlannedWork,
    scratch: &ScratchDir,
    progress: &Arc<AtomicU64>,
) -> Result<String, BackupError> {
    for (name, fingerprint) in &work.checked.files {
        let content = checked_file(work, name, Arc::clone(progress)).await?;
        put(executor, scratch, name, fingerprint.bytes, content).await?;
    }
    Ok(format!("{}/archive", scratch.path))
}

/// As [`upload`], for a directory archive of a backup, checked against its manifest on the way.
pub(crate) async fn upload_stored(
    executor: &dyn PgExecutor,
    source: &Source,
    scratch: &ScratchDir,
    progress: &Arc<AtomicU64>,
) -> Result<String, BackupError> {
    for name in source.place.names() {
        let bytes = source.place.stored(&name).map_or(0, |file| file.bytes);
        let content = checked_stored(source, &name, Arc::clone(progress)).await?;
        put(executor, scratch, &name, bytes, content).await?;
    }
    Ok(format!("{}/archive", scratch.path))
}

async fn put(
    executor: &dyn PgExecutor,
    scratch: &ScratchDir,
    name: &str,
    bytes: u64,
    content: Pin<Box<dyn AsyncRead + Send>>,
) -> Result<(), BackupError> {
    executor
        .scratch_put(scratch, &format!("archive/{name}"), bytes, content)
        .await
        .map_err(|source| exec(format!("uploading {name} next to the server"), source))
}

/// A file that fails at its end when it is not what was checked.
async fn checked_file(
    work: &PlannedWork,
    name: &str,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let expected = work.checked.files.get(name).cloned();
    checked_reader(&work.source.place, name, expected, progress).await
}

/// A file of a backup that fails at its end when it is not what the manifest says.
pub(crate) async fn checked_stored(
    source: &Source,
    name: &str,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let expected = source.place.stored(name).and_then(|file| {
        Some(Fingerprint {
            bytes: file.bytes,
            sha256: hex::decode(&file.sha256).ok()?.try_into().ok()?,
        })
    });
    checked_reader(&source.place, name, expected, progress).await
}

async fn checked_reader(
    place: &SourcePlace,
    name: &str,
    expected: Option<Fingerprint>,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    Ok(Box::pin(CheckedReader {
        inner: open(place, name).await?,
        expected,
        hash: Sha256::new(),
        bytes: 0,
        progress,
    }))
}

async fn open(
    place: &SourcePlace,
    name: &str,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    place.open(name).await.map_err(|source| BackupError::File {
        operation: "opening",
        path: match place {
            SourcePlace::Path(path) => path.join(name),
            SourcePlace::Stored { dir, .. } => PathBuf::from(dir).join(name),
        },
        source,
    })
}

/// Compares what is read the second time with what was checked the first time.
struct CheckedReader {
    inner: Pin<Box<dyn AsyncRead + Send>>,
    expected: Option<Fingerprint>,
    hash: Sha256,
    bytes: u64,
    progress: Arc<AtomicU64>,
}

impl AsyncRead for CheckedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        match self.inner.as_mut().poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let new = &buf.filled()[before..];
        self.hash.update(new);
        self.bytes += new.len() as u64;
        self.progress.fetch_add(new.len() as u64, Ordering::Relaxed);
        if new.is_empty() && room > 0 {
            let seen = Fingerprint {
                bytes: self.bytes,
                sha256: self.hash.clone().finalize().into(),
            };
            if self.expected.as_ref() != Some(&seen) {
                return Poll::Ready(Err(io::Error::other(
                    "the source changed between its check and the restore",
                )));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A plain dump as psql gets it: decompressed, its own `\restrict` lines replaced by ours where
/// psql knows them, so that psql itself refuses every command of its own in the script.
async fn script(work: &PlannedWork, progress: Arc<AtomicU64>) -> Result<Input, BackupError> {
    let stored = checked_file(work, "", progress).await?;
    let ranges = work
        .checked
        .plain
        .as_ref()
        .map(|plain| plain.restrict_lines.clone())
        .unwrap_or_default();
    let key: String = (0..32)
        .map(|_| char::from(b'a' + rand::random_range(0..26)))
        .collect();
    let around = work.decision.restrict.then(|| {
        (
            format!("\\restrict {key}\n"),
            format!("\n\\unrestrict {key}\n"),
        )
    });
    Ok(Input::Stream(decompressed(stored, ranges, around)))
}

/// A plain dump of a backup, decompressed and otherwise as it is.
pub(crate) async fn plain_stream(
    source: &Source,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let stored = checked_stored(source, "", progress).await?;
    Ok(decompressed(stored, Vec::new(), None))
}

/// Decompresses on a thread of its own, leaves ranges out and puts text around.
fn decompressed(
    stored: Pin<Box<dyn AsyncRead + Send>>,
    without: Vec<Range<u64>>,
    around: Option<(String, String)>,
) -> Pin<Box<dyn AsyncRead + Send>> {
    let handle = tokio::runtime::Handle::current();
    let (pieces, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    tokio::task::spawn_blocking(move || {
        let send = |piece: Bytes| {
            pieces
                .blocking_send(Ok(piece))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        };
        let pump = || {
            let (before, after) = around.unwrap_or_default();
            send(Bytes::from(before))?;
            let mut stored = SyncIoBridge::new_with_handle(stored, handle);
            let plain = archive::open_plain(&mut stored)?;
            let mut script = archive::WithoutRanges::new(plain, without);
            let mut piece = vec![0; PIECE];
            loop {
                let read = script.read(&mut piece)?;
                if read == 0 {
                    break;
                }
                send(Bytes::copy_from_slice(&piece[..read]))?;
            }
            drop(script);
            // A decoder may stop before the end of the file; only there the hash is compared.
            io::copy(&mut stored, &mut io::sink())?;
            send(Bytes::from(after))
        };
        if let Err(error) = pump() {
            // A reader that is gone has its own reason already.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Box::pin(StreamReader::new(Box::pin(stream)))
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
