//! What callers ask for and what they get back: options, plans and reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{id::BackupId, manifest::StoredFile};

/// Format of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpFormat {
    /// One file, pg_dump's own container; the default.
    #[default]
    Custom,
    /// A directory; restores with `pg_restore -j`.
    Directory,
    /// A script; compressed by us with zstd.
    Plain,
}

/// Level of proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// Nothing beyond what every run checks while it writes.
    None,
    /// Stored bytes equal what was hashed.
    Hash,
    /// The whole archive decodes to its end; the default.
    #[default]
    Read,
    /// All of it restores into a throw-away server and equals the source. Never a run's own: it is
    /// recorded beside the manifest afterwards.
    Restore,
}

/// Who moves the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// Sessions of ours side by side where that pays and can be done, else pg_dump or pg_restore
    /// alone; what was taken, and why not the faster one, is said and recorded. The default.
    #[default]
    Auto,
    /// Sessions of ours side by side also where it is not expected to pay. Where it cannot be done
    /// a backup fails with the reason; of a restore pg_restore does it alone, and that is said.
    Parallel,
    /// pg_dump or pg_restore alone.
    Stock,
}

/// Options of a backup run.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Databases by name; empty for all that accept connections.
    pub databases: Vec<String>,
    /// `--exclude-table-data` patterns, passed to pg_dump.
    pub exclude_table_data: Vec<String>,
    /// Format.
    pub format: DumpFormat,
    /// Who moves the rows.
    pub engine: EngineChoice,
    /// Sessions that move rows side by side, or jobs of pg_dump in the directory format; never more
    /// than the connections allow. `None` chooses.
    pub jobs: Option<u32>,
    /// Check after the dump, before the manifest.
    pub verify: VerifyLevel,
    /// Bytes of tables, as they are on the server, whose rows are fingerprinted in one run, the
    /// smallest first; `None` for [`BackupOptions::FINGERPRINT_BUDGET`], 0 for none at all.
    pub fingerprint_budget: Option<u64>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl BackupOptions {
    /// Bytes whose rows are fingerprinted where nothing else is asked for: 2 GB.
    pub const FINGERPRINT_BUDGET: u64 = 2_000_000_000;
}

/// A backup that exists.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// Its manifest.
    pub manifest: crate::Manifest,
    /// Where it is, for people.
    pub location: String,
    /// Stored bytes.
    pub bytes: u64,
    /// Wall-clock duration in seconds.
    pub seconds: f64,
}

/// Result of verifying one backup.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Which.
    pub id: BackupId,
    /// Level that was asked for.
    pub level: VerifyLevel,
    /// Whether everything agreed.
    pub ok: bool,
    /// Files that were checked.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Each difference: file or object, and what is wrong with it.
    pub problems: Vec<VerifyProblem>,
    /// Which reader decoded the archives (`pg_restore 15.18 in container db`, `built-in`).
    pub reader: Option<String>,
    /// Duration in seconds.
    pub seconds: f64,
}

/// One thing that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyProblem {
    /// File or object.
    pub object: String,
    /// What is wrong.
    pub problem: String,
}

/// Which backups `prune` would remove, and why each stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunePlan {
    /// Good backups that stay, newest first, each with the reason.
    pub keep: Vec<(BackupId, String)>,
    /// Good backups that go, newest first, each with the reason.
    pub remove: Vec<(BackupId, String)>,
}

/// What to restore from.
#[derive(Debug, Clone)]
pub enum RestoreSource {
    /// A backup by id, unique prefix or `latest`.
    Backup(String),
    /// A file or directory made by pg_dump, ours or anybody's.
    Path(PathBuf),
}

/// Where to restore to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "place", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestorePlace {
    /// A new database of this name, which must not exist.
    NewDatabase {
        /// Its name.
        name: String,
    },
    /// Into an existing database, in one transaction.
    InPlace {
        /// Its name; the caller has obtained consent for exactly this name.
        name: String,
    },
    /// Into a staging database, which then takes the place of the live one; the live one is kept
    /// under another name.
    Swap {
        /// Name of the live database; the caller has obtained consent for exactly this name where
        /// it exists.
        name: String,
        /// Whether the live database is backed up first.
        safety_backup: bool,
        /// How long the old database is kept, seconds.
        keep_old_seconds: u64,
    },
}

impl RestorePlace {
    /// Name of the database that will hold the rows.
    #[must_use]
    pub fn database(&self) -> &str {
        match self {
            Self::NewDatabase { name } | Self::InPlace { name } | Self::Swap { name, .. } => name,
        }
    }

    /// Whether the rows go into a database that the restore makes.
    #[must_use]
    pub fn makes_database(&self) -> bool {
        !matches!(self, Self::InPlace { .. })
    }
}

