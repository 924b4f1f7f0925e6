//! Client programs in a short-lived container of the server's image: in the server's network, with
//! a spool directory that it shares with this process, so that bytes need not go through the
//! engine. Removed on every path, also when pgstow itself is killed.

mod executor;
mod line;
mod open;
mod pipe;
mod policy;
mod spool;

pub use executor::SidecarPgExecutor;
pub use open::{NoSidecar, open_sidecar, reap_sidecars};
pub use policy::{SIDECAR_FROM, Situation, TransportChoice, wants_sidecar};
