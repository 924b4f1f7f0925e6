//! Attestations: what a source held, read in the dump's own snapshot, kept in the manifest so
//! that every later copy can be compared with it row for row.

mod model;

pub use model::{Attestation, AttestedLargeObjects, AttestedSequence, AttestedTable, TableScope};
