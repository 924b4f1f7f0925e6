//! The output of a program as a reader whose last item is the program's failure, if it failed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::executor::{ExecError, PgProgram};

/// What the driver of a program sends to its reader.
pub(crate) enum Item {
    /// Bytes of standard output.
    Data(Bytes),
    /// The program ended with 0 and all its output was sent.
    End,
    /// Anything else.
    Failed(ExecError),
}

/// Reads what the driver sends.
pub(crate) struct ProgramReader {
    program: PgProgram,
    items: mpsc::Receiver<Item>,
    current: Bytes,
    ended: bool,
}

impl ProgramReader {
    pub(crate) fn new(program: PgProgram, items: mpsc::Receiver<Item>) -> Self {
        Self {
            program,
            items,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl AsyncBufRead for ProgramReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.current.is_empty() && !this.ended {
            match ready!(this.items.poll_recv(cx)) {
                Some(Item::Data(bytes)) => this.current = bytes,
                Some(Item::End) => this.ended = true,
                Some(Item::Failed(error)) => return Poll::Ready(Err(error.into_io())),
                // The driver is gone without a word: never an end of file.
                None => {
                    let reason = "its output ended without a status".to_owned();
                    let error = ExecError::ExitUnknown {
                        program: this.program,
                        reason,
                    };
                    return Poll::Ready(Err(error.into_io()));
                }
            }
        }
        Poll::Ready(Ok(&this.current))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().current.advance(amount);
    }
}

impl AsyncRead for ProgramReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let available = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = available.len().min(buf.remaining());
        buf.put_slice(&available[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}
