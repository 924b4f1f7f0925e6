//! Discovery: which server, and which credentials, from flags, environment, running containers
//! and the persisted file, in that order.

mod error;
mod input;

pub use error::DiscoverError;
pub use input::{DiscoverInput, ExplicitSettings, discover_db_context};
