//! Throw-away servers: made for one proof, cut off from every network, removed on every path, also
//! when pgstow itself is killed. See `docs/adr/0006-throw-away-server.md`.

pub(crate) mod container;
mod error;
mod host;
mod keeper;
pub(crate) mod line;
pub(crate) mod owner;
mod running;
mod settings;
mod spec;

pub use error::SandboxError;
pub use owner::reap_sandboxes;
pub use running::Sandbox;
pub use spec::{SANDBOX_DATABASE, SandboxPlace, SandboxSpec};
