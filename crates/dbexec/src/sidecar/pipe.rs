//! A program whose standard output comes through a FIFO of the spool, beside its standard error
//! and exit status, which come through the engine.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::unix::pipe::Receiver;

use super::executor::Shared;
use super::spool::Fifo;
use crate::executor::drive::Process;
use crate::executor::stderr::StderrLog;
use crate::executor::{ExecError, PgProgram, ProgramExit};
use crate::runtime::Frame;

/// Bytes of one piece.
const PIECE: usize = 128 * 1024;

/// A program in a sidecar.
pub(crate) struct Piped<P> {
    process: P,
    program: PgProgram,
    output: Option<Output>,
    /// The engine's streams ended: the program did, or its container, or the connection.
    ended: bool,
    shared: Arc<Shared>,
}

/// Where standard output comes from.
pub(crate) struct Output {
    pipe: Receiver,
    buffer: BytesMut,
    /// Removed when the program is over.
    _fifo: Fifo,
}

impl Output {
    pub(crate) fn new(mut fifo: Fifo) -> std::io::Result<Self> {
        Ok(Self {
            pipe: fifo.reader()?,
            buffer: BytesMut::new(),
            _fifo: fifo,
        })
    }

    /// The next piece; never ends by itself, because this process could write too.
    async fn next(&mut self) -> std::io::Result<Frame> {
        self.buffer.reserve(PIECE);
        self.pipe.read_buf(&mut self.buffer).await?;
        Ok(Frame::Stdout(self.buffer.split().freeze()))
    }

    /// What is in the FIFO now. Asks the system itself: what the runtime knows of it may be late.
    fn rest(&mut self) -> std::io::Result<Option<Frame>> {
        let mut piece = vec![0; PIECE];
        loop {
            match rustix::io::read(self.pipe.as_fd(), &mut piece[..]) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Ok(count) => {
                    piece.truncate(count);
                    return Ok(Some(Frame::Stdout(piece.into())));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<P: Process> Piped<P> {
    pub(crate) fn new(
        process: P,
        program: PgProgram,
        output: Option<Output>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            process,
            program,
            output,
            ended: false,
            shared,
        }
    }

    fn broken(&self, source: std::io::Error) -> ExecError {
        ExecError::Spawn {
            operation: "reading",
            program: self.program,
            source,
        }
    }
}

#[async_trait]
impl<P: Process> Process for Piped<P> {
    async fn next(&mut self) -> Result<Option<Frame>, ExecError> {
        let Some(output) = &mut self.output else {
            return match self.process.next().await {
                Ok(frame) => Ok(frame),
                Err(error) => Err(self.shared.explain(error).await),
            };
        };
        while !self.ended {
            let frame = tokio::select! {
                piece = output.next() => {
                    return piece.map(Some).map_err(|source| ExecError::Spawn {
                        operation: "reading",
                        program: self.program,
                        source,
                    });
                }
                frame = self.process.next() => frame,
            };
            match frame {
                // The program's own words go into the FIFO: these are of the engine or the shell.
                Ok(Some(Frame::Stdout(piece) | Frame::Stderr(piece))) => {
                    return Ok(Some(Frame::Stderr(piece)));
                }
                Ok(None) => self.ended = true,
                Err(error) => return Err(self.shared.explain(error).await),
            }
        }
        // All that it wrote is in the FIFO by now, if it ended; whether it did, its status tells.
        output.rest().map_err(|source| self.broken(source))
    }

    async fn exit(&mut self) -> Result<Option<ProgramExit>, ExecError> {
        match self.process.exit().await {
            Ok(None) => {
                let late = match &mut self.output {
                    Some(output) => output.rest().map_err(|source| self.broken(source))?,
                    None => None,
                };
                // Its streams were cut off before it ended, so more may have been missed.
                if late.is_some() {
                    return Err(ExecError::ExitUnknown {
                        program: self.program,
                        reason: "it wrote more after the engine had told its end".to_owned(),
                    });
                }
                Ok(None)
            }
            Ok(Some(exit)) => match self.shared.server_gone().await {
                Some(gone) => Err(gone),
                None => Ok(Some(exit)),
            },
            Err(error) => Err(self.shared.explain(error).await),
        }
    }

    async fn terminate(&mut self, stderr: &mut StderrLog) {
        self.process.terminate(stderr).await;
    }

    async fn diagnose(&mut self) -> Option<String> {
        match self.shared.server_gone().await {
            Some(gone) => Some(gone.to_string()),
            None => self.process.diagnose().await,
        }
    }

    fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.process.take_input()
    }
}
