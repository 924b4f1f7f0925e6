//! The files of a backup: hashed, and at level `read` decoded to their end while they are hashed.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use dbexec::executor::Input;
use dbexec::{ExecError, Invocation, PgExecutor, PgProgram, Transport};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::manifest::{DatabaseRecord, StoredFile};
use crate::requests::VerifyProblem;
use crate::run::Progress;
use crate::stream::{Hasher, HashingReader, PIECE, PieceReader};
use crate::{
    BackupError, BackupId, DumpFormat, EventSink, Manifest, Repository, VerifyLevel, script,
};

/// Name of the built-in reader in reports.
const BUILT_IN: &str = "built-in";

/// What was checked so far.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Files.
    pub(crate) files: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Differences.
    pub(crate) problems: Vec<VerifyProblem>,
    /// Which reader decoded archives.
    pub(crate) reader: Option<String>,
}

impl Checked {
    pub(crate) fn problem(&mut self, object: &str, problem: String) {
        self.problems.push(VerifyProblem {
            object: object.to_owned(),
            problem,
        });
    }
}

/// A pg_restore that can read the archives of a manifest.
struct Restorer<'a> {
    executor: &'a Arc<dyn PgExecutor>,
    name: String,
}

/// Checks every file that the manifest names.
pub(crate) async fn check_archives(
    repo: &Repository,
    manifest: &Manifest,
    level: VerifyLevel,
    executor: Option<&Arc<dyn PgExecutor>>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Checked, BackupError> {
    let mut checked = Checked::default();
    if level == VerifyLevel::None {
        return Ok(checked);
    }
    let restorer = match (level, executor) {
        (VerifyLevel::Read, Some(executor)) => restorer(manifest, executor).await,
        _ => None,
    };
    if let Some(file) = &manifest.globals.file {
        let object = format!("{} (globals)", file.name);
        let mut progress = Progress::start(sink, "verify", "globals", Some(file.bytes));
        let decode = (level == VerifyLevel::Read).then_some(Decode::Globals);
        let mut one = Work {
            repo,
            id: &manifest.id,
            checked: &mut checked,
            cancel,
        };
        one.file(file, &object, decode, Some(&mut progress)).await?;
        progress.finish();
    }
    for database in &manifest.databases {
        let mut progress = Progress::start(
            sink,
            "verify",
            &database.name,
            Some(database.archive.bytes()),
        );
        let mut work = Work {
            repo,
            id: &manifest.id,
            checked: &mut checked,
            cancel,
        };
        work.database(database, level, restorer.as_ref(), &mut progress)
            .await?;
        progress.finish();
    }
    Ok(checked)
}

/// The executor's pg_restore, unless it is missing or older than the pg_dump that wrote.
async fn restorer<'a>(
    manifest: &Manifest,
    executor: &'a Arc<dyn PgExecutor>,
) -> Option<Restorer<'a>> {
    let program = match executor.program(PgProgram::PgRestore).await {
        Ok(program) => program,
        Err(error) => {
            tracing::debug!(%error, "no pg_restore: the built-in reader is used");
            return None;
        }
    };
    let wrote = manifest.programs.get(PgProgram::PgDump.as_str())?;
    let wrote: u32 = wrote
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()?;
    if program.major < wrote {
        return None;
    }
    let place = match (executor.transport(), &executor.context().container) {
        (Transport::Exec, Some(container)) => format!("in container {}", container.name),
        _ => "on this host".to_owned(),
    };
    Some(Restorer {
        executor,
        name: format!("pg_restore {} {place}", program.version),
    })
}

/// How a single stored stream is decoded by the built-in reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decode {
    Custom,
    Plain,
    Globals,
}

struct Work<'a> {
    repo: &'a Repository,
    id: &'a BackupId,
    checked: &'a mut Checked,
    cancel: &'a CancellationToken,
}

