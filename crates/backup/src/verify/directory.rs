//! A stored directory archive, decoded and hashed in one pass over each of its files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage::{Store, StoreError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pass::{Passed, pass};
use crate::attest::{Contents, Wanted};
use crate::stream::PieceReader;
use crate::{BackupError, BackupId};

/// How often progress is looked at.
const EVERY: Duration = Duration::from_millis(100);

type Pass = JoinHandle<Result<Result<Passed, String>, BackupError>>;

/// What was found in a directory archive.
pub(crate) struct Found {
    /// Its contents, or what is wrong with them, in words.
    pub(crate) contents: Result<Contents, String>,
    /// Each file that was read, by its name in the directory.
    pub(crate) files: BTreeMap<String, Result<Passed, String>>,
}

/// Where the files of one archive are, and those that were opened.
struct Files {
    store: Arc<dyn Store>,
    /// `ID/stem.dir`.
    prefix: String,
    /// Names that the manifest knows; no other file is part of the archive.
    known: BTreeSet<String>,
    runtime: tokio::runtime::Handle,
    bytes: Arc<AtomicU64>,
    cancel: CancellationToken,
    passes: Mutex<Vec<(String, Pass)>>,
}

impl Files {
    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        if !self.known.contains(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let stored = format!("{}/{name}", self.prefix);
        let stream =
            self.runtime
                .block_on(self.store.open(&stored))
                .map_err(|error| match error {
                    StoreError::NotFound { .. } => io::Error::from(io::ErrorKind::NotFound),
                    error => io::Error::other(error),
                })?;
        let (pieces, reader) = PieceReader::new();
        let (bytes, cancel) = (Arc::clone(&self.bytes), self.cancel.clone());
        let task = self.runtime.spawn(async move {
            let mut seen = |count| {
                bytes.fetch_add(count, Ordering::Relaxed);
            };
            pass(stream, &stored, Some(pieces), &mut seen, &cancel).await
        });
        self.passes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), task));
        Ok(Box::new(reader))
    }
}

/// Decodes the directory archive `dir` of a backup, whose files have the names `known`.
pub(crate) async fn decode(
    store: &Arc<dyn Store>,
    id: &BackupId,
    dir: &str,
    known: BTreeSet<String>,
    wanted: Wanted,
    progress: &mut (dyn FnMut(u64) + Send),
    cancel: &CancellationToken,
) -> Result<Found, BackupError> {
    let files = Arc::new(Files {
        store: Arc::clone(store),
        prefix: format!("{id}/{dir}"),
        known,
        runtime: tokio::runtime::Handle::current(),
        bytes: Arc::default(),
        cancel: cancel.clone(),
        passes: Mutex::default(),
    });
    let reading = Arc::clone(&files);
    let mut decoder = tokio::task::spawn_blocking(move || {
        let toc = reading.open("toc.dat").map_err(|error| error.to_string())?;
        wanted
            .read(|options, each| {
                archive::check_directory_each(toc, |name| reading.open(name), options, each)
            })
            .map(Contents::Archive)
            .map_err(|error| crate::run::chain(&error))
    });
    let mut told = 0;
    let mut tell = |told: &mut u64| {
        let now = files.bytes.load(Ordering::Relaxed);
        progress(now - *told);
        *told = now;
    };
    let contents = loop {
        tokio::select! {
            decoded = &mut decoder => {
                break decoded.unwrap_or_else(|panic| Err(panic.to_string()));
            }
            () = tokio::time::sleep(EVERY) => tell(&mut told),
        }
    };
    let passes = std::mem::take(&mut *files.passes.lock().unwrap_or_else(PoisonError::into_inner));
    let mut read = BTreeMap::new();
    for (name, task) in passes {
        let passed = task
            .await
            .unwrap_or_else(|panic| Ok(Err(panic.to_string())))?;
        read.insert(name, passed);
    }
    tell(&mut told);
    Ok(Found {
        contents,
        files: read,
    })
}
