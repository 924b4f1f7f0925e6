//! What an archive was found to hold, whatever its format.

use std::collections::HashSet;
use std::sync::Arc;

use archive::{
    ArchiveSummary, CatalogueDetail, CheckOptions, EachTable, Fingerprint, Fingerprints, ItemHash,
    Name, PlainSummary, TableData,
};

use super::budget::Chosen;
use super::matched::Matched;
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
    /// By which hash.
    hash: ItemHash,
    catalogue: bool,
    /// Takes the rows of tables while they are read.
    matched: Option<Matched>,
}

impl Wanted {
    /// The catalogue, and what a budget chose.
    pub(crate) fn chosen(chosen: Chosen) -> Self {
        Self {
            tables: Arc::new(chosen.tables),
            large_objects: chosen.large_objects,
            hash: ItemHash::default(),
            catalogue: true,
            matched: None,
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
            hash: attestation.row_hash,
            catalogue: attestation.catalogue.is_some(),
            matched: None,
        }
    }

    /// The same, where the tables of an attestation are taken as they come: [`Contents`] then holds
    /// only others.
    pub(crate) fn matching(self, matched: &Matched) -> Self {
        Self {
            matched: Some(matched.clone()),
            ..self
        }
    }

    /// The same without any fingerprint of rows or large objects.
    pub(crate) fn without_fingerprints(self) -> Self {
        Self {
            catalogue: self.catalogue,
            matched: self.matched,
            ..Self::default()
        }
    }

    /// Whether large objects are fingerprinted, and by which hash.
    pub(crate) fn large_objects(&self) -> Option<ItemHash> {
        self.large_objects.then_some(self.hash)
    }

    /// Whether the rows of a table are fingerprinted, and by which hash.
    pub(crate) fn table(&self, oid: u32) -> Option<ItemHash> {
        self.tables.contains(&oid).then_some(self.hash)
    }

    /// The hash of what is fingerprinted.
    pub(crate) fn hash(&self) -> ItemHash {
        self.hash
    }

    /// As [`Wanted::with`], with where the tables go.
    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&CheckOptions<'_>, Option<&mut EachTable<'_>>) -> R,
    ) -> R {
        self.with(|options| match &self.matched {
            Some(matched) => read(options, Some(&mut |table| matched.take(table))),
            None => read(options, None),
        })
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
            hash: self.hash,
            catalogue: if self.catalogue {
                CatalogueDetail::Fingerprint
            } else {
                CatalogueDetail::None
            },
        })
    }
}

/// The rows of one table. A table may have several entries in an archive; here they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    oid: u32,
    pub(crate) schema: Name,
    pub(crate) name: Name,
    /// `None` for rows that are no COPY text.
    pub(crate) rows: Option<u64>,
    /// Bytes of the rows.
    pub(crate) bytes: Option<u64>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether the name may be shown wrongly.
    pub(crate) lossy: bool,
    taken: bool,
}

/// By what a table is found: its oid in archives, its name where that is not known, as in scripts.
type Key<'a> = (bool, u32, &'a str, &'a str);

/// The rows of every table of an archive, in the order of their keys.
pub(crate) struct HeldTables {
    tables: Vec<Held>,
    archive: bool,
}

impl Contents {
    /// The rows of each table, which are then known to the result alone: of 100,000 tables no second
    /// list is held.
    pub(crate) fn take_tables(&mut self) -> HeldTables {
        let (found, archive) = match self {
            Self::Archive(summary) => (std::mem::take(&mut summary.tables), true),
            Self::Script(summary) => (std::mem::take(&mut summary.tables), false),
        };
        let mut tables: Vec<Held> = found
            .into_iter()
            .map(|table| Held::of(table, archive))
            .collect();
        // A stable sort would need half as much again.
        tables.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        tables.dedup_by(|other, first| {
            let same = other.key() == first.key();
            if same {
                first.add(other);
            }
            same
        });
        HeldTables { tables, archive }
    }
}

impl HeldTables {
    /// The rows of a table, once.
    pub(crate) fn remove(&mut self, oid: u32, schema: &str, name: &str) -> Option<Held> {
        let key = if self.archive && oid != 0 {
            by_oid(oid)
        } else {
            by_name(schema, name)
        };
        let at = self.tables.binary_search_by(|held| held.key().cmp(&key));
        let held = &mut self.tables[at.ok()?];
        if std::mem::replace(&mut held.taken, true) {
            return None;
        }
        Some(held.clone())
    }

    /// Whether the name of a table that was not removed yet is not certain.
    pub(crate) fn any_lossy(&self) -> bool {
        self.tables.iter().any(|held| held.lossy && !held.taken)
    }

    /// Those that were not removed.
    pub(crate) fn left(self) -> impl Iterator<Item = Held> {
        self.tables.into_iter().filter(|held| !held.taken)
    }
}

fn by_oid<'a>(oid: u32) -> Key<'a> {
    (false, oid, "", "")
}

fn by_name<'a>(schema: &'a str, name: &'a str) -> Key<'a> {
    (true, 0, schema, name)
}

impl Held {
    fn of(table: TableData, archive: bool) -> Self {
        Self {
            oid: table.oid,
            bytes: (archive && table.rows.is_some())
                .then(|| table.bytes.saturating_sub(TERMINATOR)),
            schema: table.schema,
            name: table.name,
            rows: table.rows,
            fingerprint: table.fingerprint,
            lossy: table.lossy,
            taken: false,
        }
    }

    /// Oid in the source; 0 where it is not known.
    pub(crate) fn oid(&self) -> u32 {
        self.oid
    }

    fn key(&self) -> Key<'_> {
        match self.oid {
            0 => by_name(&self.schema, &self.name),
            oid => by_oid(oid),
        }
    }

    fn add(&mut self, other: &Self) {
        self.rows = sum(self.rows, other.rows);
        self.bytes = sum(self.bytes, other.bytes);
        self.fingerprint = merged(self.fingerprint, other.fingerprint);
    }
}

/// Of two entries of one table, where both are known.
pub(super) fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_add(b?))
}

/// As [`sum`].
pub(super) fn merged(a: Option<Fingerprint>, b: Option<Fingerprint>) -> Option<Fingerprint> {
    let mut all = a?;
    all.merge(b?);
    Some(all)
}