impl Work<'_> {
    async fn database(
        &mut self,
        database: &DatabaseRecord,
        level: VerifyLevel,
        restorer: Option<&Restorer<'_>>,
        progress: &mut Progress<'_>,
    ) -> Result<(), BackupError> {
        let archive = &database.archive;
        let object = |file: &StoredFile| format!("{} (database {:?})", file.name, database.name);
        let read = level == VerifyLevel::Read;
        match (archive.format, restorer) {
            (DumpFormat::Custom, Some(restorer)) if read => {
                for file in &archive.files {
                    self.custom(file, &object(file), restorer, progress).await?;
                }
                self.checked.reader = Some(restorer.name.clone());
            }
            (DumpFormat::Custom, _) => {
                for file in &archive.files {
                    let decode = read.then_some(Decode::Custom);
                    self.file(file, &object(file), decode, Some(progress))
                        .await?;
                }
            }
            (DumpFormat::Plain, _) => {
                for file in &archive.files {
                    let decode = read.then_some(Decode::Plain);
                    self.file(file, &object(file), decode, Some(progress))
                        .await?;
                }
            }
            (DumpFormat::Directory, restorer) => {
                let before = self.checked.problems.len();
                for file in &archive.files {
                    self.file(file, &object(file), None, Some(progress)).await?;
                }
                // What is changed or missing is named already; decoding would only repeat it.
                if read && self.checked.problems.len() == before {
                    match restorer {
                        Some(restorer) => self.directory(database, restorer).await?,
                        None => self.directory_built_in(database).await?,
                    }
                }
            }
        }
        if read && archive.format != DumpFormat::Custom && self.checked.reader.is_none() {
            self.checked.reader = Some(BUILT_IN.to_owned());
        }
        Ok(())
    }

    async fn file(
        &mut self,
        file: &StoredFile,
        object: &str,
        decode: Option<Decode>,
        progress: Option<&mut Progress<'_>>,
    ) -> Result<(), BackupError> {
        if decode == Some(Decode::Custom) {
            self.checked.reader = Some(BUILT_IN.to_owned());
        }
        check(
            self.repo,
            self.id,
            file,
            object,
            self.checked,
            decode,
            progress,
            self.cancel,
        )
        .await
    }

    /// A custom archive through pg_restore, hashed on the way to it.
    async fn custom(
        &mut self,
        file: &StoredFile,
        object: &str,
        restorer: &Restorer<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), BackupError> {
        let stream = match self
            .repo
            .store
            .open(&Repository::stored_name(self.id, file))
            .await
        {
            Ok(stream) => stream,
            Err(error) => {
                self.checked.problem(object, error.to_string());
                return Ok(());
            }
        };
        let (reader, seen) = HashingReader::new(stream);
        let before = self.checked.problems.len();
        let args = vec!["--format=custom".to_owned(), "--file=/dev/null".to_owned()];
        self.restore(restorer, args, Input::Stream(Box::pin(reader)), object)
            .await?;
        let seen = seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        if seen.ended && self.checked.problems.len() == before {
            self.checked.files += 1;
            self.checked.bytes += seen.bytes;
            progress.add(seen.bytes);
            compare(file, object, seen.bytes, &seen.sha256(), self.checked);
            return Ok(());
        }
        // pg_restore stopped before the end of the file (by a failure, or because nothing that
        // it wants comes after): the hash needs a pass of its own.
        self.file(file, object, None, Some(progress)).await
    }

    /// A directory archive through pg_restore: in place where it sees our files, else uploaded.
    async fn directory(
        &mut self,
        database: &DatabaseRecord,
        restorer: &Restorer<'_>,
    ) -> Result<(), BackupError> {
        let Some(dir) = directory_of(database) else {
            self.checked
                .problem(&database.name, "its archive has no files".to_owned());
            return Ok(());
        };
        let object = format!("{dir} (database {:?})", database.name);
        let stored = format!("{}/{dir}", self.id);
        let args = |path: &str| {
            vec![
                "--format=directory".to_owned(),
                "--file=/dev/null".to_owned(),
                path.to_owned(),
            ]
        };
        self.checked.reader = Some(restorer.name.clone());
        let local = self.repo.store.local_path(&stored);
        if restorer.executor.shares_files()
            && let Some(path) = local.as_deref().and_then(std::path::Path::to_str)
        {
            let args = args(path);
            return self.restore(restorer, args, Input::Nothing, &object).await;
        }
        let exec = |source| BackupError::Exec {
            operation: format!("placing {dir} next to pg_restore"),
            source,
        };
        let scratch = restorer.executor.scratch_create().await.map_err(exec)?;
        let result = async {
            for file in &database.archive.files {
                let name = Repository::stored_name(self.id, file);
                let content =
                    self.repo
                        .store
                        .open(&name)
                        .await
                        .map_err(|source| BackupError::Store {
                            operation: format!("reading {name}"),
                            source,
                        })?;
                let leaf = file.name.rsplit('/').next().unwrap_or(&file.name);
                restorer
                    .executor
                    .scratch_put(&scratch, &format!("d/{leaf}"), file.bytes, content)
                    .await
                    .map_err(exec)?;
            }
            let path = format!("{}/d", scratch.path);
            self.restore(restorer, args(&path), Input::Nothing, &object)
                .await
        }
        .await;
        if let Err(error) = restorer.executor.scratch_remove(&scratch).await {
            tracing::warn!(%error, path = scratch.path, "a scratch directory was left behind");
        }
        result
    }

    async fn directory_built_in(&mut self, database: &DatabaseRecord) -> Result<(), BackupError> {
        self.checked.reader = Some(BUILT_IN.to_owned());
        let Some(dir) = directory_of(database) else {
            self.checked
                .problem(&database.name, "its archive has no files".to_owned());
            return Ok(());
        };
        let object = format!("{dir} (database {:?})", database.name);
        let store = Arc::clone(&self.repo.store);
        let prefix = format!("{}/{dir}", self.id);
        let runtime = tokio::runtime::Handle::current();
        let decoded = tokio::task::spawn_blocking(move || {
            let open = |name: &str| -> io::Result<Box<dyn io::Read>> {
                let stream = runtime
                    .block_on(store.open(&format!("{prefix}/{name}")))
                    .map_err(|error| match error {
                        storage::StoreError::NotFound { .. } => {
                            io::Error::from(io::ErrorKind::NotFound)
                        }
                        error => io::Error::other(error),
                    })?;
                Ok(Box::new(Blocking {
                    stream,
                    runtime: runtime.clone(),
                }))
            };
            let toc = open("toc.dat").map_err(|error| error.to_string())?;
            archive::check_directory(toc, open, &archive::CheckOptions::default())
                .map(|_| ())
                .map_err(|error| crate::run::chain(&error))
        })
        .await;
        match decoded {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => self.checked.problem(&object, problem),
            Err(panic) => self.checked.problem(&object, panic.to_string()),
        }
        Ok(())
    }

    /// Runs pg_restore over an archive; what it says of the archive becomes a problem, everything
    /// else an error.
    async fn restore(
        &mut self,
        restorer: &Restorer<'_>,
        args: Vec<String>,
        input: Input,
        object: &str,
    ) -> Result<(), BackupError> {
        let cancel = self.cancel.child_token();
        let _end_program_on_return = cancel.clone().drop_guard();
        let invocation = Invocation::new(PgProgram::PgRestore, args, None, input, cancel);
        let ended = match restorer.executor.start(invocation).await {
            Ok(running) => running.finish(PgProgram::PgRestore).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(finished) => {
                // Every fault in an archive ends pg_restore with a failure; what it says beside
                // is about its surroundings.
                for line in finished.stderr {
                    tracing::warn!(object, line, "pg_restore");
                }
                Ok(())
            }
            Err(ExecError::Failed { stderr, exit, .. }) => {
                let said = stderr.last().cloned().unwrap_or_else(|| exit.to_string());
                self.checked
                    .problem(object, format!("it cannot be read to its end: {said}"));
                Ok(())
            }
            Err(ExecError::Input { source, .. }) => {
                self.checked
                    .problem(object, format!("it cannot be read: {source}"));
                Ok(())
            }
            Err(ExecError::Interrupted { .. }) => Err(BackupError::Interrupted {
                operation: format!("reading {object}"),
            }),
            Err(source) => Err(BackupError::Exec {
                operation: format!("reading {object}"),
                source,
            }),
        }
    }
}

