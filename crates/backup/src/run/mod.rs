//! One backup run, from the preflight to the manifest.

mod all;
mod back_up;
mod cleanup;
mod database;
mod directory;
mod dump;
mod globals;
mod needs;
mod parallel;
mod patterns;
mod preflight;
mod progress;
mod publish;
mod queries;
mod rehearse;
mod structure;

pub use back_up::back_up;
pub(crate) use back_up::back_up_locked;
pub(crate) use back_up::chain;
pub(crate) use cleanup::{KILLED, remove_backup};
pub(crate) use dump::exec_error;
pub(crate) use progress::Progress;
pub(crate) use queries::server as server_facts;
pub use rehearse::{Rehearsal, rehearse};
pub(crate) use structure::{Along, Structure};
