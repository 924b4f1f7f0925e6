//! The structure of an archive, read along while it is stored: exit status 0 and a clean end of
//! the stream do not prove that the last bytes arrived, the archive's own end does. What it holds
//! is counted and fingerprinted on the way.

use archive::ArchiveError;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::attest::{Contents, Wanted};
use crate::stream::PieceReader;

/// What is read along.
#[derive(Debug, Clone)]
pub(crate) enum Along {
    /// A custom archive, and what is to be found out beside.
    Custom(Wanted),
    /// A script of pg_dump.
    Plain,
}

/// A reader of an archive on a thread of its own.
pub(crate) struct Structure {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<Contents, ArchiveError>>,
}

impl Structure {
    pub(crate) fn start(along: Along) -> Self {
        let (pieces, reader) = PieceReader::new();
        let thread = tokio::task::spawn_blocking(move || match along {
            Along::Custom(wanted) => wanted
                .read(|options, each| archive::check_custom_each(reader, options, each))
                .map(Contents::Archive),
            Along::Plain => archive::check_plain(reader).map(Contents::Script),
        });
        Self { pieces, thread }
    }

    /// Hands over a piece; one that has found a fault reads no further.
    pub(crate) async fn push(&self, piece: Bytes) {
        let _ = self.pieces.send(piece).await;
    }

    /// What the archive holds when it is whole, in words what is wrong when it is not. `None` for
    /// a format version that is newer than this program and cannot be judged here.
    pub(crate) async fn finish(self) -> Result<Option<Contents>, String> {
        drop(self.pieces);
        match self.thread.await {
            Ok(Ok(contents)) => Ok(Some(contents)),
            Ok(Err(ArchiveError::Unsupported { problem })) => {
                tracing::warn!(%problem, "the structure of the archive was not checked");
                Ok(None)
            }
            Ok(Err(error)) => Err(super::chain(&error)),
            Err(panic) => Err(panic.to_string()),
        }
    }
}
