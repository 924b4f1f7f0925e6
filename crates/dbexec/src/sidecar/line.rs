//! The life line of a sidecar: its container lives as long as it is held.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sandbox::line::{self, Line};

/// The script that runs in the container in place of its entry point.
pub(crate) const SCRIPT: &str = line::script!("../sidecar/life.sh");
/// Name of the script in lists of processes, and the first word of the line that it says.
pub(crate) const SCRIPT_NAME: &str = "pgstow-sidecar";
/// How long the script may take to end after it was told.
const END_WAIT: Duration = Duration::from_secs(20);

/// What is known of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    /// User and group that its programs run as.
    Ready(u32, u32),
    /// It ended; the last line that it said on standard error.
    Ended(String),
}

/// Holds the line. Dropping it lets the container end and be removed.
pub(crate) struct LifeLine {
    stop: DropGuard,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl LifeLine {
    /// Begins to read what the script says.
    pub(crate) fn start(line: Line) -> Self {
        let stop = CancellationToken::new();
        let (sender, state) = watch::channel(State::Starting);
        let task = tokio::spawn(hold(line, stop.clone(), sender));
        Self {
            stop: stop.drop_guard(),
            state,
            task,
        }
    }

    /// Waits for the script: user and group that programs in the container run as.
    pub(crate) async fn ready(&mut self) -> Result<(u32, u32), String> {
        let settled = self.state.wait_for(|state| *state != State::Starting).await;
        match settled.map(|state| state.clone()) {
            Ok(State::Ready(user, group)) => Ok((user, group)),
            Ok(State::Ended(words)) if !words.is_empty() => Err(words),
            _ => Err("it ended at once and said nothing".to_owned()),
        }
    }

    /// Lets go and waits a bounded time for the script's end.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if tokio::time::timeout(END_WAIT, self.task).await.is_err() {
            tracing::warn!("a sidecar did not end when it was told");
        }
    }
}

async fn hold(line: Line, stop: CancellationToken, state: watch::Sender<State>) {
    let mut last = String::new();
    let said = |line: &str| {
        if let Some((user, group)) = understand(line) {
            state.send_replace(State::Ready(user, group));
        }
    };
    line.follow(stop, said, |line| line.clone_into(&mut last))
        .await;
    state.send_replace(State::Ended(last));
}

fn understand(line: &str) -> Option<(u32, u32)> {
    match line.split('\t').collect::<Vec<_>>()[..] {
        [SCRIPT_NAME, "ready", user, group] => Some((user.parse().ok()?, group.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Frame;

    #[test]
    fn the_scripts_word() {
        assert_eq!(
            understand("pgstow-sidecar\tready\t999\t998"),
            Some((999, 998))
        );
        for line in ["pgstow-sidecar\tready\t\t", "ready\t1\t2", ""] {
            assert_eq!(understand(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn an_end_without_a_word_is_told_with_the_last_line() {
        let frames = vec![Ok(Frame::Stderr("sh: id: not found\n".into()))];
        let mut line = LifeLine::start(Line {
            output: Box::pin(futures_util::stream::iter(frames)),
            input: Box::pin(tokio::io::sink()),
        });
        assert_eq!(line.ready().await, Err("sh: id: not found".to_owned()));
    }
}
