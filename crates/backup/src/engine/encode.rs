//! The thread beside a session: it counts, fingerprints and compresses what the session reads,
//! while the session reads on.

use std::sync::Arc;

use archive::{ArchiveKind, LargeObjectEncoder, UnitEncoder};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::board::{Board, Part, Stopped};
use super::objects::{Event, Reader};
use super::plan::{Plan, What};
use crate::run::chain;

/// Bytes of one part that is handed over.
const PART: usize = 512 << 10;
/// Pieces that wait for the thread.
const WAITING: usize = 2;

/// What a session says to its thread.
enum Message {
    /// Bytes of a unit.
    Bytes(usize, Vec<u8>),
    /// The unit ended, with so many rows by the server's count.
    End(usize, u64),
    /// The unit broke off: is it as if it had never begun?
    Abandon(oneshot::Sender<bool>),
}

/// Why a thread ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The work was given up elsewhere.
    Stopped,
    /// Here is why.
    Failed(String),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// The session's end of the thread.
pub(crate) struct Encoding {
    messages: mpsc::Sender<Message>,
    thread: JoinHandle<Result<(), Ended>>,
}

impl Encoding {
    pub(crate) fn start(plan: Arc<Plan>, board: Arc<Board>) -> Self {
        let (messages, receiver) = mpsc::channel(WAITING);
        let thread = tokio::task::spawn_blocking(move || run(&plan, &board, receiver));
        Self { messages, thread }
    }

    /// Takes bytes; an error means that the thread ended, which [`Encoding::finish`] explains.
    pub(crate) async fn bytes(&self, unit: usize, bytes: Vec<u8>) -> Result<(), Stopped> {
        self.send(Message::Bytes(unit, bytes)).await
    }

    /// Ends a unit.
    pub(crate) async fn end(&self, unit: usize, rows: u64) -> Result<(), Stopped> {
        self.send(Message::End(unit, rows)).await
    }

    /// Forgets what was taken of the unit. `false`: some of it was handed over already.
    pub(crate) async fn abandon(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.send(Message::Abandon(reply)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    async fn send(&self, message: Message) -> Result<(), Stopped> {
        self.messages.send(message).await.map_err(|_| Stopped)
    }

    /// Waits for what is left.
    pub(crate) async fn finish(self) -> Result<(), Ended> {
        drop(self.messages);
        match self.thread.await {
            Ok(ended) => ended,
            Err(panic) => Err(Ended::Failed(panic.to_string())),
        }
    }
}

fn run(plan: &Plan, board: &Board, mut messages: mpsc::Receiver<Message>) -> Result<(), Ended> {
    let mut open: Option<Open<'_>> = None;
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Bytes(unit, bytes) => {
                let now = match &mut open {
                    Some(now) => now,
                    None => open.insert(Open::new(plan, unit)?),
                };
                now.push(&bytes, board)?;
            }
            Message::End(unit, rows) => {
                let now = match open.take() {
                    Some(now) => now,
                    None => Open::new(plan, unit)?,
                };
                now.finish(rows, board)?;
            }
            Message::Abandon(reply) => {
                let untouched = open.take().is_none_or(|now| !now.output.handed_over);
                let _ = reply.send(untouched);
            }
        }
    }
    Ok(())
}

/// A unit under way.
struct Open<'a> {
    unit: usize,
    encoder: Encoder<'a>,
    output: Output,
}

enum Encoder<'a> {
    Rows(UnitEncoder),
    Objects {
        encoder: LargeObjectEncoder,
        reader: Reader<'a>,
        /// Whether each large object is a file of its own.
        files: bool,
    },
}

struct Output {
    unit: usize,
    ready: Vec<u8>,
    handed_over: bool,
}

impl Output {
    /// Hands over what is there; `all` also when it is little.
    fn flush(&mut self, board: &Board, all: bool) -> Result<(), Stopped> {
        if self.ready.is_empty() || (!all && self.ready.len() < PART) {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.ready));
        self.put(board, Part::Bytes(bytes))
    }

    fn put(&mut self, board: &Board, part: Part) -> Result<(), Stopped> {
        self.handed_over = true;
        board.put(self.unit, part)
    }
}

