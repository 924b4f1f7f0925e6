//! One run per target at a time: a file lock that the kernel frees when its holder dies, however
//! it dies, with a record of the holder for messages.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::{BackupError, Clock, id::BackupId, state::StateDir};

/// How often and how long a lock is tried: `list` holds it shared for an instant to see whether a
/// run lives, which must not be mistaken for one.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Who holds a lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// What it does: `backup`, `prune`, `restore`.
    pub(crate) work: String,
    /// Run, where it has an id.
    pub(crate) run: Option<BackupId>,
    /// Process id on its host.
    pub(crate) pid: u32,
    /// Boot of the host, so that a process id of an earlier boot is not taken for a live one.
    pub(crate) boot_id: Option<String>,
    /// Since when, UTC.
    pub(crate) since: Timestamp,
}

impl Holder {
    /// This process.
    pub(crate) fn this(work: &str, run: Option<&BackupId>, clock: &dyn Clock) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .map(|text| text.trim().to_owned());
        Self {
            work: work.to_owned(),
            run: run.cloned(),
            pid: std::process::id(),
            boot_id,
            since: clock.now(),
        }
    }

    fn describe(&self) -> String {
        let run = self
            .run
            .as_ref()
            .map_or_else(String::new, |run| format!(" (run {run})"));
        format!(
            "{}{run} in process {} since {}",
            self.work, self.pid, self.since
        )
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct TargetLock {
    _file: File,
}

impl TargetLock {
    /// Takes the lock of a target, or says who has it.
    pub(crate) async fn acquire(
        state: &StateDir,
        key: &str,
        target: &str,
        holder: &Holder,
    ) -> Result<Self, BackupError> {
        let path = state.subdir("locks")?.join(format!("{key}.lock"));
        let failed = |operation, source| BackupError::State {
            operation,
            path: path.clone(),
            source,
        };
        let mut file = crate::state::open_file(&path, OFlags::RDWR | OFlags::CREATE)?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = (&file).take(4096).read_to_string(&mut text);
                    let holder = read
                        .ok()
                        .and_then(|_| serde_json::from_str::<Holder>(&text).ok())
                        .map_or_else(|| "its record cannot be read".to_owned(), |h| h.describe());
                    return Err(BackupError::Locked {
                        target: target.to_owned(),
                        holder,
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed("locking", source)),
            }
        }
        let record = serde_json::to_vec(holder).unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&record))
            .map_err(|source| failed("writing", source))?;
        Ok(Self { _file: file })
    }
}

/// Whether somebody holds the lock of a target now. A file system that cannot lock says "yes":
/// nobody may then clean up.
pub(crate) fn is_held(state: &StateDir, key: &str) -> bool {
    let path = state.path(&format!("locks/{key}.lock"));
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(_) => false,
    }
}

/// Holds the repository for the short time in which a sequence number is taken.
pub(crate) fn lock_repository(state: &StateDir) -> Result<File, BackupError> {
    let path = state.subdir("locks")?.join("repository.lock");
    let file = crate::state::open_file(&path, OFlags::RDWR | OFlags::CREATE)?;
    file.lock().map_err(|source| BackupError::State {
        operation: "locking",
        path,
        source,
    })?;
    Ok(file)
}