fn directory_of(database: &DatabaseRecord) -> Option<String> {
    let first = database.archive.files.first()?;
    Some(first.name.split_once('/')?.0.to_owned())
}

fn compare(file: &StoredFile, object: &str, bytes: u64, sha256: &str, checked: &mut Checked) {
    if bytes != file.bytes {
        checked.problem(
            object,
            format!("it has {bytes} bytes instead of {}", file.bytes),
        );
    } else if sha256 != file.sha256 {
        checked.problem(
            object,
            "its bytes are not those that were stored".to_owned(),
        );
    }
}

/// Hashes one stored file, and decodes it where `decode` says how.
pub(crate) async fn check_file(
    repo: &Repository,
    id: &BackupId,
    file: &StoredFile,
    object: &str,
    checked: &mut Checked,
    decode: Option<Decode>,
    cancel: &CancellationToken,
) -> Result<(), BackupError> {
    check(repo, id, file, object, checked, decode, None, cancel).await
}

#[expect(
    clippy::too_many_arguments,
    reason = "one pass over one file, called from two places"
)]
async fn check(
    repo: &Repository,
    id: &BackupId,
    file: &StoredFile,
    object: &str,
    checked: &mut Checked,
    decode: Option<Decode>,
    mut progress: Option<&mut Progress<'_>>,
    cancel: &CancellationToken,
) -> Result<(), BackupError> {
    let mut stream = match repo.store.open(&Repository::stored_name(id, file)).await {
        Ok(stream) => stream,
        Err(error) => {
            checked.problem(object, error.to_string());
            return Ok(());
        }
    };
    let hasher = Hasher::start();
    let mut decoder = decode.map(start_decoder);
    let mut bytes = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: format!("reading {object}"),
            });
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        match stream.read_buf(&mut piece).await {
            Ok(0) => break,
            Ok(count) => {
                bytes += count as u64;
                if let Some(progress) = progress.as_deref_mut() {
                    progress.add(count as u64);
                }
            }
            Err(error) => {
                checked.problem(object, format!("it cannot be read: {error}"));
                return Ok(());
            }
        }
        let piece = piece.freeze();
        hasher.update(piece.clone()).await;
        if let Some((pieces, _)) = &decoder {
            // A decoder that found a fault reads no further; the hash goes on.
            let _ = pieces.send(piece).await;
        }
    }
    checked.files += 1;
    checked.bytes += bytes;
    let sha256 = hasher.finish().await.map_err(|source| BackupError::Store {
        operation: format!("hashing {object}"),
        source: storage::StoreError::from_io("hashing", object, "memory", source),
    })?;
    compare(file, object, bytes, &sha256, checked);
    if let Some((pieces, thread)) = decoder.take() {
        drop(pieces);
        let decoded = thread.await.unwrap_or_else(|panic| Err(panic.to_string()));
        if let Err(problem) = decoded {
            checked.problem(object, problem);
        }
    }
    Ok(())
}

