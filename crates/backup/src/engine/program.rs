//! pg_dump for its table of contents: it knows the catalogue. Once that is read it has nothing more
//! to do; until then its locks keep the tables as they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use archive::{DumpToc, WriteFormat};
use bytes::Bytes;
use dbexec::executor::{Input, RunningProgram};
use dbexec::{ExecError, Invocation, PgExecutor, PgProgram};
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::emit::{Failure, Files};
use super::mover::suffix;
use crate::attest::Wanted;
use crate::run::{chain, exec_error};
use crate::stream::PieceReader;

/// How long the rest of a table of contents may be held back in pg_dump's own buffer.
const REST_WAIT: Duration = Duration::from_secs(20);
/// How long pg_dump may take to end by itself, and how much it may still say, bytes: of a small
/// database nearly all was read already. To end it takes longer.
const OWN_END: (Duration, usize) = (Duration::from_millis(250), 1 << 20);
/// How long pg_dump and its session may take to end.
const END_WAIT: Duration = Duration::from_secs(10);
/// Lines of standard error that are kept.
const MAX_LINES: usize = 100;

/// A pg_dump whose table of contents was read.
pub(crate) struct Dumping {
    running: RunningProgram,
    cancel: CancellationToken,
}

impl Dumping {
    /// Ends it; process and session are gone afterwards.
    pub(crate) async fn end(mut self) {
        let by_itself = tokio::time::timeout(OWN_END.0, self.read_the_rest()).await;
        if !matches!(by_itself, Ok(true)) {
            self.cancel.cancel();
        }
        let ended = tokio::time::timeout(END_WAIT, self.running.finish(PgProgram::PgDump)).await;
        tracing::debug!(?ended, "pg_dump was ended after its table of contents");
    }

    /// Whether its output came to its end soon.
    async fn read_the_rest(&mut self) -> bool {
        let mut room = OWN_END.1;
        loop {
            let read = match self.running.stdout.fill_buf().await {
                Ok(bytes) => bytes.len(),
                // The end tells what it was.
                Err(_) => return true,
            };
            self.running.stdout.consume(read);
            match room.checked_sub(read) {
                Some(left) if read > 0 => room = left,
                _ => return read == 0,
            }
        }
    }
}

/// Lines of standard error.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Lines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_LINES {
            lines.push(line.to_owned());
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A pg_dump that was started for its table of contents, of which nothing was read yet.
pub(crate) struct Started {
    dumping: Dumping,
    busy: Arc<AtomicBool>,
    lines: Arc<Lines>,
}

impl Started {
    /// As [`Dumping::end`].
    pub(crate) async fn end(self) {
        self.dumping.end().await;
    }
}

/// Starts pg_dump in a snapshot. `args`: those without format, compression and snapshot. It asks the
/// server for its catalogue and then waits until it is read. `database`: its number in the run, and
/// its name.
pub(crate) async fn start(
    executor: &dyn PgExecutor,
    args: Vec<String>,
    snapshot: &str,
    (number, database): (usize, &str),
    cancel: &CancellationToken,
) -> Result<Started, ExecError> {
    let mut arguments = vec![
        "--format=custom".to_owned(),
        "--compress=0".to_owned(),
        format!("--snapshot={snapshot}"),
    ];
    arguments.extend(args);
    let cancel = cancel.child_token();
    // Until it is read, it may stand still.
    let busy = Arc::new(AtomicBool::new(false));
    let lines = Arc::new(Lines::default());
    let watch = Arc::clone(&lines);
    let mut invocation = Invocation::new(
        PgProgram::PgDump,
        arguments,
        Some(database.to_owned()),
        Input::Nothing,
        cancel.clone(),
    );
    let name = &executor.settings().application_name;
    invocation.application_name = Some(format!("{name}-{}-toc", suffix(number)));
    invocation.busy = Some(Arc::clone(&busy));
    invocation.on_stderr = Some(Arc::new(move |line| watch.push(line)));
    let running = executor.start(invocation).await?;
    Ok(Started {
        dumping: Dumping { running, cancel },
        busy,
        lines,
    })
}

