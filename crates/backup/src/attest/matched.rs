//! The tables of an archive against those of an attestation, while the archive is read: of 100,000
//! tables a list of what was found takes more room than what has to be known of them.

use std::sync::{Arc, Mutex, PoisonError};

use archive::{Fingerprint, TableData};

use super::contents::{merged, sum};
use super::model::Attestation;

/// What was found of each attested table so far. Shared with the thread that reads.
#[derive(Debug, Clone)]
pub(crate) struct Matched(Arc<Mutex<Found>>);

#[derive(Debug)]
struct Found {
    /// Oid and place in the attestation, by oid.
    places: Vec<(u32, u32)>,
    /// By place; `None` where nothing of the table was read.
    tables: Vec<Option<Read>>,
}

/// What was read of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// `None` for rows that are no COPY text.
    pub(crate) rows: Option<u64>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Matched {
    pub(crate) fn new(attestation: &Attestation) -> Self {
        let tables = &attestation.tables;
        let mut places: Vec<(u32, u32)> = tables.iter().map(|table| table.oid).zip(0..).collect();
        // Where no oid is known, names decide.
        places.retain(|(oid, _)| *oid != 0);
        places.sort_unstable();
        Self(Arc::new(Mutex::new(Found {
            places,
            tables: vec![None; tables.len()],
        })))
    }

    /// Takes the rows of an attested table, and gives others back. A table may have several entries
    /// in an archive.
    pub(crate) fn take(&self, table: TableData) -> Option<TableData> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = found
            .places
            .binary_search_by_key(&table.oid, |(oid, _)| *oid);
        let Ok(at) = at else { return Some(table) };
        let place = found.places[at].1 as usize;
        let now = Read {
            rows: table.rows,
            fingerprint: table.fingerprint,
        };
        let all = found.tables[place].map_or(now, |before| Read {
            rows: sum(before.rows, now.rows),
            fingerprint: merged(before.fingerprint, now.fingerprint),
        });
        found.tables[place] = Some(all);
        None
    }

    /// What was read of the table at a place of the attestation.
    pub(crate) fn at(&self, place: usize) -> Option<Read> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.tables.get(place).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use archive::{Fingerprint, ItemHash, TableData};

    use super::{Matched, Read};
    use crate::attest::{Attestation, AttestedTable, TableScope};

    fn attested(oid: u32) -> AttestedTable {
        AttestedTable {
            oid,
            schema: "s".into(),
            name: format!("t{oid}").into(),
            rows: 0,
            bytes: None,
            fingerprint: None,
            scope: TableScope::All,
        }
    }

    fn read(oid: u32, rows: Option<u64>, items: &[&[u8]]) -> TableData {
        let mut fingerprint = Fingerprint::default();
        items
            .iter()
            .for_each(|item| fingerprint.add(ItemHash::Xxh3, item));
        TableData {
            dump_id: 1,
            oid,
            schema: "s".into(),
            name: "t".into(),
            bytes: 0,
            rows,
            fingerprint: Some(fingerprint),
            lossy: false,
        }
    }

    #[test]
    fn tables_are_found_by_their_oid_and_added_up() {
        let attestation = Attestation {
            tables: [7, 0, 3, 5].map(attested).into(),
            ..Attestation::default()
        };
        let matched = Matched::new(&attestation);
        for table in [
            read(3, Some(2), &[b"a", b"b"]),
            read(7, Some(1), &[b"c"]),
            read(3, Some(1), &[b"d"]),
            read(5, Some(1), &[b"e"]),
            read(5, None, &[b"f"]),
        ] {
            assert_eq!(matched.take(table), None);
        }
        for other in [read(4, Some(1), &[]), read(0, Some(1), &[])] {
            assert_eq!(matched.take(other.clone()), Some(other));
        }
        let of = |table: TableData| {
            Some(Read {
                rows: table.rows,
                fingerprint: table.fingerprint,
            })
        };
        assert_eq!(matched.at(2), of(read(3, Some(3), &[b"a", b"b", b"d"])));
        assert_eq!(matched.at(0), of(read(7, Some(1), &[b"c"])));
        assert_eq!(matched.at(1), None);
        assert_eq!(matched.at(3).unwrap().rows, None);
        assert_eq!(matched.at(4), None);
    }
}
