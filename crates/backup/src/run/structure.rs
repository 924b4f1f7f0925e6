//! The structure of an archive, read along while it is stored: exit status 0 and a clean end of
//! the stream do not prove that the last bytes arrived, the archive's own end does.

use archive::{ArchiveError, CheckOptions};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stream::PieceReader;

/// A reader of an archive on a thread of its own.
pub(crate) struct Structure {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<(), ArchiveError>>,
}

impl Structure {
    pub(crate) fn start() -> Self {
        let (pieces, reader) = PieceReader::new();
        let thread = tokio::task::spawn_blocking(move || {
            archive::check_custom(reader, &CheckOptions::default()).map(|_| ())
        });
        Self { pieces, thread }
    }

    /// Hands over a piece; one that has found a fault reads no further.
    pub(crate) async fn push(&self, piece: Bytes) {
        let _ = self.pieces.send(piece).await;
    }

    /// Tells whether the archive was whole, in words when it was not. A format version that is
    /// newer than this program cannot be judged here; the target's pg_restore judges it then.
    pub(crate) async fn finish(self) -> Result<(), String> {
        drop(self.pieces);
        match self.thread.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ArchiveError::Unsupported { problem })) => {
                tracing::warn!(%problem, "the structure of the archive was not checked");
                Ok(())
            }
            Ok(Err(error)) => Err(super::chain(&error)),
            Err(panic) => Err(panic.to_string()),
        }
    }
}