/// What to do about roles that the archive refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RolesPolicy {
    /// Create those that are missing, from the backup's globals.
    Create,
    /// Leave roles alone; missing ones are refused in the preflight unless ownership is dropped.
    #[default]
    Skip,
}

/// A section of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreSection {
    /// Definitions: schemas, types, functions, tables, views.
    PreData,
    /// Rows, large objects, values of sequences.
    Data,
    /// Indexes, constraints, triggers.
    PostData,
}

impl RestoreSection {
    /// As pg_restore calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreData => "pre-data",
            Self::Data => "data",
            Self::PostData => "post-data",
        }
    }
}

/// Which part of a source is restored; everything by default. A part goes into a new database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreContents {
    /// Patterns of tables, views and sequences: `schema.table` with `*`, `?` and double quotes as
    /// pg_dump takes them. What they need (schemas, types, functions, …) and what belongs to them
    /// is restored with them.
    pub tables: Vec<String>,
    /// Patterns of schemas, with all that is in them.
    pub schemas: Vec<String>,
    /// Sections; all when empty.
    pub sections: Vec<RestoreSection>,
    /// Rows with the bare tables that hold them: no indexes, constraints, triggers.
    pub data_only: bool,
    /// Whether materialised views that read foreign tables are filled, which logs in at the
    /// servers that those name.
    pub connect_foreign: bool,
}

impl RestoreContents {
    /// Whether something is left out on request.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.data_only
            || !(self.tables.is_empty() && self.schemas.is_empty() && self.sections.is_empty())
    }
}

/// A restore as asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// From.
    pub source: RestoreSource,
    /// Database of the backup; needed when it holds more than one.
    pub database: Option<String>,
    /// To.
    pub place: RestorePlace,
    /// Roles.
    pub roles: RolesPolicy,
    /// Whether ownership and privileges are restored (`--owner keep`) or everything belongs to
    /// the restoring role (`--owner none`).
    pub keep_owner: bool,
    /// Who moves the rows. A restore with [`EngineChoice::Parallel`] is refused where that cannot be
    /// done.
    pub engine: EngineChoice,
    /// Sessions that fill tables side by side, and jobs of pg_restore; `None` chooses.
    pub jobs: Option<u32>,
    /// Which part.
    pub contents: RestoreContents,
}

/// What a restore would do; printed by `--dry-run`, then applied.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// What is restored, for people.
    pub source: String,
    /// Database it came from, where known.
    pub source_database: Option<String>,
    /// Where it goes.
    #[serde(flatten)]
    pub place: RestorePlace,
    /// Target server's name and version.
    pub target: String,
    /// Steps in words, in order.
    pub steps: Vec<String>,
    /// What the preflight found that does not forbid the restore.
    pub warnings: Vec<String>,
    /// Of a swap: whether there is a live database, which is replaced.
    pub replaces: bool,
    /// Of a swap: sessions in the live database now, which would be ended.
    pub sessions: Vec<crate::restore::LiveSession>,
    /// What `apply` needs; not for people.
    #[serde(skip)]
    pub(crate) work: crate::restore::PlannedWork,
}

/// Result of a restore.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// Name of the database that holds the rows now.
    pub database: String,
    /// Tables in it.
    pub tables: u64,
    /// Rows in it, counted after the restore.
    pub rows: u64,
    /// pg_restore's messages that were judged harmless.
    pub warnings: Vec<String>,
    /// Duration in seconds.
    pub seconds: f64,
    /// What the swap did, where the restore replaced a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapReport>,
}

/// What an exchange of databases did.
#[derive(Debug, Clone, Serialize)]
pub struct SwapReport {
    /// Id of the restore, by which `rollback` and `prune` know it.
    pub restore: BackupId,
    /// How long nobody could connect, by the server's clock, seconds; `None` when it is not known
    /// because the exchange was finished after a kill.
    pub outage_seconds: Option<f64>,
    /// Sessions that were ended.
    pub sessions_ended: Option<u32>,
    /// The database that was put aside.
    pub kept: Option<crate::restore::KeptDatabase>,
    /// The safety backup.
    pub safety_backup: Option<BackupId>,
}

/// An export of a backup to ordinary files.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Id, prefix or `latest`.
    pub backup: String,
    /// Database; needed when the backup holds more than one.
    pub database: Option<String>,
    /// Format to write; custom and directory archives can become plain, not the reverse.
    pub format: Option<DumpFormat>,
    /// Path to write; must not exist. `-` is not handled here.
    pub output: PathBuf,
}

/// Result of an export.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// Path that was written.
    pub output: PathBuf,
    /// Files under it (one for custom and plain).
    pub files: Vec<StoredFile>,
}
