//! Cancelling a statement from elsewhere.

use std::time::Duration;

use postgres_protocol::message::frontend;

use super::NativeError;
use super::dial::Dialer;
use super::wire::Wire;

/// How long a request may take.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// Asks the server to cancel what a session is doing, over a connection of its own.
#[derive(Clone)]
pub struct Canceller {
    dialer: Dialer,
    pid: i32,
    secret: i32,
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").field("pid", &self.pid).finish()
    }
}

impl Canceller {
    pub(super) fn new(dialer: Dialer, pid: i32, secret: i32) -> Self {
        Self {
            dialer,
            pid,
            secret,
        }
    }

    /// Sends the request; bounded to 5 s. The session then gets error 57014, or nothing when it was
    /// done before.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn cancel(&self) -> Result<(), NativeError> {
        let asking = async {
            let mut wire = Wire::new(self.dialer.dial().await?.stream);
            frontend::cancel_request(self.pid, self.secret, &mut wire.output);
            wire.flush().await?;
            // The server closes the connection when it has passed the request on.
            while wire.fill().await.is_ok() {
                wire.input.clear();
            }
            Ok(())
        };
        match tokio::time::timeout(CANCEL_WAIT, asking).await {
            Ok(asked) => asked,
            Err(_) => Err(self.dialer.unreachable("no answer to a request to cancel")),
        }
    }
}
