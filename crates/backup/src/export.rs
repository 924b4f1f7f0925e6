//! Export: a backup as ordinary files that PostgreSQL's own programs read. Never overwrites; what
//! is there under the final name is whole and synced.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dbexec::{
    ExecError, Invocation, PgExecutor, PgProgram,
    executor::{Input, RunningProgram},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::{
    BackupError, BackupEvent, DumpFormat, EventSink, ExportReport, ExportRequest, Repository,
    manifest::StoredFile,
    restore::{
        Source, SourceFormat, checked_stored, plain_stream, source_of_backup, upload_stored,
    },
};

/// Size of a piece on its way, bytes.
const PIECE: usize = 256 * 1024;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

/// Writes a backup's archive to ordinary files.
///
/// # Errors
/// [`BackupError::Preflight`] when the output exists or the format cannot be made;
/// [`BackupError::File`], [`BackupError::Exec`] when it fails, with nothing left behind.
pub async fn export(
    repo: &Repository,
    request: &ExportRequest,
    executor: Option<&Arc<dyn PgExecutor>>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<ExportReport, BackupError> {
    let manifest = repo.find(&request.backup).await?;
    let source = source_of_backup(repo, manifest, request.database.as_deref())?;
    let stored = match source.format {
        SourceFormat::Custom => DumpFormat::Custom,
        SourceFormat::Directory => DumpFormat::Directory,
        SourceFormat::Plain => DumpFormat::Plain,
    };
    let wanted = request.format.unwrap_or(stored);
    if request.output.symlink_metadata().is_ok() {
        return Err(BackupError::Preflight {
            problem: format!("{} exists already", request.output.display()),
            remedy: "choose a path that does not exist; an export never overwrites".to_owned(),
        });
    }
    let partial = Partial::beside(&request.output)?;
    let progress = Progress {
        sink,
        subject: source.label.clone(),
        bytes: Arc::default(),
    };
    let work = async {
        match (stored, wanted) {
            (DumpFormat::Custom, DumpFormat::Custom) => {
                let input = checked_stored(&source, "", progress.counter()).await?;
                Ok(vec![
                    write_file(&partial.path, &request.output, input).await?,
                ])
            }
            (DumpFormat::Directory, DumpFormat::Directory) => {
                write_directory(&source, &partial.path, &progress).await
            }
            (DumpFormat::Plain, DumpFormat::Plain) => {
                let input = plain_stream(&source, progress.counter()).await?;
                Ok(vec![
                    write_file(&partial.path, &request.output, input).await?,
                ])
            }
            (_, DumpFormat::Plain) => {
                let Some(executor) = executor else {
                    return Err(BackupError::Preflight {
                        problem: "making a plain dump of an archive needs pg_restore".to_owned(),
                        remedy: "name a target whose programs can be used".to_owned(),
                    });
                };
                let file = to_plain(
                    &source,
                    executor,
                    &partial.path,
                    &request.output,
                    &progress,
                    cancel,
                );
                Ok(vec![file.await?])
            }
            (from, to) => Err(BackupError::Preflight {
                problem: format!("a {from:?} archive cannot become a {to:?} archive"),
                remedy: "leave --format out, or take plain".to_owned(),
            }),
        }
    };
    let files = progress.watch(work, cancel).await?;
    partial.publish(&request.output)?;
    Ok(ExportReport {
        output: request.output.clone(),
        files,
    })
}

/// Counts bytes and tells them.
struct Progress<'a> {
    sink: &'a dyn EventSink,
    subject: String,
    bytes: Arc<AtomicU64>,
}

impl Progress<'_> {
    fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    async fn watch<T>(
        &self,
        work: impl Future<Output = Result<T, BackupError>>,
        cancel: &CancellationToken,
    ) -> Result<T, BackupError> {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = cancel.cancelled() => {
                    return Err(BackupError::Interrupted { operation: "exporting".to_owned() });
                }
                _ = tick.tick() => self.sink.emit(BackupEvent::Progress {
                    phase: "export",
                    subject: self.subject.clone(),
                    bytes: self.bytes.load(Ordering::Relaxed),
                }),
            }
        }
    }
}

