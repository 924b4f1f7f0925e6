//! One program from its start to its end: output, standard error, input, cancellation, stalls and
//! the exit status, in one task.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::classify;
use super::reader::{Item, ProgramReader};
use super::stderr::StderrLog;
use super::types::{Finished, Input, PgProgram, RunningProgram, StderrWatch};
use crate::creds::DbCreds;
use crate::executor::{ExecError, ProgramExit};
use crate::runtime::Frame;

/// Pieces of output that wait for the reader: with frames of at most 64 KiB this bounds memory and
/// still lets the program run ahead of hashing and writing.
const QUEUE: usize = 16;
const INPUT_BUFFER: usize = 128 * 1024;

/// A started program, wherever it runs.
#[async_trait]
pub(crate) trait Process: Send {
    /// The next piece of output; `None` when both streams ended. Must lose nothing when dropped
    /// while it waits.
    async fn next(&mut self) -> Result<Option<Frame>, ExecError>;
    /// The exit status, after the streams ended; waits a bounded time. `None` is status 0.
    async fn exit(&mut self) -> Result<Option<ProgramExit>, ExecError>;
    /// Ends the program and its server sessions, within about 5 s.
    async fn terminate(&mut self, stderr: &mut StderrLog);
    /// Called when nothing moved for long: `None` when work goes on, else what is wrong.
    async fn diagnose(&mut self) -> Option<String>;
    /// Gives up the standard input of the program.
    fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>>;
}

/// What the driver needs beside the process.
pub(crate) struct Plan {
    pub(crate) program: PgProgram,
    pub(crate) creds: Option<DbCreds>,
    pub(crate) input: Input,
    pub(crate) cancel: CancellationToken,
    pub(crate) stall_after: Duration,
    pub(crate) on_stderr: Option<StderrWatch>,
    pub(crate) busy: Option<Arc<AtomicBool>>,
}

/// Starts the driver of a process.
pub(crate) fn launch(process: Box<dyn Process>, plan: Plan) -> RunningProgram {
    let (items, receiver) = mpsc::channel(QUEUE);
    let (finished, notice) = oneshot::channel();
    let reader = ProgramReader::new(plan.program, receiver);
    tokio::spawn(drive(process, plan, items, finished));
    RunningProgram::new(Box::pin(reader), notice)
}

async fn drive(
    mut process: Box<dyn Process>,
    plan: Plan,
    items: mpsc::Sender<Item>,
    finished: oneshot::Sender<Finished>,
) {
    let mut stderr = StderrLog::watched(plan.on_stderr);
    let mut feeder = Feeder::start(plan.input, process.take_input());
    let steps = Steps {
        program: plan.program,
        creds: plan.creds.as_ref(),
        cancel: &plan.cancel,
        stall_after: plan.stall_after,
        busy: plan.busy.as_deref(),
        items: &items,
    };
    let result = steps.run(process.as_mut(), &mut stderr, &mut feeder).await;
    feeder.stop();
    let item = match result {
        Ok(Ended::WithZero) => {
            let (lines, dropped) = stderr.finish();
            // Before the end of the output, so that whoever saw the end finds the notice.
            let _ = finished.send(Finished {
                stderr: lines,
                stderr_dropped: dropped,
            });
            Item::End
        }
        Ok(Ended::Failed(exit)) => {
            let (lines, _) = stderr.finish();
            Item::Failed(classify::failure(
                plan.program,
                exit,
                lines,
                plan.creds.as_ref(),
            ))
        }
        Err(error) => {
            // Whatever went wrong on our side, the program must not live on by itself.
            process.terminate(&mut stderr).await;
            Item::Failed(error)
        }
    };
    let _ = items.send(item).await;
}

enum Ended {
    WithZero,
    Failed(ProgramExit),
}

struct Steps<'a> {
    program: PgProgram,
    creds: Option<&'a DbCreds>,
    cancel: &'a CancellationToken,
    stall_after: Duration,
    busy: Option<&'a AtomicBool>,
    items: &'a mpsc::Sender<Item>,
}

