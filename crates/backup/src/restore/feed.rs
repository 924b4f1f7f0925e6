//! The bytes of a source on their way to a program: what is read has to be, byte for byte, what
//! was checked.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use dbexec::{
    PgExecutor,
    executor::{Input, ScratchDir},
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    check::Fingerprint,
    fill::exec,
    plan::PlannedWork,
    source::{Source, SourcePlace},
};
use crate::BackupError;

/// Size of a piece of a plain dump on its way, bytes.
const PIECE: usize = 256 * 1024;

/// Puts a directory archive that was checked next to the server; returns its path there.
pub(super) async fn upload(
    executor: &dyn PgExecutor,
    work: &PlannedWork,
    scratch: &ScratchDir,
    progress: &Arc<AtomicU64>,
) -> Result<String, BackupError> {
    for (name, fingerprint) in &work.checked.files {
        let content = checked_file(work, name, Arc::clone(progress)).await?;
        put(executor, scratch, name, fingerprint.bytes, content).await?;
    }
    Ok(format!("{}/archive", scratch.path))
}

/// As [`upload`], for a directory archive of a backup, checked against its manifest on the way.
pub(crate) async fn upload_stored(
    executor: &dyn PgExecutor,
    source: &Source,
    scratch: &ScratchDir,
    progress: &Arc<AtomicU64>,
) -> Result<String, BackupError> {
    for name in source.place.names() {
        let bytes = source.place.stored(&name).map_or(0, |file| file.bytes);
        let content = checked_stored(source, &name, Arc::clone(progress)).await?;
        put(executor, scratch, &name, bytes, content).await?;
    }
    Ok(format!("{}/archive", scratch.path))
}

async fn put(
    executor: &dyn PgExecutor,
    scratch: &ScratchDir,
    name: &str,
    bytes: u64,
    content: Pin<Box<dyn AsyncRead + Send>>,
) -> Result<(), BackupError> {
    executor
        .scratch_put(scratch, &format!("archive/{name}"), bytes, content)
        .await
        .map_err(|source| exec(format!("uploading {name} next to the server"), source))
}

/// A file that fails at its end when it is not what was checked.
pub(super) async fn checked_file(
    work: &PlannedWork,
    name: &str,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let expected = work.checked.files.get(name).cloned();
    checked_reader(&work.source.place, name, expected, progress).await
}

/// A file of a backup that fails at its end when it is not what the manifest says.
pub(crate) async fn checked_stored(
    source: &Source,
    name: &str,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let expected = source.place.stored(name).and_then(|file| {
        Some(Fingerprint {
            bytes: file.bytes,
            sha256: hex::decode(&file.sha256).ok()?.try_into().ok()?,
        })
    });
    checked_reader(&source.place, name, expected, progress).await
}

pub(super) async fn checked_reader(
    place: &SourcePlace,
    name: &str,
    expected: Option<Fingerprint>,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    Ok(Box::pin(CheckedReader {
        inner: open(place, name).await?,
        expected,
        hash: Sha256::new(),
        bytes: 0,
        progress,
    }))
}

async fn open(
    place: &SourcePlace,
    name: &str,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    place.open(name).await.map_err(|source| BackupError::File {
        operation: "opening",
        path: match place {
            SourcePlace::Path(path) => path.join(name),
            SourcePlace::Stored { dir, .. } => PathBuf::from(dir).join(name),
        },
        source,
    })
}

/// Compares what is read the second time with what was checked the first time.
struct CheckedReader {
    inner: Pin<Box<dyn AsyncRead + Send>>,
    expected: Option<Fingerprint>,
    hash: Sha256,
    bytes: u64,
    progress: Arc<AtomicU64>,
}

impl AsyncRead for CheckedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        match self.inner.as_mut().poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let new = &buf.filled()[before..];
        self.hash.update(new);
        self.bytes += new.len() as u64;
        self.progress.fetch_add(new.len() as u64, Ordering::Relaxed);
        if new.is_empty() && room > 0 {
            let seen = Fingerprint {
                bytes: self.bytes,
                sha256: self.hash.clone().finalize().into(),
            };
            if self.expected.as_ref() != Some(&seen) {
                return Poll::Ready(Err(io::Error::other(
                    "the source changed between its check and the restore",
                )));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A plain dump as psql gets it: decompressed, its own `\restrict` lines replaced by ours where
/// psql knows them, so that psql itself refuses every command of its own in the script.
pub(super) async fn script(
    work: &PlannedWork,
    progress: Arc<AtomicU64>,
) -> Result<Input, BackupError> {
    let stored = checked_file(work, "", progress).await?;
    let ranges = work
        .checked
        .plain
        .as_ref()
        .map(|plain| plain.restrict_lines.clone())
        .unwrap_or_default();
    let key: String = (0..32)
        .map(|_| char::from(b'a' + rand::random_range(0..26)))
        .collect();
    let around = work.decision.restrict.then(|| {
        (
            format!("\\restrict {key}\n"),
            format!("\n\\unrestrict {key}\n"),
        )
    });
    Ok(Input::Stream(decompressed(stored, ranges, around)))
}

/// A plain dump of a backup, decompressed and otherwise as it is.
pub(crate) async fn plain_stream(
    source: &Source,
    progress: Arc<AtomicU64>,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, BackupError> {
    let stored = checked_stored(source, "", progress).await?;
    Ok(decompressed(stored, Vec::new(), None))
}

/// Decompresses on a thread of its own, leaves ranges out and puts text around.
fn decompressed(
    stored: Pin<Box<dyn AsyncRead + Send>>,
    without: Vec<Range<u64>>,
    around: Option<(String, String)>,
) -> Pin<Box<dyn AsyncRead + Send>> {
    let handle = tokio::runtime::Handle::current();
    let (pieces, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    tokio::task::spawn_blocking(move || {
        let send = |piece: Bytes| {
            pieces
                .blocking_send(Ok(piece))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        };
        let pump = || {
            let (before, after) = around.unwrap_or_default();
            send(Bytes::from(before))?;
            let mut stored = SyncIoBridge::new_with_handle(stored, handle);
            let plain = archive::open_plain(&mut stored)?;
            let mut script = archive::WithoutRanges::new(plain, without);
            let mut piece = vec![0; PIECE];
            loop {
                let read = script.read(&mut piece)?;
                if read == 0 {
                    break;
                }
                send(Bytes::copy_from_slice(&piece[..read]))?;
            }
            drop(script);
            // A decoder may stop before the end of the file; only there the hash is compared.
            io::copy(&mut stored, &mut io::sink())?;
            send(Bytes::from(after))
        };
        if let Err(error) = pump() {
            // A reader that is gone has its own reason already.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Box::pin(StreamReader::new(Box::pin(stream)))
}