type Decoder = (
    mpsc::Sender<bytes::Bytes>,
    tokio::task::JoinHandle<Result<(), String>>,
);

fn start_decoder(decode: Decode) -> Decoder {
    let (pieces, reader) = PieceReader::new();
    let thread = tokio::task::spawn_blocking(move || decode_all(decode, reader));
    (pieces, thread)
}

fn decode_all(decode: Decode, reader: PieceReader) -> Result<(), String> {
    let said = |error: archive::ArchiveError| crate::run::chain(&error);
    let zstd = |reader| {
        zstd::stream::read::Decoder::new(reader).map_err(|error| format!("no zstd: {error}"))
    };
    match decode {
        Decode::Custom => archive::check_custom(reader, &archive::CheckOptions::default())
            .map(|_| ())
            .map_err(said),
        Decode::Plain => archive::check_plain(zstd(reader)?)
            .map(|_| ())
            .map_err(said),
        Decode::Globals => {
            let mut script = zstd(reader)?;
            let mut tail = script::Tail::default();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match io::Read::read(&mut script, &mut buffer) {
                    Ok(0) => return tail.check(script::CLUSTER_END),
                    Ok(count) => tail.push(&buffer[..count]),
                    Err(error) => return Err(format!("it cannot be decompressed: {error}")),
                }
            }
        }
    }
}

/// An async stream for a reader that is not async; only on blocking threads.
struct Blocking {
    stream: std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>,
    runtime: tokio::runtime::Handle,
}

impl io::Read for Blocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.read(buf))
    }
}
