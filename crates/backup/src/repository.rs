//! Where backups live: a store, the layout in it, and the state directory beside it.
//!
//! Layout of the store: `<id>/manifest.json`, `<id>/SHA256SUMS`, `<id>/globals.sql.zst`,
//! `<id>/0001-<safe name>.dump` …. State directory: `runs/<id>.json` (one record for each run,
//! also failed ones), `locks/<system identifier>.lock`, `db.env`.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use storage::Store;

use crate::{Clock, Manifest, ProofSummary, id::BackupId, manifest::StoredFile};

/// A store of backups with its state directory and clock.
#[derive(Clone)]
pub struct Repository {
    /// The store.
    pub store: Arc<dyn Store>,
    /// State directory (0700), on this host.
    pub state_dir: PathBuf,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Started; when its lock is free, it was killed.
    Running,
    /// Failed.
    Failed,
    /// Ended by a signal.
    Interrupted,
    /// Its manifest is in place.
    Done,
}

/// Record of a run in the state directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Format version of the record.
    pub format_version: u32,
    /// Id of the run and of the backup it makes.
    pub id: BackupId,
    /// Sequence number it took.
    pub sequence: u64,
    /// Target's name.
    pub target: String,
    /// Key of the target's lock.
    pub lock_key: String,
    /// `application_name` of its sessions, for reaping.
    pub application_name: String,
    /// Start, UTC.
    pub started_at: Timestamp,
    /// End, UTC.
    pub ended_at: Option<Timestamp>,
    /// State.
    pub state: RunState,
    /// Error code of a failed run.
    pub error_code: Option<String>,
    /// Error text of a failed run, without secrets.
    pub error: Option<String>,
}

/// A directory in the store that looks like a backup but cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedBackup {
    /// Its id.
    pub id: BackupId,
    /// What is wrong.
    pub problem: String,
}

/// What a repository holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Catalog {
    /// Backups, newest first (by sequence).
    pub backups: Vec<Manifest>,
    /// Failed, interrupted and incomplete runs, newest first.
    pub runs: Vec<RunRecord>,
    /// Damaged ones.
    pub damaged: Vec<DamagedBackup>,
    /// The newest proof of each backup that has one, in the order of the backups.
    pub proofs: Vec<ProofSummary>,
}

impl Catalog {
    /// The newest proof of a backup.
    #[must_use]
    pub fn proof(&self, id: &BackupId) -> Option<&ProofSummary> {
        self.proofs.iter().find(|proof| proof.backup == *id)
    }
}

impl Repository {
    /// Name of a stored file of a backup in the store.
    #[must_use]
    pub fn stored_name(id: &BackupId, file: &StoredFile) -> String {
        format!("{id}/{}", file.name)
    }
}
