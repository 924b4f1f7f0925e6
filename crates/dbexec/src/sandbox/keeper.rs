//! The life line of a throw-away server: reads what its script says, and ends it by ending its
//! standard input.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::line::{self, Line};

/// The script that runs beside the server, in a container and on this host alike.
pub(crate) const SCRIPT: &str = line::script!("server.sh");
/// Name of the script in lists of processes, and the first word of each line that it says.
pub(crate) const SCRIPT_NAME: &str = "pgstow-sandbox";
/// How long a server may take to end after it was told.
pub(crate) const END_WAIT: Duration = Duration::from_secs(20);
/// Lines of the server's log that are kept; the last ones.
const LOG_LINES: usize = 50;

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
    // What was said first is the reason.
    let change = |next| {
        state.send_if_modified(|now| {
            let change = !matches!(now, State::Refused(_));
            if change {
                *now = next;
            }
            change
        });
    };
    let said = |line: &str| {
        if let Some(next) = understand(line) {
            change(next);
        }
    };
    line.follow(stop, said, |line| log.push(line)).await;
    change(State::Ended);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Frame;

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