/// A temporary name beside the output; what is under it is removed unless it was published.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(output: &Path) -> Result<Self, BackupError> {
        let name = output.file_name().ok_or_else(|| BackupError::Preflight {
            problem: format!("{} names no file", output.display()),
            remedy: "give the path of the file or directory to write".to_owned(),
        })?;
        let random: u64 = rand::random();
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{random:016x}.partial"));
        Ok(Self {
            path: output.with_file_name(partial),
        })
    }

    /// Gives the output its name, if nobody else took it, and makes the name durable.
    fn publish(&self, output: &Path) -> Result<(), BackupError> {
        renameat_with(CWD, &self.path, CWD, output, RenameFlags::NOREPLACE)
            .map_err(|errno| file("naming", output, errno.into()))?;
        let dir = match output.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        sync_dir(dir)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing there is nothing under the temporary name.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| file("syncing", dir, source))
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Writes a stream to its end, synced; `shown` is the name in messages and in the report.
async fn write_file(
    path: &Path,
    shown: &Path,
    mut input: Pin<Box<dyn AsyncRead + Send>>,
) -> Result<StoredFile, BackupError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut out = tokio::fs::OpenOptions::from(options)
        .open(path)
        .await
        .map_err(|source| file("creating", shown, source))?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let read = input.read(&mut piece).await.map_err(|source| {
            ExecError::from_io(source).map_or_else(
                |source| file("reading the backup for", shown, source),
                |source| BackupError::Exec {
                    operation: format!("making {}", shown.display()),
                    source,
                },
            )
        })?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
        out.write_all(&piece[..read])
            .await
            .map_err(|source| file("writing", shown, source))?;
    }
    out.sync_all()
        .await
        .map_err(|source| file("syncing", shown, source))?;
    Ok(StoredFile {
        name: shown
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        bytes,
        sha256: hex::encode(hash.finalize()),
    })
}

async fn write_directory(
    source: &Source,
    partial: &Path,
    progress: &Progress<'_>,
) -> Result<Vec<StoredFile>, BackupError> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(partial)
        .map_err(|error| file("creating", partial, error))?;
    let mut written = Vec::new();
    for name in source.place.names() {
        let input = checked_stored(source, &name, progress.counter()).await?;
        let path = partial.join(&name);
        written.push(write_file(&path, &path, input).await?);
    }
    sync_dir(partial)?;
    Ok(written)
}

/// `pg_restore -f -`, without any connection.
async fn to_plain(
    source: &Source,
    executor: &Arc<dyn PgExecutor>,
    partial: &Path,
    output: &Path,
    progress: &Progress<'_>,
    cancel: &CancellationToken,
) -> Result<StoredFile, BackupError> {
    let exec = |source| BackupError::Exec {
        operation: format!("making {}", output.display()),
        source,
    };
    let start = |args: Vec<String>, input| {
        executor.start(Invocation::new(
            PgProgram::PgRestore,
            args,
            None,
            input,
            cancel.clone(),
        ))
    };
    let args = |rest: &[&str]| -> Vec<String> {
        ["-f", "-"]
            .iter()
            .chain(rest)
            .map(|arg| (*arg).to_owned())
            .collect()
    };
    let write =
        async |running: RunningProgram| write_file(partial, output, Box::pin(running.stdout)).await;
    if source.format == SourceFormat::Custom {
        let input = checked_stored(source, "", progress.counter()).await?;
        let running = start(args(&["-Fc"]), Input::Stream(input))
            .await
            .map_err(exec)?;
        return write(running).await;
    }
    if let (Some(path), true) = (source.place.local_path(), executor.shares_files()) {
        let path = path.display().to_string();
        let running = start(args(&["-Fd", &path]), Input::Nothing)
            .await
            .map_err(exec)?;
        return write(running).await;
    }
    let scratch = executor.scratch_create().await.map_err(exec)?;
    let result = async {
        let path = upload_stored(executor.as_ref(), source, &scratch, &progress.bytes).await?;
        let running = start(args(&["-Fd", &path]), Input::Nothing)
            .await
            .map_err(exec)?;
        write(running).await
    }
    .await;
    let removed = executor.scratch_remove(&scratch).await.map_err(exec);
    let written = result?;
    removed?;
    Ok(written)
}
