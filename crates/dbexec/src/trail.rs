//! The trail: one entry for each thing that discovery tried, for people and for metrics.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// How a step of discovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The step decided the result.
    Found,
    /// The step had nothing to offer.
    Nothing,
    /// The step was not tried, and the reason says why.
    Skipped,
    /// The step offered something that was refused (credentials, unsafe file, mixed sources).
    Refused,
    /// The step could not be carried out.
    Failed,
    /// The step found more than one candidate.
    Ambiguous,
}

impl Outcome {
    /// The word shown to users and used as a metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Nothing => "nothing",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// One step: what was tried, how it ended, and why, in words a user can act on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrailEntry {
    /// Step name, a small fixed set (also a metrics label): `explicit`, `environment`,
    /// `container_list`, `container_probe`, `container_env`, `credentials`, `persisted_file`, ….
    pub step: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, without secrets.
    pub reason: String,
    /// How long it took; serialised as `seconds`.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
}

/// Entries in the order in which they were tried.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Trail {
    /// The entries.
    pub entries: Vec<TrailEntry>,
}

fn as_seconds<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(duration.as_secs_f64())
}
