//! Discovery: which server, and which credentials, from flags, environment, running containers
//! and the persisted file, in that order.

mod all;
mod containers;
mod credentials;
mod entry;
mod error;
mod evidence;
mod explicit;
mod flow;
mod flow_containers;
mod flow_fallback;
mod input;
mod inside;
mod metrics;
mod own_environment;
mod persisted;
mod recorder;
mod settings;
mod variables;

#[cfg(test)]
mod tests;

pub use all::{Found, FoundLogin};
pub use entry::{discover_all, discover_db_context};
pub use error::{Candidate, DiscoverError};
pub use evidence::ENABLE_LABEL;
pub use input::{DiscoverInput, ExplicitSettings};
pub use metrics::discovery_metrics;
pub use persisted::{
    PERSISTED_FORMAT_VERSION, Persisted, PersistedError, read_persisted, write_persisted,
};
