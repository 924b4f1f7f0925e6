//! One pass over one stored file: hashed on one thread, decoded on another while it is read.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::BackupError;
use crate::stream::{Hasher, PIECE};

/// A file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) bytes: u64,
    /// Lower-case hex.
    pub(crate) sha256: String,
}

/// Reads a file to its end. What is wrong with it is the inner error, in words.
///
/// # Errors
/// [`BackupError::Interrupted`], or when hashing itself failed.
pub(crate) async fn pass(
    mut stream: Pin<Box<dyn AsyncRead + Send>>,
    object: &str,
    decoder: Option<mpsc::Sender<Bytes>>,
    seen: &mut (dyn FnMut(u64) + Send),
    cancel: &CancellationToken,
) -> Result<Result<Passed, String>, BackupError> {
    let hasher = Hasher::start();
    let mut bytes = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(BackupError::Interrupted {
                operation: format!("reading {object}"),
            });
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        // Whole pieces: each costs two messages between threads.
        while piece.len() < PIECE {
            match stream.read_buf(&mut piece).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Ok(Err(format!("it cannot be read: {error}"))),
            }
        }
        if piece.is_empty() {
            break;
        }
        bytes += piece.len() as u64;
        seen(piece.len() as u64);
        let piece = piece.freeze();
        hasher.update(piece.clone()).await;
        if let Some(decoder) = &decoder {
            // A decoder that found a fault reads no further; the hash goes on.
            let _ = decoder.send(piece).await;
        }
    }
    let sha256 = hasher.finish().await.map_err(|source| BackupError::Store {
        operation: format!("hashing {object}"),
        source: storage::StoreError::from_io("hashing", object, "memory", source),
    })?;
    Ok(Ok(Passed { bytes, sha256 }))
}
