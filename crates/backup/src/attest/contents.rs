//! What an archive was found to hold, whatever its format.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use archive::{ArchiveSummary, CheckOptions, Fingerprint, Fingerprints, PlainSummary, TableData};

use super::budget::Chosen;
use super::model::Attestation;

/// Bytes of COPY's terminator and the line breaks after it, which belong to no row.
const TERMINATOR: u64 = 5;

/// A whole archive, as our own reader saw it.
#[derive(Debug, Clone)]
pub(crate) enum Contents {
    /// Custom or directory format.
    Archive(ArchiveSummary),
    /// A plain script.
    Script(PlainSummary),
}

/// What is to be found out beside whether an archive is whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Oids of the tables whose rows are fingerprinted.
    tables: Arc<HashSet<u32>>,
    /// Whether large objects are fingerprinted.
    large_objects: bool,
    catalogue: bool,
}

impl Wanted {
    /// The catalogue, and what a budget chose.
    pub(crate) fn chosen(chosen: Chosen) -> Self {
        Self {
            tables: Arc::new(chosen.tables),
            large_objects: chosen.large_objects,
            catalogue: true,
        }
    }

    /// What an attestation can be compared with.
    pub(crate) fn of(attestation: &Attestation) -> Self {
        let tables = attestation
            .tables
            .iter()
            .filter(|table| table.fingerprint.is_some())
            .map(|table| table.oid)
            .collect();
        let large_objects = attestation
            .large_objects
            .as_ref()
            .is_some_and(|objects| objects.fingerprint.is_some());
        Self {
            tables: Arc::new(tables),
            large_objects,
            catalogue: attestation.catalogue.is_some(),
        }
    }

    /// The same without any fingerprint of rows or large objects.
    pub(crate) fn without_fingerprints(self) -> Self {
        Self {
            catalogue: self.catalogue,
            ..Self::default()
        }
    }

    /// Whether large objects are fingerprinted.
    pub(crate) fn large_objects(&self) -> bool {
        self.large_objects
    }

    /// Whether the rows of a table are fingerprinted.
    pub(crate) fn table(&self, oid: u32) -> bool {
        self.tables.contains(&oid)
    }

    /// The same in the words of the archive's reader.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&CheckOptions<'_>) -> R) -> R {
        let chosen = |oid: u32| self.tables.contains(&oid);
        read(&CheckOptions {
            fingerprints: match (self.large_objects, self.tables.is_empty()) {
                (false, true) => Fingerprints::None,
                (false, false) => Fingerprints::TablesAlone(&chosen),
                (true, _) => Fingerprints::Tables(&chosen),
            },
            catalogue: self.catalogue,
        })
    }
}

/// The rows of one table. A table may have several entries in an archive; here they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `None` for rows that are no COPY text.
    pub(crate) rows: Option<u64>,
    /// Bytes of the rows.
    pub(crate) bytes: Option<u64>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether the name may be shown wrongly.
    pub(crate) lossy: bool,
}

/// By what a table is found: its oid in archives, its name in scripts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Oid(u32),
    Name(String, String),
}

impl Contents {
    /// The rows of each table.
    pub(crate) fn tables(&self) -> BTreeMap<Key, Held> {
        let tables = match self {
            Self::Archive(summary) => &summary.tables,
            Self::Script(summary) => &summary.tables,
        };
        let mut held = BTreeMap::new();
        for table in tables {
            let key = self.key(table.oid, &table.schema, &table.name);
            let this = self.held(table);
            match held.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(this);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().add(&this);
                }
            }
        }
        held
    }

    /// The key of a table.
    pub(crate) fn key(&self, oid: u32, schema: &str, name: &str) -> Key {
        match self {
            Self::Archive(_) if oid != 0 => Key::Oid(oid),
            _ => Key::Name(schema.to_owned(), name.to_owned()),
        }
    }

    fn held(&self, table: &TableData) -> Held {
        Held {
            schema: table.schema.clone(),
            name: table.name.clone(),
            rows: table.rows,
            bytes: match self {
                Self::Archive(_) if table.rows.is_some() => {
                    Some(table.bytes.saturating_sub(TERMINATOR))
                }
                _ => None,
            },
            fingerprint: table.fingerprint,
            lossy: table.lossy,
        }
    }
}

impl Held {
    fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        self.rows = sum(self.rows, other.rows);
        self.bytes = sum(self.bytes, other.bytes);
        self.fingerprint = match (self.fingerprint, other.fingerprint) {
            (Some(mut own), Some(other)) => {
                own.merge(other);
                Some(own)
            }
            _ => None,
        };
    }
}
