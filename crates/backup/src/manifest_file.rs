//! The manifest as a stored file, written and read while it passes: that of 100,000 tables is 25 MB
//! of text, which is never in memory as a whole.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::{Store, StoreError};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::attest::without_tables;
use crate::stream::PieceReader;
use crate::{BackupError, BackupId, Manifest, manifest};

/// Largest manifest that is read, bytes.
const MAX: u64 = 256 << 20;
/// Bytes that are read or written at once.
const PIECE: usize = 128 << 10;

/// A manifest that was read to its last byte.
pub(crate) struct Stored {
    /// SHA-256 of its bytes, lower-case hex.
    pub(crate) sha256: String,
    /// What it says, or why it is of no use.
    pub(crate) manifest: Result<Manifest, String>,
}

/// Reads the manifest of a backup.
///
/// # Errors
/// When its bytes cannot be read, in words.
pub(crate) async fn read(store: &dyn Store, id: &BackupId) -> Result<Stored, String> {
    read_to(store, id, Depth::Whole).await
}

/// How much of a manifest is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything.
    Whole,
    /// All but the tables of its attestations.
    WithoutTables,
}

/// As [`read`], with less in memory.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_to(
    store: &dyn Store,
    id: &BackupId,
    depth: Depth,
) -> Result<Stored, String> {
    let (sha256, parsed) = parse::<Manifest>(store, id, depth).await?;
    let manifest = match parsed {
        Ok(manifest) => accept(id, manifest),
        // Everything but the version may look different in a newer format.
        Err(problem) => match parse::<Version>(store, id, depth).await?.1 {
            Ok(version) => known(version.format_version).and(Err(problem)),
            Err(_) => Err(problem),
        },
    };
    Ok(Stored { sha256, manifest })
}

/// Reads the manifest of a backup, which was accepted before, as something smaller.
///
/// # Errors
/// As [`read`], or what is not as it is wanted.
pub(crate) async fn view<T: serde::de::DeserializeOwned + Send + 'static>(
    store: &dyn Store,
    id: &BackupId,
) -> Result<T, String> {
    parse::<T>(store, id, Depth::Whole).await?.1
}

#[derive(serde::Deserialize)]
struct Version {
    format_version: u32,
}

fn known(version: u32) -> Result<(), String> {
    if version > manifest::FORMAT_VERSION {
        return Err(format!(
            "it has format {version}, and this program reads formats up to {}: use a newer pgstow",
            manifest::FORMAT_VERSION
        ));
    }
    Ok(())
}

/// Refuses a manifest that belongs elsewhere, or that names what must not be touched.
fn accept(id: &BackupId, manifest: Manifest) -> Result<Manifest, String> {
    known(manifest.format_version)?;
    if manifest.id != *id {
        return Err(format!(
            "{} belongs to backup {}",
            manifest::FILE_NAME,
            manifest.id
        ));
    }
    let mut names = BTreeSet::new();
    for file in manifest.files() {
        storage::check_name(&file.name).map_err(|error| error.to_string())?;
        if !names.insert(file.name.as_str()) {
            return Err(format!("it names {} twice", file.name));
        }
    }
    Ok(manifest)
}

/// The hash of the stored manifest, and what was parsed.
async fn parse<T: serde::de::DeserializeOwned + Send + 'static>(
    store: &dyn Store,
    id: &BackupId,
    depth: Depth,
) -> Result<(String, Result<T, String>), String> {
    let name = format!("{id}/{}", manifest::FILE_NAME);
    let mut stored = store.open(&name).await.map_err(|error| error.to_string())?;
    let (pieces, reader) = PieceReader::new();
    let thread = tokio::task::spawn_blocking(move || match depth {
        Depth::Whole => parse_hashed(reader),
        Depth::WithoutTables => without_tables(|| parse_hashed(reader)),
    });
    let mut total = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = stored.read_buf(&mut piece).await;
        total += read.map_err(|error| format!("{name} cannot be read: {error}"))? as u64;
        if total > MAX {
            return Err(format!("{name} is larger than {MAX} bytes"));
        }
        if piece.is_empty() || pieces.send(Bytes::from(piece)).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let done = thread.await.map_err(|panic| panic.to_string())?;
    let (sha256, parsed) = done.map_err(|error| format!("{name} cannot be read: {error}"))?;
    let parsed = parsed.map_err(|error| format!("{}: {error}", manifest::FILE_NAME));
    Ok((sha256, parsed))
}

