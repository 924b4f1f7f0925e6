//! The life line of a throw-away server: reads what its script says, and ends it by ending its
//! standard input.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::runtime::{Frame, RuntimeError};

/// The script that runs beside the server, in a container and on this host alike.
pub(crate) const SCRIPT: &str = include_str!("server.sh");
/// Name of the script in lists of processes, and the first word of each line that it says.
pub(crate) const SCRIPT_NAME: &str = "pgstow-sandbox";
/// How long a server may take to end after it was told.
pub(crate) const END_WAIT: Duration = Duration::from_secs(20);
/// Lines of the server's log that are kept; the last ones.
const LOG_LINES: usize = 50;
/// Bytes of a line that are kept.
const LINE: usize = 2048;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It is being made.
    Starting,
    /// It answers.
    Ready {
        /// Directory of its socket.
        socket: String,
        /// Directory of its programs.
        programs: String,
        /// Directory of its data.
        directory: String,
    },
    /// The script said why there is none: its words.
    Refused(Vec<String>),
    /// The script is over.
    Ended,
}

/// The streams of the script.
pub(crate) struct Line {
    pub(crate) output: Pin<Box<dyn Stream<Item = Result<Frame, RuntimeError>> + Send>>,
    pub(crate) input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Holds the line. Dropping it lets go of the server, which then removes itself.
pub(crate) struct Keeper {
    stop: DropGuard,
    state: watch::Receiver<State>,
    log: Log,
    task: JoinHandle<()>,
}

/// The last lines of a server's log; outlives the line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

impl Keeper {
    /// Begins to read.
    pub(crate) fn start(line: Line) -> Self {
        let stop = CancellationToken::new();
        let (sender, state) = watch::channel(State::Starting);
        let log = Log::default();
        let task = tokio::spawn(keep(line, stop.clone(), sender, log.clone()));
        Self {
            stop: stop.drop_guard(),
            state,
            log,
            task,
        }
    }

    /// Waits until the server answers or is known not to.
    pub(crate) async fn settled(&mut self) -> State {
        let settled = self.state.wait_for(|state| *state != State::Starting);
        settled.await.map_or(State::Ended, |state| state.clone())
    }

    /// State now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The last lines of the server's log.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The log, for when the line has ended.
    pub(crate) fn log_handle(&self) -> Log {
        self.log.clone()
    }

    /// Lets go and waits a bounded time; whether the script was seen to end.
    pub(crate) async fn end(self) -> bool {
        drop(self.stop);
        tokio::time::timeout(END_WAIT, self.task).await.is_ok()
    }
}

async fn keep(line: Line, stop: CancellationToken, state: watch::Sender<State>, log: Log) {
    let Line { mut output, input } = line;
    let mut input = Some(input);
    let (mut said, mut logged) = (Lines::default(), Lines::default());
    loop {
        let frame = tokio::select! {
            () = stop.cancelled(), if input.is_some() => {
                // Both: a pipe ends when it is dropped, half of a hijacked connection does not.
                if let Some(mut input) = input.take() {
                    let _ = input.shutdown().await;
                }
                continue;
            }
            frame = output.next() => frame,
        };
        match frame {
            Some(Ok(Frame::Stdout(piece))) => said.push(&piece, |line| {
                if let Some(next) = understand(line) {
                    // What was said first is the reason.
                    state.send_if_modified(|now| {
                        let change = !matches!(now, State::Refused(_));
                        if change {
                            *now = next;
                        }
                        change
                    });
                }
            }),
            Some(Ok(Frame::Stderr(piece))) => logged.push(&piece, |line| log.push(line)),
            Some(Err(error)) => {
                tracing::debug!(%error, "the line to a throw-away server broke");
                break;
            }
            None => break,
        }
    }
    state.send_if_modified(|now| {
        let change = !matches!(now, State::Refused(_));
        if change {
            *now = State::Ended;
        }
        change
    });
}

/// Reads a line of the script; `None` for anything else.
fn understand(line: &str) -> Option<State> {
    let mut words = line.split('\t');
    if words.next()? != SCRIPT_NAME {
        return None;
    }
    let words: Vec<String> = words.map(str::to_owned).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ready", socket, programs, directory] => Some(State::Ready {
            socket: socket.to_owned(),
            programs: programs.to_owned(),
            directory: directory.to_owned(),
        }),
        [] => None,
        _ => Some(State::Refused(words)),
    }
}

/// Lines out of pieces, each bounded.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn push(&mut self, piece: &[u8], mut each: impl FnMut(&str)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = LINE.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                each(String::from_utf8_lossy(&self.partial).trim_end());
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_script() {
        let ready = understand("pgstow-sandbox\tready\t/a b/socket\t/bin\t/a b");
        assert!(matches!(ready, Some(State::Ready { socket, .. }) if socket == "/a b/socket"));
        let space = understand("pgstow-sandbox\tspace\t10\t5\t/tmp");
        let words = ["space", "10", "5", "/tmp"].map(str::to_owned).to_vec();
        assert_eq!(space, Some(State::Refused(words)));
        assert_eq!(understand("LOG:  ready"), None);
    }

    #[tokio::test]
    async fn the_reason_that_was_said_stays_and_the_log_is_bounded() {
        let mut frames = vec![Ok(Frame::Stdout("pgstow-sandbox\tmis".into()))];
        frames.push(Ok(Frame::Stdout("sing\n".into())));
        for number in 0..200 {
            frames.push(Ok(Frame::Stderr(format!("line {number}\n").into())));
        }
        let line = Line {
            output: Box::pin(futures_util::stream::iter(frames)),
            input: Box::pin(tokio::io::sink()),
        };
        let mut keeper = Keeper::start(line);
        let reason = State::Refused(vec!["missing".to_owned()]);
        assert_eq!(keeper.settled().await, reason);
        while keeper.log().last().map(String::as_str) != Some("line 199") {
            tokio::task::yield_now().await;
        }
        assert_eq!(keeper.log().len(), LOG_LINES);
        assert!(keeper.end().await);
    }
}
