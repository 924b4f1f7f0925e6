//! Streams on their way into and out of the store: hashed by a thread of their own while they
//! are written or read, so that transport, hashing and disk overlap; memory stays constant.

use std::io;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::{Store, StoreError, StoreWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::manifest::StoredFile;

/// Size of one piece, bytes.
pub(crate) const PIECE: usize = 1 << 20;
/// Pieces that wait for the hash.
const WAITING: usize = 2;

/// SHA-256 on a thread of its own.
pub(crate) struct Hasher {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<String>,
}

impl Hasher {
    pub(crate) fn start() -> Self {
        let (pieces, mut receiver) = mpsc::channel::<Bytes>(WAITING);
        let thread = tokio::task::spawn_blocking(move || {
            let mut hash = Sha256::new();
            while let Some(piece) = receiver.blocking_recv() {
                hash.update(&piece);
            }
            hex::encode(hash.finalize())
        });
        Self { pieces, thread }
    }

    pub(crate) async fn update(&self, piece: Bytes) {
        // The thread ends only when the channel does; a panic there shows in `finish`.
        let _ = self.pieces.send(piece).await;
    }

    /// The digest, lower-case hex.
    pub(crate) async fn finish(self) -> io::Result<String> {
        drop(self.pieces);
        self.thread.await.map_err(io::Error::other)
    }
}

/// A stored file being written.
pub(crate) struct HashedWriter {
    writer: Box<dyn StoreWriter>,
    hasher: Hasher,
    bytes: u64,
    /// Name relative to the backup's directory.
    name: String,
}

impl HashedWriter {
    /// Begins the file `name` in the directory `dir` of the store.
    pub(crate) async fn create(
        store: &dyn Store,
        dir: &str,
        name: &str,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            writer: store.create(&format!("{dir}/{name}")).await?,
            hasher: Hasher::start(),
            bytes: 0,
            name: name.to_owned(),
        })
    }

    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.bytes += piece.len() as u64;
        self.hasher.update(piece.clone()).await;
        self.writer.write(&piece).await
    }

    pub(crate) async fn commit(self, store: &dyn Store) -> Result<StoredFile, StoreError> {
        let broken = |source| StoreError::Io {
            operation: "hashing",
            name: self.name.clone(),
            store: store.describe(),
            source,
        };
        let sha256 = match self.hasher.finish().await {
            Ok(sha256) => sha256,
            Err(source) => {
                let error = broken(source);
                self.writer.abort().await?;
                return Err(error);
            }
        };
        let stored = self.writer.commit().await?;
        if stored != self.bytes {
            return Err(broken(io::Error::other(format!(
                "{stored} bytes were stored of {}",
                self.bytes
            ))));
        }
        Ok(StoredFile {
            name: self.name,
            bytes: stored,
            sha256,
        })
    }

    pub(crate) async fn abort(self) -> Result<(), StoreError> {
        self.writer.abort().await
    }
}

/// The blocking end of a channel of pieces, for readers that are not async.
pub(crate) struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl PieceReader {
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(WAITING);
        let reader = Self {
            pieces,
            now: Bytes::new(),
        };
        (sender, reader)
    }
}

impl io::Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.now = piece,
                None => return Ok(0),
            }
        }
        let taken = self.now.split_to(buf.len().min(self.now.len()));
        buf[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}