fn parse_hashed<T: serde::de::DeserializeOwned>(
    reader: PieceReader,
) -> io::Result<(String, serde_json::Result<T>)> {
    let mut hashed = Hashed {
        inner: reader,
        hash: Sha256::new(),
    };
    // Given away, not lent: only then is a byte read without two calls.
    let parsed = serde_json::from_reader(BufReader::with_capacity(PIECE, &mut hashed));
    // The hash is of all bytes, also where parsing stopped before.
    io::copy(&mut hashed, &mut io::sink())?;
    Ok((hex::encode(hashed.hash.finalize()), parsed))
}

struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a manifest's bytes; their SHA-256.
fn write(manifest: &Manifest, output: impl Write) -> io::Result<String> {
    let hashed = Hashed {
        inner: output,
        hash: Sha256::new(),
    };
    // Single bytes would be hashed one by one.
    let mut buffered = io::BufWriter::with_capacity(PIECE, hashed);
    serde_json::to_writer_pretty(&mut buffered, manifest)?;
    buffered.write_all(b"\n")?;
    let mut hashed = buffered.into_inner()?;
    hashed.flush()?;
    Ok(hex::encode(hashed.hash.finalize()))
}

/// SHA-256 of the bytes that [`put`] will write.
pub(crate) async fn hash(manifest: &Arc<Manifest>) -> Result<String, BackupError> {
    let shared = Arc::clone(manifest);
    let hashed = tokio::task::spawn_blocking(move || write(&shared, io::sink())).await;
    made(manifest, hashed)
}

/// Stores a manifest, whose hash has to be the one that was told before.
pub(crate) async fn put(
    store: &dyn Store,
    manifest: &Arc<Manifest>,
    sha256: &str,
) -> Result<(), BackupError> {
    let stored = |source| BackupError::Store {
        operation: format!("writing {}", manifest::FILE_NAME),
        source,
    };
    let name = format!("{}/{}", manifest.id, manifest::FILE_NAME);
    let mut writer = store.create(&name).await.map_err(stored)?;
    let (pieces, mut written) = mpsc::channel::<Bytes>(2);
    let shared = Arc::clone(manifest);
    let thread = tokio::task::spawn_blocking(move || write(&shared, Pieces(pieces)));
    let result = async {
        while let Some(piece) = written.recv().await {
            writer.write(&piece).await.map_err(stored)?;
        }
        let again = made(manifest, thread.await)?;
        if again == sha256 {
            return Ok(());
        }
        Err(BackupError::Manifest {
            id: manifest.id.to_string(),
            problem: "it was not written in the same way twice".to_owned(),
        })
    }
    .await;
    match result {
        Ok(()) => writer.commit().await.map(drop).map_err(stored),
        Err(error) => {
            if let Err(left) = writer.abort().await {
                tracing::warn!(%left, "a partial file could not be removed");
            }
            Err(error)
        }
    }
}

/// What a thread made, or why it could not.
fn made(
    manifest: &Manifest,
    done: Result<io::Result<String>, tokio::task::JoinError>,
) -> Result<String, BackupError> {
    let problem = match done {
        Ok(Ok(hash)) => return Ok(hash),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    Err(BackupError::Manifest {
        id: manifest.id.to_string(),
        problem,
    })
}

/// Stores a small text.
pub(crate) async fn put_text(store: &dyn Store, name: &str, text: &[u8]) -> Result<(), StoreError> {
    let mut writer = store.create(name).await?;
    if let Err(error) = writer.write(text).await {
        if let Err(left) = writer.abort().await {
            tracing::warn!(%left, "a partial file could not be removed");
        }
        return Err(error);
    }
    writer.commit().await.map(drop)
}

/// The writing end of a channel.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
