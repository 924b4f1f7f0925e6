//! The line to a script in a container, or on this host, that lives as long as it is held.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Frame, RuntimeError};

/// Beginning of every script: how it holds its end of the line.
macro_rules! script {
    ($rest:literal) => {
        concat!(include_str!("../sandbox/line.sh"), include_str!($rest))
    };
}
pub(crate) use script;

/// Bytes of a line of text that are kept.
const KEPT: usize = 2048;

/// The streams of a script.
pub(crate) struct Line {
    pub(crate) output: Pin<Box<dyn Stream<Item = Result<Frame, RuntimeError>> + Send>>,
    pub(crate) input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Line {
    /// Hands over lines of standard output and standard error until the script is over (or the
    /// connection to it broke). Lets go of the script when `stop` says so.
    pub(crate) async fn follow(
        self,
        stop: CancellationToken,
        mut said: impl FnMut(&str),
        mut logged: impl FnMut(&str),
    ) {
        let Self { mut output, input } = self;
        let mut input = Some(input);
        let (mut out, mut err) = (Lines::default(), Lines::default());
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
                Some(Ok(Frame::Stdout(piece))) => out.push(&piece, &mut said),
                Some(Ok(Frame::Stderr(piece))) => err.push(&piece, &mut logged),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the line to a script broke");
                    break;
                }
                None => break,
            }
        }
    }
}

/// Lines out of pieces, each bounded.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, piece: &[u8], mut each: impl FnMut(&str)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = KEPT.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                each(String::from_utf8_lossy(&self.partial).trim_end());
                self.partial.clear();
            }
        }
    }
}
