//! What a backup is, and everything done with it: back up, list, verify, prune, restore, export.
//!
//! **A backup exists only when its manifest is in place; the manifest is written last.** Nothing
//! here prints or reads the clock or the environment: progress leaves as [`BackupEvent`]s, time
//! comes from a [`Clock`].

pub mod attest;
mod catalog;
pub mod codes;
pub mod compare;
pub mod diff;
mod engine;
pub mod error;
pub mod event;
mod export;
mod find;
pub mod id;
mod lock;
pub mod manifest;
mod manifest_file;
mod names;
mod prove;
mod prune;
mod recipe;
mod records;
pub mod repository;
pub mod requests;
pub mod restore;
mod run;
mod script;
mod state;
mod statistics;
mod stream;
mod units;
mod verify;

pub use engine::{parallel_refusal, sessions_wanted};
pub use error::BackupError;
pub use event::{BackupEvent, EventSink};
pub use export::export;
pub use id::{BackupId, Clock};
pub use manifest::{EngineRecord, Manifest};
pub use prove::{
    AmcheckProof, CheckProof, DatabaseProof, Proof, ProofResult, ProofSummary, ProveOptions,
    ProveServer, SandboxNeeds, prove, sandbox_needs,
};
pub use prune::{apply_prune, plan_prune};
pub use repository::{Catalog, Repository, RunRecord, RunState};
pub use requests::{
    BackupOptions, BackupReport, DumpFormat, EngineChoice, ExportReport, ExportRequest, PrunePlan,
    RestoreContents, RestorePlace, RestorePlan, RestoreReport, RestoreRequest, RestoreSection,
    RestoreSource, RolesPolicy, SwapReport, VerifyLevel, VerifyReport,
};
pub use restore::{
    KeptDatabase, RestoreJournal, RestoreStep, database_for_part, database_to_restore, drop_kept,
    kept_databases, plan_restore, replacing_restores, restore, resume, rollback,
    unfinished_restores,
};
pub use run::{Rehearsal, back_up, rehearse};
pub use verify::verify;
