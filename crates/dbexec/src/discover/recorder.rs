//! Writing the trail: each step is timed, recorded and traced in one place.

use std::time::Instant;

use crate::trail::{Outcome, Trail, TrailEntry};

/// What the user named: flags, URL, target.
pub(crate) const EXPLICIT: &str = "explicit";
/// pgstow's own environment.
pub(crate) const ENVIRONMENT: &str = "environment";
/// Listing of running containers.
pub(crate) const CONTAINER_LIST: &str = "container_list";
/// Looking inside one container.
pub(crate) const CONTAINER_PROBE: &str = "container_probe";
/// Settings in the environment of one container.
pub(crate) const CONTAINER_ENV: &str = "container_env";
/// Choosing among the candidates.
pub(crate) const CONTAINER: &str = "container";
/// A server on this host, at the local address of the environment.
pub(crate) const LOCAL_SERVER: &str = "local_server";
/// The test of one login.
pub(crate) const CREDENTIALS: &str = "credentials";
/// `state/db.env`.
pub(crate) const PERSISTED_FILE: &str = "persisted_file";

/// Every step name.
#[cfg(test)]
pub(crate) const STEPS: &[&str] = &[
    EXPLICIT,
    ENVIRONMENT,
    CONTAINER_LIST,
    CONTAINER_PROBE,
    CONTAINER_ENV,
    CONTAINER,
    LOCAL_SERVER,
    CREDENTIALS,
    PERSISTED_FILE,
];

/// Collects the trail of one discovery.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    trail: Trail,
}

impl Recorder {
    /// Records a step that began at `since`.
    pub(crate) fn add(
        &mut self,
        step: &'static str,
        outcome: Outcome,
        since: Instant,
        reason: impl Into<String>,
    ) {
        let reason = reason.into();
        let duration = since.elapsed();
        tracing::debug!(
            target: "dbexec::discover",
            step,
            outcome = outcome.as_str(),
            seconds = duration.as_secs_f64(),
            reason,
            "discovery step"
        );
        self.trail.entries.push(TrailEntry {
            step,
            outcome,
            reason,
            duration,
        });
    }

    /// Adds the entries that a parallel part recorded for itself.
    pub(crate) fn append(&mut self, other: Self) {
        self.trail.entries.extend(other.trail.entries);
    }

    /// The trail so far.
    pub(crate) fn trail(&self) -> Trail {
        self.trail.clone()
    }

    /// The trail, for a result.
    pub(crate) fn into_trail(self) -> Trail {
        self.trail
    }
}