/// Copies pg_dump's table of contents into the open file, as that of the archive to be made. Also
/// what pg_dump said meanwhile.
pub(crate) async fn read_toc(
    started: Started,
    format: WriteFormat,
    wanted: &Wanted,
    files: &mut Files<'_>,
) -> Result<(DumpToc, Dumping, Vec<String>), Failure> {
    let Started {
        mut dumping,
        busy,
        lines,
    } = started;
    busy.store(true, Ordering::Relaxed);
    let operation = files.target.operation.to_owned();
    let running = &mut dumping.running;
    let copied = copy(running, format, wanted.clone(), files, &operation).await;
    busy.store(false, Ordering::Relaxed);
    match copied {
        Ok(toc) => Ok((toc, dumping, lines.take())),
        Err(error) => {
            dumping.end().await;
            Err(error)
        }
    }
}

/// What pg_dump alone would meet as well ends the run.
pub(crate) fn failure(operation: &str, error: ExecError) -> Failure {
    match &error {
        ExecError::Failed { stderr, .. } if stderr.iter().any(|line| line.contains("snapshot")) => {
            Failure::Stock(format!("pg_dump: {}", stderr.join("; ")))
        }
        _ => Failure::Run(exec_error(operation.to_owned(), error)),
    }
}

async fn copy(
    running: &mut RunningProgram,
    format: WriteFormat,
    wanted: Wanted,
    files: &mut Files<'_>,
    operation: &str,
) -> Result<DumpToc, Failure> {
    let (pieces, reader) = PieceReader::new();
    let (parts, mut written) = mpsc::channel::<Bytes>(2);
    let thread = tokio::task::spawn_blocking(move || {
        wanted.with(|options| {
            archive::copy_toc(reader, format, options, &mut |bytes| {
                parts
                    .blocking_send(Bytes::copy_from_slice(bytes))
                    .map_err(std::io::Error::other)
            })
        })
    });
    let feed = async {
        match feed(running, pieces, operation).await {
            // The thread says what it made of it.
            Ok(()) => std::future::pending().await,
            Err(failure) => failure,
        }
    };
    let store = async {
        while let Some(bytes) = written.recv().await {
            files.write(bytes).await?;
        }
        match thread.await {
            Ok(Ok(toc)) => Ok(toc),
            Ok(Err(error)) => Err(Failure::Stock(format!(
                "the table of contents: {}",
                chain(&error)
            ))),
            Err(panic) => Err(Failure::Stock(panic.to_string())),
        }
    };
    tokio::select! {
        failure = feed => Err(failure),
        stored = store => stored,
    }
}

/// Reads pg_dump's output for as long as it is wanted.
async fn feed(
    running: &mut RunningProgram,
    pieces: mpsc::Sender<Bytes>,
    operation: &str,
) -> Result<(), Failure> {
    let mut begun = false;
    loop {
        let reading = running.stdout.fill_buf();
        let read = if begun {
            match tokio::time::timeout(REST_WAIT, reading).await {
                Ok(read) => read,
                Err(_elapsed) => {
                    return Err(Failure::Stock(format!(
                        "pg_dump held the end of its table of contents back for {} s",
                        REST_WAIT.as_secs()
                    )));
                }
            }
        } else {
            // It may wait for locks.
            reading.await
        };
        let bytes = match read {
            Ok(bytes) => Bytes::copy_from_slice(bytes),
            Err(source) => {
                let error = ExecError::from_io(source).unwrap_or_else(|source| ExecError::Spawn {
                    operation: "reading",
                    program: PgProgram::PgDump,
                    source,
                });
                return Err(failure(operation, error));
            }
        };
        running.stdout.consume(bytes.len());
        if bytes.is_empty() || pieces.send(bytes).await.is_err() {
            return Ok(());
        }
        begun = true;
    }
}
