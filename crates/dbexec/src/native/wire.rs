//! Messages over a connection: buffers, frames, and writing while the server may be writing too.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::NativeError;
use super::stream::Stream;

/// Bytes that one read of the socket may take.
const READ: usize = 256 * 1024;
/// Longest message that is kept in memory whole; COPY rows are not.
const MAX_MESSAGE: usize = 256 << 20;
/// Type byte and length.
pub(super) const HEADER: usize = 5;

/// A message of the server: its type and its body.
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) body: BytesMut,
}

/// A connection with its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// Bytes that were read and not yet looked at.
    pub(super) input: BytesMut,
    /// Messages that were not sent yet.
    pub(super) output: BytesMut,
}

/// What ended a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is written.
    All,
    /// The server said something meanwhile; so many bytes are written.
    Interrupted(usize),
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    /// Reads more, at least one byte.
    pub(super) async fn fill(&mut self) -> Result<(), NativeError> {
        make_room(&mut self.input);
        let read = self.stream.read_buf(&mut self.input).await;
        let read = read.map_err(|source| broken("reading", source))?;
        if read == 0 {
            return Err(closed());
        }
        Ok(())
    }

    /// As [`Wire::fill`]; where nothing is there yet, `pause` holds the thread up once before it is
    /// waited for.
    pub(super) async fn fill_after(&mut self, pause: impl FnOnce()) -> Result<(), NativeError> {
        // The runtime hears what came since it last looked.
        tokio::task::yield_now().await;
        make_room(&mut self.input);
        let Self { stream, input, .. } = self;
        let mut pause = Some(pause);
        let read = poll_fn(|cx| {
            let polled = poll_read_buf(Pin::new(&mut *stream), cx, input);
            if polled.is_pending()
                && let Some(pause) = pause.take()
            {
                pause();
            }
            polled
        });
        match read.await.map_err(|source| broken("reading", source))? {
            0 => Err(closed()),
            _ => Ok(()),
        }
    }

    /// Type and length of the body of the message that is next, where its header is there.
    pub(super) fn header(&self) -> Result<Option<(u8, usize)>, NativeError> {
        header(&self.input)
    }

    /// The next message, where it is there as a whole.
    pub(super) fn take(&mut self) -> Result<Option<Message>, NativeError> {
        let Some((kind, length)) = self.header()? else {
            return Ok(None);
        };
        bounded(length)?;
        if self.input.len() < HEADER + length {
            self.input.reserve(HEADER + length - self.input.len());
            return Ok(None);
        }
        self.input.advance(HEADER);
        let body = self.input.split_to(length);
        Ok(Some(Message { kind, body }))
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Message, NativeError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Sends what is in `output`.
    pub(super) async fn flush(&mut self) -> Result<(), NativeError> {
        let sent = self.stream.write_all(&self.output).await;
        self.output.clear();
        sent.map_err(|source| broken("writing", source))?;
        let flushed = self.stream.flush().await;
        flushed.map_err(|source| broken("writing", source))
    }

    /// Writes bytes, come what may from the server.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), NativeError> {
        let written = self.stream.write_all(bytes).await;
        written.map_err(|source| broken("writing", source))
    }

    /// Writes bytes and reads at the same time, so that a server that has to say something is
    /// heard before both sides' buffers are full. Ends early when `input` holds a whole message;
    /// one that is only begun is not waited for, as the server may want rows first.
    ///
    /// What was read stands in `input` also after an error of the write.
    pub(super) async fn write_and_listen(&mut self, bytes: &[u8]) -> Result<Sent, NativeError> {
        let mut written = 0;
        poll_fn(|cx| {
            loop {
                if self.listen(cx)? {
                    return Poll::Ready(Ok(Sent::Interrupted(written)));
                }
                if written == bytes.len() {
                    return Poll::Ready(Ok(Sent::All));
                }
                match Pin::new(&mut self.stream).poll_write(cx, &bytes[written..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(closed())),
                    Poll::Ready(Ok(more)) => written += more,
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(source)) => {
                        return Poll::Ready(Err(broken("writing", source)));
                    }
                }
            }
        })
        .await
    }

    /// Reads what is there without waiting. Whether a whole message is there.
    fn listen(&mut self, cx: &mut Context<'_>) -> Result<bool, NativeError> {
        loop {
            if let Some((_, length)) = self.header()? {
                bounded(length)?;
                if self.input.len() >= HEADER + length {
                    return Ok(true);
                }
            }
            make_room(&mut self.input);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(closed()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(source)) => return Err(broken("reading", source)),
            }
        }
    }

    /// Ends the connection in an orderly way.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

fn make_room(input: &mut BytesMut) {
    if input.capacity() - input.len() < READ / 4 {
        input.reserve(READ);
    }
}

/// Refuses a message that is too long to be kept in memory.
fn bounded(length: usize) -> Result<(), NativeError> {
    if length > MAX_MESSAGE {
        return Err(NativeError::protocol(format!(
            "a message of {length} bytes"
        )));
    }
    Ok(())
}

/// Type and length of the body of the message at the start of `input`.
pub(super) fn header(input: &[u8]) -> Result<Option<(u8, usize)>, NativeError> {
    let Some((head, _)) = input.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    match usize::try_from(length) {
        Ok(length) if length >= 4 => Ok(Some((head[0], length - 4))),
        _ => Err(NativeError::protocol(format!(
            "a message of length {length}"
        ))),
    }
}

pub(super) fn broken(operation: &'static str, source: io::Error) -> NativeError {
    NativeError::Io { operation, source }
}

/// The other side closed the connection.
pub(super) fn closed() -> NativeError {
    broken(
        "reading",
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_pausing_reader_is_not_woken_for_each_piece() {
        let (mut server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let client = tokio::net::UnixStream::from_std(client).unwrap();
        let mut wire = Wire::new(Stream::Unix(client));
        let mut sent = |part: &[u8]| server.write_all(part).unwrap();
        // Nothing is there: what comes during the pause is read at once.
        let pause = || [b"a", b"b"].into_iter().for_each(|part| sent(part));
        wire.fill_after(pause).await.unwrap();
        assert_eq!(&wire.input[..], b"ab");
        // What is there already is read without a pause, also right after a read that took all.
        for part in [b"c", b"d"] {
            sent(part);
            wire.fill_after(|| panic!("it is there")).await.unwrap();
        }
        assert_eq!(&wire.input[..], b"abcd");
        drop(server);
        wire.fill_after(|| ()).await.unwrap_err();
    }
}
