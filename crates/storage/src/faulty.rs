//! A store that fails where a test tells it to. Two places: [`FaultyStore`] wraps any store and
//! fails whole operations; [`StepFaults`] sits inside the local store and fails its steps on the
//! file system, also the removal of what failed, as a killed process would.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::{Entry, Step, StepHook, Store, StoreError, StoreWriter};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// ENOSPC.
    Full,
    /// EIO.
    Io,
    /// A part of the bytes is written, then EIO.
    Short,
}

impl FaultKind {
    /// The failure as the system reports it.
    #[must_use]
    pub fn error(self) -> io::Error {
        const ENOSPC: i32 = 28;
        const EIO: i32 = 5;
        io::Error::from_raw_os_error(match self {
            Self::Full => ENOSPC,
            Self::Io | Self::Short => EIO,
        })
    }
}

/// Where it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The byte of this number (from 0, over all streams together) cannot be written, nor any
    /// after it.
    AtByte(u64, FaultKind),
    /// The commit of this number (from 0) fails: the fsync did.
    Sync(u64),
    /// The commit of this number (from 0) fails: the rename did.
    Rename(u64),
    /// Nothing happens any more from this operation on (from 0): the process was killed.
    Crash(u64),
}

#[derive(Debug, Default)]
struct Counters {
    bytes: u64,
    commits: u64,
    operations: u64,
}

/// A store that fails at one place.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Fault,
    counters: Arc<Mutex<Counters>>,
}

impl FaultyStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            counters: Arc::default(),
        }
    }

    /// Operations so far: with a fault that never strikes, the number of crash points of a run.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, operation: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::from_io(operation, name, &self.inner.describe(), source)
    }

    fn step(&self, operation: &'static str, name: &str) -> Result<(), StoreError> {
        let mut counters = self.lock();
        let now = counters.operations;
        counters.operations += 1;
        drop(counters);
        match self.fault {
            Fault::Crash(at) if now >= at => {
                Err(self.failed(operation, name, io::Error::other("crashed")))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, name: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        self.step("creating", name)?;
        Ok(Box::new(FaultyWriter {
            inner: Some(self.inner.create(name).await?),
            store: self.clone(),
            name: name.to_owned(),
            failed: false,
        }))
    }

    async fn open(&self, name: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, StoreError> {
        self.step("opening", name)?;
        self.inner.open(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.step("listing", prefix)?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.step("deleting", name)?;
        self.inner.delete(name).await
    }

    async fn remove_leftovers(&self, prefix: &str) -> Result<u64, StoreError> {
        self.step("removing", prefix)?;
        self.inner.remove_leftovers(prefix).await
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.inner.local_path(name)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.inner.free_bytes().await
    }
}

struct FaultyWriter {
    inner: Option<Box<dyn StoreWriter>>,
    store: FaultyStore,
    name: String,
    failed: bool,
}

impl FaultyWriter {
    fn broken(&self) -> StoreError {
        self.store.failed(
            "writing",
            &self.name,
            io::Error::from(io::ErrorKind::BrokenPipe),
        )
    }
}

#[async_trait]
impl StoreWriter for FaultyWriter {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.failed {
            return Err(self.broken());
        }
        let before = {
            let mut counters = self.store.lock();
            let before = counters.bytes;
            counters.bytes += bytes.len() as u64;
            before
        };
        let mut taken = bytes;
        let mut failure = None;
        if let Fault::AtByte(at, kind) = self.store.fault
            && at < before + bytes.len() as u64
        {
            let good = usize::try_from(at.saturating_sub(before)).unwrap_or(0);
            // A short write leaves a part behind; the other kinds leave all that fitted.
            taken = &bytes[..if kind == FaultKind::Short {
                good / 2
            } else {
                good
            }];
            failure = Some(kind.error());
        }
        let Some(inner) = &mut self.inner else {
            return Err(self.broken());
        };
        inner.write(taken).await?;
        match failure {
            None => Ok(()),
            Some(error) => {
                self.failed = true;
                Err(self.store.failed("writing", &self.name, error))
            }
        }
    }

    async fn commit(mut self: Box<Self>) -> Result<u64, StoreError> {
        if self.failed {
            return Err(self.broken());
        }
        self.store.step("syncing", &self.name)?;
        let now = {
            let mut counters = self.store.lock();
            let now = counters.commits;
            counters.commits += 1;
            now
        };
        let Some(inner) = self.inner.take() else {
            return Err(self.broken());
        };
        match self.store.fault {
            Fault::Sync(at) | Fault::Rename(at) if at == now => {
                inner.abort().await?;
                let operation = if matches!(self.store.fault, Fault::Sync(_)) {
                    "syncing"
                } else {
                    "naming"
                };
                Err(self
                    .store
                    .failed(operation, &self.name, FaultKind::Io.error()))
            }
            _ => inner.commit().await,
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        self.store.step("removing", &self.name)?;
        match self.inner.take() {
            Some(inner) => inner.abort().await,
            None => Ok(()),
        }
    }
}

/// Records the steps of a local store and fails one of them, or everything from one of them on.
#[derive(Debug, Default)]
pub struct StepFaults {
    state: Mutex<StepState>,
}

#[derive(Debug, Default)]
struct StepState {
    steps: Vec<Step>,
    fail_at: Option<(usize, FaultKind)>,
    crash_at: Option<usize>,
    short_writes: bool,
}

impl StepFaults {
    /// Fails nothing, records.
    #[must_use]
    pub fn record() -> Arc<Self> {
        Arc::default()
    }

    /// Fails the step of this number (from 0) once.
    #[must_use]
    pub fn fail_at(step: usize, kind: FaultKind) -> Arc<Self> {
        Self::with(|state| state.fail_at = Some((step, kind)))
    }

    /// Fails every step from this number on, also removals: the process was killed there.
    #[must_use]
    pub fn crash_at(step: usize) -> Arc<Self> {
        Self::with(|state| state.crash_at = Some(step))
    }

    /// Lets each write take a part of its bytes only, which is no failure.
    #[must_use]
    pub fn short_writes() -> Arc<Self> {
        Self::with(|state| state.short_writes = true)
    }

    fn with(change: impl FnOnce(&mut StepState)) -> Arc<Self> {
        let faults = Self::default();
        change(&mut faults.lock());
        Arc::new(faults)
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StepState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StepHook for StepFaults {
    fn before(&self, step: &Step) -> io::Result<usize> {
        let mut state = self.lock();
        let now = state.steps.len();
        state.steps.push(step.clone());
        if state.crash_at.is_some_and(|at| now >= at) {
            return Err(io::Error::other("crashed"));
        }
        if let Some((at, kind)) = state.fail_at
            && at == now
        {
            return Err(kind.error());
        }
        Ok(match step {
            Step::Write { len, .. } if state.short_writes => (len / 3).max(1),
            Step::Write { len, .. } => *len,
            _ => 0,
        })
    }
}
