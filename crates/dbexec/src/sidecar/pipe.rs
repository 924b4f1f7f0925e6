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

use super::spool::Fifo;
use crate::executor::drive::Process;
use crate::executor::stderr::StderrLog;
use crate::executor::{ExecError, PgProgram, ProgramExit};
use crate::runtime::Frame;

/// Bytes of one piece.
const PIECE: usize = 128 * 1024;

/// Tells what is gone when a program failed.
#[async_trait]
pub(crate) trait Judge: Send + Sync {
    /// The failure that the server's container is gone, if it is.
    async fn server_gone(&self) -> Option<ExecError>;
    /// Tells a server that is gone from a sidecar that is gone.
    async fn explain(&self, error: ExecError) -> ExecError;
}

/// A program in a sidecar.
pub(crate) struct Piped<P> {
    process: P,
    program: PgProgram,
    output: Option<Output>,
    /// The engine's streams ended: the program did, or its container, or the connection.
    ended: bool,
    judge: Arc<dyn Judge>,
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
        judge: Arc<dyn Judge>,
    ) -> Self {
        Self {
            process,
            program,
            output,
            ended: false,
            judge,
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
                Err(error) => Err(self.judge.explain(error).await),
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
                Err(error) => return Err(self.judge.explain(error).await),
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
            Ok(Some(exit)) => match self.judge.server_gone().await {
                Some(gone) => Err(gone),
                None => Ok(Some(exit)),
            },
            Err(error) => Err(self.judge.explain(error).await),
        }
    }

    async fn terminate(&mut self, stderr: &mut StderrLog) {
        self.process.terminate(stderr).await;
    }

    async fn diagnose(&mut self) -> Option<String> {
        match self.judge.server_gone().await {
            Some(gone) => Some(gone.to_string()),
            None => self.process.diagnose().await,
        }
    }

    fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.process.take_input()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::sidecar::spool::Spool;

    /// Frames of the engine, then an exit status; writes into the FIFO in between.
    struct Fake {
        steps: VecDeque<Step>,
        writer: std::fs::File,
        /// Written after the streams ended and before the status is told.
        late: Option<&'static [u8]>,
        exit: Option<ProgramExit>,
    }

    enum Step {
        Say(&'static [u8]),
        Write(&'static [u8]),
    }

    #[async_trait]
    impl Process for Fake {
        async fn next(&mut self) -> Result<Option<Frame>, ExecError> {
            loop {
                match self.steps.pop_front() {
                    Some(Step::Say(words)) => return Ok(Some(Frame::Stdout(words.into()))),
                    Some(Step::Write(bytes)) => self.writer.write_all(bytes).unwrap(),
                    None => return Ok(None),
                }
            }
        }
        async fn exit(&mut self) -> Result<Option<ProgramExit>, ExecError> {
            if let Some(bytes) = self.late.take() {
                self.writer.write_all(bytes).unwrap();
            }
            Ok(self.exit)
        }
        async fn terminate(&mut self, _stderr: &mut StderrLog) {}
        async fn diagnose(&mut self) -> Option<String> {
            None
        }
        fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
            None
        }
    }

    /// The server is there, or is not.
    struct Verdict(bool);

    #[async_trait]
    impl Judge for Verdict {
        async fn server_gone(&self) -> Option<ExecError> {
            self.0.then(|| ExecError::ContainerChanged {
                name: "s".to_owned(),
                id: "1".to_owned(),
                found: "gone".to_owned(),
            })
        }
        async fn explain(&self, error: ExecError) -> ExecError {
            self.server_gone().await.unwrap_or(error)
        }
    }

    fn piped(
        spool: &Spool,
        steps: impl IntoIterator<Item = Step>,
        late: Option<&'static [u8]>,
        exit: Option<ProgramExit>,
        gone: bool,
    ) -> Piped<Fake> {
        let fifo = spool.fifo().unwrap();
        let name = fifo.inside.rsplit('/').next().unwrap();
        let path = spool.work().join(name);
        let writer = OpenOptions::new().write(true).open(path).unwrap();
        let process = Fake {
            steps: steps.into_iter().collect(),
            writer,
            late,
            exit,
        };
        let output = Output::new(fifo).unwrap();
        Piped::new(
            process,
            PgProgram::PgDump,
            Some(output),
            Arc::new(Verdict(gone)),
        )
    }

    async fn all(piped: &mut Piped<Fake>) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(frame) = piped.next().await.unwrap() {
            match frame {
                Frame::Stdout(piece) => out.extend_from_slice(&piece),
                Frame::Stderr(piece) => err.extend_from_slice(&piece),
            }
        }
        (out, err)
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read_to_its_last_byte() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::create(root.path()).unwrap();
        let big: &'static [u8] = vec![7_u8; 60_000].leak();
        let steps = [Step::Write(b"a"), Step::Say(b"words"), Step::Write(big)];
        let mut piped = piped(&spool, steps, None, None, false);
        let (out, err) = all(&mut piped).await;
        assert_eq!((out.len(), err.as_slice()), (60_001, &b"words"[..]));
        assert_eq!(piped.exit().await.unwrap(), None);
        drop(piped);
        assert_eq!(std::fs::read_dir(spool.work()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn bar_13_streams_that_were_cut_off_are_never_an_end() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::create(root.path()).unwrap();
        let late = Some(&b"the rest"[..]);
        let mut piped = piped(&spool, [Step::Write(b"begin")], late, None, false);
        assert_eq!(all(&mut piped).await.0, b"begin");
        let error = piped.exit().await.unwrap_err();
        assert!(matches!(error, ExecError::ExitUnknown { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_failure_is_the_servers_when_its_container_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::create(root.path()).unwrap();
        let exit = Some(ProgramExit::Code(1));
        let mut alone = piped(&spool, [], None, exit, false);
        assert_eq!(alone.exit().await.unwrap(), exit);
        let mut gone = piped(&spool, [], None, exit, true);
        let error = gone.exit().await.unwrap_err();
        assert!(
            matches!(error, ExecError::ContainerChanged { .. }),
            "{error}"
        );
    }
}
