//! Streams on their way into and out of the store: hashed by a thread of their own while they
//! are written or read, so that transport, hashing and disk overlap; memory stays constant.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::{Store, StoreError, StoreWriter};
use tokio::io::{AsyncRead, ReadBuf};
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

/// What a [`HashingReader`] has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    hash: Sha256,
    /// Bytes read so far.
    pub(crate) bytes: u64,
    /// Whether the end of the stream was reached.
    pub(crate) ended: bool,
}

impl Seen {
    /// Digest of what was read so far, lower-case hex.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

/// Hashes what is read through it.
pub(crate) struct HashingReader {
    inner: Pin<Box<dyn AsyncRead + Send>>,
    seen: Arc<Mutex<Seen>>,
}

impl HashingReader {
    /// Wraps a reader; the second value tells what was read, also after the reader is gone.
    pub(crate) fn new(inner: Pin<Box<dyn AsyncRead + Send>>) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::default();
        let reader = Self {
            inner,
            seen: Arc::clone(&seen),
        };
        (reader, seen)
    }
}

impl AsyncRead for HashingReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        let read = self.inner.as_mut().poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let new = &buf.filled()[before..];
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.hash.update(new);
            seen.bytes += new.len() as u64;
            seen.ended |= new.is_empty() && room > 0;
        }
        read
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
