//! Put, get, list and delete named byte streams, durably.
//!
//! A store knows nothing of PostgreSQL or of backups. What it promises: a stream that was
//! committed is there whole, also after a power cut; one that was not committed is never listed.

pub mod codes;
mod contract;
#[cfg(feature = "faults")]
pub mod faulty;
mod local;
mod local_dir;
mod local_writer;
#[cfg(feature = "faults")]
pub mod suite;

pub use contract::{Entry, Store, StoreError, StoreWriter, check_name};
pub use local::LocalStore;
#[cfg(feature = "faults")]
pub use local_writer::{Step, StepHook};
