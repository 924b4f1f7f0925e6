//! Rows out of the server.
//!
//! A server sends rows in pieces of 8 KiB, and each wakes whoever waits for it: with rows that come
//! at full speed a quarter of the processor time of both ends. A session with a thread of its own
//! ([`NativeSession::has_its_thread`]) lets the buffer of the connection fill before it looks again.

use std::time::Duration;

use bytes::Buf;

use super::wire::{HEADER, Message, header};
use super::{NativeError, NativeSession, message};

/// How long a thread sleeps that finds nothing to read. The buffer of a Unix socket holds 208 KiB;
/// a session fills it in half a millisecond at best.
const PAUSE: Duration = Duration::from_micros(200);
/// Bytes of rows before it sleeps for the first time: a small table is not held up.
const AT_ONCE: u64 = 128 << 10;

/// A `COPY … TO STDOUT` that is running.
#[derive(Debug)]
pub struct CopyOut<'a> {
    session: &'a mut NativeSession,
    /// Bytes of the frame that was begun and that are still to come.
    left: usize,
    /// Bytes that came.
    came: u64,
    stage: Stage,
    rows: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Rows come.
    Rows,
    /// The rows are over, the statements not yet.
    Tail,
    /// Everything is confirmed.
    Done,
    /// An error was returned, or a future was dropped half-way.
    Failed,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(session: &'a mut NativeSession) -> Self {
        Self {
            session,
            left: 0,
            came: 0,
            stage: Stage::Rows,
            rows: None,
        }
    }

    /// Appends row bytes to `into` until at least `want` more are there, or the end. May stop
    /// inside a row, so that a long row does not have to fit into memory; may append somewhat more
    /// than `want`. `false`: the end was reached, and the server confirmed all statements.
    ///
    /// # Errors
    /// [`NativeError::Server`]: the COPY failed and the session can go on (unless the severity is
    /// `FATAL`). Anything else is the session's end.
    pub async fn read(&mut self, into: &mut Vec<u8>, want: usize) -> Result<bool, NativeError> {
        let enough = into.len() + want.max(1);
        loop {
            match self.stage {
                Stage::Done => return Ok(false),
                Stage::Failed => {
                    return Err(NativeError::Over {
                        reason: "the COPY failed or was left before".to_owned(),
                    });
                }
                Stage::Tail => self.tail().await?,
                Stage::Rows => {
                    let wants_more = self.take_frames(into, enough)?;
                    if into.len() >= enough {
                        return Ok(true);
                    }
                    if wants_more {
                        if let Err(error) = self.fill().await {
                            self.stage = Stage::Failed;
                            return Err(self.session.dead(error));
                        }
                    } else {
                        self.other().await?;
                    }
                }
            }
        }
    }

    /// Reads more of what the server sends.
    async fn fill(&mut self) -> Result<(), NativeError> {
        let NativeSession {
            wire, own_thread, ..
        } = &mut *self.session;
        if *own_thread && self.came >= AT_ONCE {
            wire.fill_after(|| std::thread::sleep(PAUSE)).await
        } else {
            wire.fill().await
        }
    }

    /// Appends the rows that are in the buffer. `false`: another kind of message is next.
    fn take_frames(&mut self, into: &mut Vec<u8>, enough: usize) -> Result<bool, NativeError> {
        let input = &mut self.session.wire.input;
        let mut at = 0;
        let wants_more = loop {
            let rest = &input[at..];
            if self.left > 0 {
                let there = self.left.min(rest.len());
                into.extend_from_slice(&rest[..there]);
                self.left -= there;
                at += there;
                if self.left > 0 || into.len() >= enough {
                    break true;
                }
                continue;
            }
            match header(rest) {
                Ok(Some((b'd', length))) => {
                    self.left = length;
                    at += HEADER;
                }
                Ok(Some(_)) => break false,
                Ok(None) => break true,
                Err(error) => {
                    self.stage = Stage::Failed;
                    return Err(self.session.dead(error));
                }
            }
        };
        input.advance(at);
        self.came += at as u64;
        Ok(wants_more)
    }

    /// A message between rows, or their end.
    async fn other(&mut self) -> Result<(), NativeError> {
        match self.step().await?.map(|message| message.kind) {
            None => {}
            Some(b'c') => self.stage = Stage::Tail,
            Some(kind) => {
                self.stage = Stage::Failed;
                return Err(self.session.unexpected(kind));
            }
        }
        Ok(())
    }

    /// From the last row to the end of all statements.
    async fn tail(&mut self) -> Result<(), NativeError> {
        let Some(message) = self.step().await? else {
            return Ok(());
        };
        match message.kind {
            b'C' if self.rows.is_none() => self.rows = message::copied(&message.body),
            b'C' | b'T' | b'D' | b'I' => {}
            b'Z' => {
                self.session.ready();
                self.stage = Stage::Done;
            }
            kind => {
                self.stage = Stage::Failed;
                return Err(self.session.unexpected(kind));
            }
        }
        Ok(())
    }

    /// Fails for good unless a message came: also when the future is dropped after an error of the
    /// server was read, and what follows it would look like a good end.
    async fn step(&mut self) -> Result<Option<Message>, NativeError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Failed);
        let message = self.session.step().await?;
        self.stage = stage;
        Ok(message)
    }

    /// Reads (and drops) what is left and returns the number of rows that the server tells.
    ///
    /// # Errors
    /// As [`CopyOut::read`].
    pub async fn finish(mut self) -> Result<u64, NativeError> {
        let mut rest = Vec::new();
        while self.read(&mut rest, 64 * 1024).await? {
            rest.clear();
        }
        self.rows
            .ok_or_else(|| NativeError::protocol("the end of a COPY that does not tell its rows"))
    }
}
