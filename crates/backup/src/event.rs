//! Typed progress: the terminal, JSON and metrics are renderers of the same events.

use serde::Serialize;

use crate::{id::BackupId, requests::VerifyLevel};

/// What happens during a run. Serialised with a tag `event`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupEvent {
    /// A run began.
    RunStarted {
        /// Its id.
        id: BackupId,
        /// Name of the target.
        target: String,
        /// Databases that it will dump.
        databases: Vec<String>,
        /// Sum of the databases' sizes on the server, bytes.
        size_bytes: u64,
    },
    /// Something to be read, not fatal.
    Warning {
        /// The text.
        message: String,
    },
    /// What was chosen and why, for standard error.
    Chosen {
        /// The text.
        message: String,
    },
    /// Work on one database (or on `globals`) began.
    PhaseStarted {
        /// `dump`, `verify`, `restore`, `analyze`, ….
        phase: &'static str,
        /// Database, or `globals`.
        subject: String,
        /// What is expected, in bytes of the unit that [`BackupEvent::Progress`] counts; `None`
        /// when nothing is known.
        expected_bytes: Option<u64>,
    },
    /// Bytes moved so far in the phase.
    Progress {
        /// As in [`BackupEvent::PhaseStarted`].
        phase: &'static str,
        /// Database, or `globals`.
        subject: String,
        /// Bytes so far.
        bytes: u64,
    },
    /// Work on one database ended well.
    PhaseFinished {
        /// As in [`BackupEvent::PhaseStarted`].
        phase: &'static str,
        /// Database, or `globals`.
        subject: String,
        /// Bytes in all.
        bytes: u64,
        /// Duration in seconds.
        seconds: f64,
    },
    /// The manifest is in place: the backup exists.
    Published {
        /// Its id.
        id: BackupId,
        /// Stored bytes.
        bytes: u64,
        /// Level to which it was checked.
        verified: VerifyLevel,
    },
    /// A restore that replaces a database wrote its next step into the journal, and begins it.
    RestoreStep {
        /// The restore.
        id: BackupId,
        /// The step.
        step: crate::restore::RestoreStep,
    },
    /// Leftovers of an earlier run were removed or ended.
    CleanedUp {
        /// What.
        message: String,
    },
}

/// Takes events; called from the run's own task, so it must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: BackupEvent);
}

/// A sink that drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _event: BackupEvent) {}
}
