//! What a copy holds.

use std::collections::{BTreeMap, BTreeSet};

use archive::{Catalogue, ItemHash};

use super::expected::WrittenBy;

/// What is to be learnt of a copy beyond counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Tables, by schema and name, whose rows are read for a fingerprint.
    pub fingerprints: BTreeSet<(String, String)>,
    /// Whether the contents of large objects are read.
    pub large_objects: bool,
    /// The hash of what is fingerprinted.
    pub row_hash: ItemHash,
    /// Whether the catalogue is read.
    pub catalogue: bool,
}

/// One table of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// Rows that count: all, or, of an extension's table whose rows were read, those that
    /// pg_dump takes for configuration.
    pub rows: u64,
    /// Fingerprint, 32 hex digits, where it was wanted.
    pub fingerprint: Option<String>,
    /// Whether an extension made the table: its rows are partly the extension's own.
    pub of_extension: bool,
}

/// What a copy of one database holds.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Tables with rows of their own, by schema and name.
    pub tables: BTreeMap<(String, String), ObservedTable>,
    /// Foreign tables, whose rows are elsewhere.
    pub foreign: BTreeSet<(String, String)>,
    /// Sequences by schema and name: value and whether it was called.
    pub sequences: BTreeMap<(String, String), (i64, bool)>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Their bytes, where they were read.
    pub large_object_bytes: Option<u64>,
    /// Their fingerprint, where it was wanted.
    pub large_object_fingerprint: Option<String>,
    /// The catalogue, where it was wanted.
    pub catalogue: Option<Catalogue>,
    /// Who wrote the definitions.
    pub written_by: Option<WrittenBy>,
    /// Seconds that observing took.
    pub seconds: f64,
}
