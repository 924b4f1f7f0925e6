//! What a check of an archive is to find out beside whether it is whole.

use std::fmt;

use crate::fingerprint::ItemHash;

/// What a check of a whole archive is to find out. By default: nothing that costs time.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Which rows are fingerprinted.
    pub fingerprints: Fingerprints<'a>,
    /// By which hash.
    pub hash: ItemHash,
    /// What is taken from the table of contents about the definitions of all objects.
    pub catalogue: CatalogueDetail,
}

/// How much of the catalogue is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatalogueDetail {
    /// Nothing.
    #[default]
    None,
    /// Its fingerprint, in constant memory.
    Fingerprint,
    /// Each object with its hashes, and the fingerprint.
    Objects,
}

/// Which rows are fingerprinted.
#[derive(Clone, Copy, Default)]
pub enum Fingerprints<'a> {
    /// None, and no large objects.
    #[default]
    None,
    /// Those of all tables, and the large objects.
    All,
    /// Those of the tables for whose oid this says so, and the large objects.
    Tables(&'a (dyn Fn(u32) -> bool + Send + Sync)),
    /// Those of the tables for whose oid this says so, and no large objects.
    TablesAlone(&'a (dyn Fn(u32) -> bool + Send + Sync)),
}

impl CheckOptions<'_> {
    /// The hash of a table's rows, where they are fingerprinted.
    pub(crate) fn of_table(&self, oid: u32) -> Option<ItemHash> {
        let wanted = match self.fingerprints {
            Fingerprints::None => false,
            Fingerprints::All => true,
            Fingerprints::Tables(wanted) | Fingerprints::TablesAlone(wanted) => wanted(oid),
        };
        wanted.then_some(self.hash)
    }

    /// The hash of the large objects, where they are fingerprinted.
    pub(crate) fn of_large_objects(&self) -> Option<ItemHash> {
        matches!(
            self.fingerprints,
            Fingerprints::All | Fingerprints::Tables(_)
        )
        .then_some(self.hash)
    }
}

impl fmt::Debug for Fingerprints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::All => "All",
            Self::Tables(_) => "Tables(_)",
            Self::TablesAlone(_) => "TablesAlone(_)",
        })
    }
}
