//! Put, get, list and delete named byte streams, durably.
//!
//! A store knows nothing of PostgreSQL or of backups. What it promises: a stream that was
//! committed is there whole, also after a power cut; one that was not committed is never listed.

pub mod codes;
mod contract;

pub use contract::{Entry, Store, StoreError, StoreWriter, check_name};