fn failed(error: &archive::ArchiveError) -> Ended {
    Ended::Failed(chain(error))
}

impl<'a> Open<'a> {
    fn new(plan: &'a Plan, number: usize) -> Result<Self, Ended> {
        let unit = &plan.units[number];
        let entry = plan.entry(unit);
        let encoder = match unit.what {
            What::Objects { .. } => Encoder::Objects {
                encoder: LargeObjectEncoder::new(plan.format, plan.wanted.large_objects())
                    .map_err(|error| failed(&error))?,
                reader: Reader::new(plan.objects(unit)),
                files: plan.format.kind != ArchiveKind::Custom,
            },
            What::Table | What::Range(_) => Encoder::Rows(
                UnitEncoder::new(plan.format, entry, plan.wanted.table(entry.oid))
                    .map_err(|error| failed(&error))?,
            ),
        };
        Ok(Self {
            unit: number,
            encoder,
            output: Output {
                unit: number,
                ready: Vec::new(),
                handed_over: false,
            },
        })
    }

    fn push(&mut self, bytes: &[u8], board: &Board) -> Result<(), Ended> {
        let output = &mut self.output;
        match &mut self.encoder {
            Encoder::Rows(encoder) => {
                encoder
                    .push(bytes, &mut output.ready)
                    .map_err(|error| failed(&error))?;
            }
            Encoder::Objects {
                encoder,
                reader,
                files,
            } => {
                let mut stopped = false;
                let pushed = reader.push(bytes, &mut |event| {
                    take(event, encoder, output, *files, board, &mut stopped)
                });
                told(pushed, stopped)?;
            }
        }
        output.flush(board, false)?;
        Ok(())
    }

    fn finish(self, rows: u64, board: &Board) -> Result<(), Ended> {
        let Self {
            unit,
            encoder,
            mut output,
        } = self;
        match encoder {
            Encoder::Rows(encoder) => {
                let summary = encoder
                    .finish(&mut output.ready)
                    .map_err(|error| failed(&error))?;
                output.flush(board, true)?;
                board.put(unit, Part::Rows(summary, rows))?;
            }
            Encoder::Objects {
                mut encoder,
                reader,
                files,
            } => {
                // One without large objects read nothing.
                if reader.expects_any() {
                    let mut stopped = false;
                    let finished = reader.finish(&mut |event| {
                        take(event, &mut encoder, &mut output, files, board, &mut stopped)
                    });
                    told(finished, stopped)?;
                }
                output.flush(board, true)?;
                board.put(unit, Part::Objects(encoder.finish()))?;
            }
        }
        Ok(())
    }
}

fn told(result: Result<(), String>, stopped: bool) -> Result<(), Ended> {
    match result {
        Err(_) if stopped => Err(Ended::Stopped),
        Err(why) => Err(Ended::Failed(why)),
        Ok(()) => Ok(()),
    }
}

/// Encodes what the stream of large objects told.
fn take(
    event: Event<'_>,
    encoder: &mut LargeObjectEncoder,
    output: &mut Output,
    files: bool,
    board: &Board,
    stopped: &mut bool,
) -> Result<(), String> {
    let words = |error: archive::ArchiveError| chain(&error);
    let mut hand = |handed: Result<(), Stopped>| {
        handed.map_err(|Stopped| {
            *stopped = true;
            String::new()
        })
    };
    match event {
        Event::Begin(oid) => {
            if files {
                hand(output.put(board, Part::Object(oid)))?;
            }
            encoder.begin(oid, &mut output.ready).map_err(words)
        }
        Event::Content(bytes) => {
            encoder.push(bytes, &mut output.ready).map_err(words)?;
            hand(output.flush(board, false))
        }
        Event::End => {
            encoder.end(&mut output.ready).map_err(words)?;
            if files {
                hand(output.flush(board, true))?;
                hand(output.put(board, Part::ObjectEnd))?;
            }
            Ok(())
        }
    }
}