impl Steps<'_> {
    async fn run(
        &self,
        process: &mut dyn Process,
        stderr: &mut StderrLog,
        feeder: &mut Feeder,
    ) -> Result<Ended, ExecError> {
        let mut quiet_since = Instant::now();
        let mut fed = 0;
        loop {
            let frame = tokio::select! {
                biased;
                () = self.abandoned() => return Err(self.interrupted()),
                error = feeder.failed() => {
                    return Err(ExecError::Input { program: self.program, source: error });
                }
                frame = tokio::time::timeout(self.stall_after, process.next()) => frame,
            };
            match frame {
                Ok(frame) => match frame? {
                    None => break,
                    Some(Frame::Stderr(piece)) => stderr.push(&piece),
                    Some(Frame::Stdout(piece)) if piece.is_empty() => {}
                    Some(Frame::Stdout(piece)) => {
                        // A missing program is told by the engine on standard output.
                        if piece.starts_with(b"OCI runtime exec failed") {
                            stderr.push(&piece);
                        }
                        self.hand_over(piece).await?;
                    }
                },
                Err(_elapsed) if self.busy.is_some_and(|busy| !busy.load(Ordering::Relaxed)) => {}
                Err(_elapsed) => {
                    let now_fed = feeder.bytes();
                    if now_fed == fed
                        && let Some(diagnosis) = process.diagnose().await
                    {
                        let (program, idle) = (self.program, quiet_since.elapsed());
                        return Err(ExecError::Stalled {
                            program,
                            idle,
                            diagnosis,
                        });
                    }
                    fed = now_fed;
                    continue;
                }
            }
            quiet_since = Instant::now();
        }
        let exit = tokio::select! {
            biased;
            () = self.abandoned() => return Err(self.interrupted()),
            exit = process.exit() => exit?,
        };
        // A program that ended because its input could not be read must not look like one that
        // had all of it.
        if let Some(error) = feeder.failure_now() {
            return Err(ExecError::Input {
                program: self.program,
                source: error,
            });
        }
        tracing::debug!(program = %self.program, user = self.creds.map(|c| c.user.as_str()), ?exit);
        Ok(exit.map_or(Ended::WithZero, Ended::Failed))
    }

    /// Waits for a slow reader, but not after a cancel.
    async fn hand_over(&self, piece: bytes::Bytes) -> Result<(), ExecError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(self.interrupted()),
            sent = self.items.send(Item::Data(piece)) => sent.map_err(|_| self.interrupted()),
        }
    }

    /// The run was cancelled, or nobody reads any more.
    async fn abandoned(&self) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = self.items.closed() => {}
        }
    }

    fn interrupted(&self) -> ExecError {
        ExecError::Interrupted {
            program: self.program,
        }
    }
}

/// Moves the input into the program beside the reading of its output.
struct Feeder {
    task: Option<JoinHandle<()>>,
    bytes: Arc<AtomicU64>,
    failure: oneshot::Receiver<io::Error>,
    gone: bool,
}

impl Feeder {
    fn start(input: Input, writer: Option<Pin<Box<dyn AsyncWrite + Send>>>) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let (sender, failure) = oneshot::channel();
        let task = match (input, writer) {
            (Input::Stream(reader), Some(writer)) => Some(tokio::spawn(feed(
                reader,
                writer,
                Arc::clone(&bytes),
                sender,
            ))),
            (Input::Nothing, Some(mut writer)) => Some(tokio::spawn(async move {
                let _ = writer.shutdown().await;
                drop(sender);
            })),
            (_, None) => None,
        };
        Self {
            task,
            bytes,
            failure,
            gone: false,
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends when the input could not be read; never when it was fed whole.
    async fn failed(&mut self) -> io::Error {
        if !self.gone
            && let Ok(error) = (&mut self.failure).await
        {
            self.gone = true;
            return error;
        }
        self.gone = true;
        std::future::pending().await
    }

    fn failure_now(&mut self) -> Option<io::Error> {
        if self.gone {
            None
        } else {
            self.failure.try_recv().ok()
        }
    }

    /// The end of the program cancels the writer, which may wait for ever.
    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn feed(
    mut reader: Pin<Box<dyn AsyncRead + Send>>,
    mut writer: Pin<Box<dyn AsyncWrite + Send>>,
    bytes: Arc<AtomicU64>,
    failure: oneshot::Sender<io::Error>,
) {
    let mut buffer = vec![0; INPUT_BUFFER];
    loop {
        let read = match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                // No half-close: the program would take the cut for the end. It is terminated by
                // the driver; until then the writer stays open.
                let _ = failure.send(error);
                std::future::pending::<()>().await;
                return;
            }
        };
        // A program that does not want more says by its exit status whether that was right.
        let written = async {
            writer.write_all(&buffer[..read]).await?;
            // A statement of a session is waited for by both sides.
            writer.flush().await
        };
        if written.await.is_err() {
            return;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    // Dropping the writer of an exec sends no end of file; shutdown half-closes.
    let _ = writer.shutdown().await;
}
