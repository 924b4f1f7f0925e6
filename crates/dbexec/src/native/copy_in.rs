//! Rows into the server.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::wire::{HEADER, Sent, broken};
use super::{NativeError, NativeSession, message};

/// Rows that are gathered before a message is sent.
const GATHER: usize = 256 * 1024;
/// Rows of one message at most.
const MAX_FRAME: usize = 1 << 20;

/// What a COPY says that takes no more rows.
const LEFT: &str = "the COPY failed or was left before";

/// A `COPY … FROM STDIN` that waits for rows. Dropping it before [`CopyIn::finish`] or
/// [`CopyIn::abort`] makes the session unusable; the server then rolls back.
#[derive(Debug)]
pub struct CopyIn<'a> {
    session: &'a mut NativeSession,
    /// Rows that are being gathered.
    pending: Vec<u8>,
    /// Whether the last message was written to its end, and no error came.
    open: bool,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(session: &'a mut NativeSession) -> Self {
        Self {
            session,
            pending: Vec::with_capacity(GATHER),
            open: true,
        }
    }

    /// Sends row bytes; they may begin and end anywhere. Small pieces are gathered.
    ///
    /// # Errors
    /// [`NativeError::Server`] as soon as the server refuses the rows; the session can go on after
    /// it. Anything else is the session's end.
    pub async fn send(&mut self, rows: &[u8]) -> Result<(), NativeError> {
        if self.pending.len() + rows.len() <= GATHER {
            self.pending.extend_from_slice(rows);
            return Ok(());
        }
        self.send_pending().await?;
        let whole = rows.len() - rows.len() % GATHER;
        for piece in rows[..whole].chunks(MAX_FRAME) {
            self.write(&header(piece.len()), piece).await?;
        }
        self.pending.extend_from_slice(&rows[whole..]);
        Ok(())
    }

    async fn send_pending(&mut self) -> Result<(), NativeError> {
        if !self.pending.is_empty() {
            let rows = std::mem::take(&mut self.pending);
            self.write(&header(rows.len()), &rows).await?;
            self.pending = rows;
            self.pending.clear();
        }
        Ok(())
    }

    /// Writes one message and hears what the server says meanwhile.
    async fn write(&mut self, head: &[u8], body: &[u8]) -> Result<(), NativeError> {
        if !std::mem::take(&mut self.open) {
            return Err(NativeError::Over {
                reason: LEFT.to_owned(),
            });
        }
        for (part, after) in [(head, body), (body, &[][..])] {
            let mut rest = part;
            while !rest.is_empty() {
                match self.session.wire.write_and_listen(rest).await {
                    Ok(Sent::All) => break,
                    Ok(Sent::Interrupted(written)) => rest = &rest[written..],
                    Err(error) => return self.session.heard(Err(error)).await,
                }
                let begun = rest.len() < part.len() || after.is_empty();
                let unsent = if begun { [rest, after] } else { [&[][..]; 2] };
                self.hear(unsent).await?;
            }
        }
        self.open = true;
        Ok(())
    }

    /// Writes the message that ends the rows. What the server says when all of it is written may be
    /// its answer already, and is left to be read.
    async fn write_last(&mut self, mut message: &[u8]) -> Result<(), NativeError> {
        if !std::mem::take(&mut self.open) {
            return Err(NativeError::Over {
                reason: LEFT.to_owned(),
            });
        }
        while !message.is_empty() {
            match self.session.wire.write_and_listen(message).await {
                Ok(Sent::All) => break,
                Ok(Sent::Interrupted(written)) => message = &message[written..],
                Err(error) => return self.session.heard(Err(error)).await,
            }
            if !message.is_empty() {
                self.hear([message, &[]]).await?;
            }
        }
        Ok(())
    }

    /// Takes one message of the server. After an error the server wants no more rows, but it drops
    /// a message only as a whole: what was begun has to be sent to its end.
    async fn hear(&mut self, unsent: [&[u8]; 2]) -> Result<(), NativeError> {
        let Some(message) = self.session.wire.take()? else {
            return Ok(());
        };
        match message.kind {
            b'E' => {
                for part in unsent {
                    // Where this fails, the server is gone, and its error says why.
                    let _ = self.session.wire.write(part).await;
                }
                let _ = self.session.wire.flush().await;
                let error = message::error(&message.body);
                Err(self.session.recover(error).await)
            }
            _ if self.session.told(&message) => Ok(()),
            kind => Err(self.session.unexpected(kind)),
        }
    }

    /// Ends the rows, waits for all statements and returns the number of rows that the server
    /// tells.
    ///
    /// # Errors
    /// As [`CopyIn::send`].
    pub async fn finish(mut self) -> Result<u64, NativeError> {
        self.send_pending().await?;
        let mut done = BytesMut::new();
        frontend::copy_done(&mut done);
        self.write_last(&done).await?;
        let sent = self.session.wire.flush().await;
        self.session.heard(sent).await?;
        let mut rows = None;
        loop {
            let message = self.session.next().await?;
            match message.kind {
                b'C' if rows.is_none() => rows = message::copied(&message.body),
                b'C' | b'T' | b'D' | b'I' => {}
                b'Z' => {
                    self.session.ready();
                    return rows.ok_or_else(|| {
                        NativeError::protocol("the end of a COPY that does not tell its rows")
                    });
                }
                kind => return Err(self.session.unexpected(kind)),
            }
        }
    }

    /// Gives up: the server rolls the COPY back. The session can go on.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn abort(mut self, reason: &str) -> Result<(), NativeError> {
        let reason = reason.replace('\0', " ");
        let mut fail = BytesMut::new();
        frontend::copy_fail(&reason, &mut fail).map_err(|source| broken("writing", source))?;
        let ended = async {
            self.write(&fail, &[]).await?;
            let sent = self.session.wire.flush().await;
            self.session.heard(sent).await?;
            loop {
                let message = self.session.next().await?;
                if message.kind == b'Z' {
                    self.session.ready();
                    return Ok(());
                }
            }
        };
        match ended.await {
            // That is the answer to it, or an error that came before it.
            Err(NativeError::Server { severity, .. }) if &*severity == "ERROR" => Ok(()),
            ended => ended,
        }
    }
}

/// Header of a message of rows.
fn header(length: usize) -> [u8; HEADER] {
    // At most MAX_FRAME.
    let [a, b, c, d] = u32::try_from(length + 4).unwrap_or(u32::MAX).to_be_bytes();
    [b'd', a, b, c, d]
}
