//! Progress of one phase on one subject, thinned out so that a renderer is never flooded.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::{BackupEvent, EventSink};

/// Shortest time between two progress events.
const EVERY: Duration = Duration::from_millis(200);

/// A phase under way.
pub(crate) struct Progress<'a> {
    sink: &'a dyn EventSink,
    phase: &'static str,
    subject: String,
    started: Instant,
    told: Instant,
    bytes: u64,
}

impl<'a> Progress<'a> {
    /// Begins a phase.
    pub(crate) fn start(
        sink: &'a dyn EventSink,
        phase: &'static str,
        subject: &str,
        expected_bytes: Option<u64>,
    ) -> Self {
        sink.emit(BackupEvent::PhaseStarted {
            phase,
            subject: subject.to_owned(),
            expected_bytes,
        });
        let now = Instant::now();
        Self {
            sink,
            phase,
            subject: subject.to_owned(),
            started: now,
            told: now,
            bytes: 0,
        }
    }

    /// Counts bytes.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let now = Instant::now();
        if now.duration_since(self.told) >= EVERY {
            self.told = now;
            self.sink.emit(BackupEvent::Progress {
                phase: self.phase,
                subject: self.subject.clone(),
                bytes: self.bytes,
            });
        }
    }

    /// Ends the phase well; its duration in seconds.
    pub(crate) fn finish(self) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        self.sink.emit(BackupEvent::PhaseFinished {
            phase: self.phase,
            subject: self.subject,
            bytes: self.bytes,
            seconds,
        });
        seconds
    }
}
