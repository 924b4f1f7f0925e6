//! The system's clock, the only one outside tests.

use backup::Clock;
use jiff::Timestamp;

/// UTC time of the system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
