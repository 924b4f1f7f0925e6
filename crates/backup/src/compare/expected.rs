//! What a copy has to hold.

use std::collections::{BTreeMap, BTreeSet};

use archive::{ArchiveSummary, Catalogue, Fingerprint, Header, ItemHash, TableData};

use super::observed::Wanted;
use crate::attest::{
    Attestation, AttestedLargeObjects, AttestedSequence, AttestedTable, TableScope,
};
use crate::{
    BackupError, RestorePlan,
    restore::{PlannedWork, catalogue},
};

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedFrom {
    /// From the source itself, read in the dump's own snapshot.
    Attestation,
    /// From the archive, which was read whole: nothing is known of the source.
    Archive,
}

/// How strictly definitions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogueRule {
    /// Definitions, owners and privileges; existence and owners alone where another major wrote
    /// them, which does so in another way.
    Full,
    /// Existence and owners: tablespaces were left out of the restore.
    Names,
    /// Existence alone, without privileges: owners were left out of the restore.
    WithoutOwners,
}

/// Which programs wrote definitions: the major of the server and the major of pg_dump.
pub type WrittenBy = (u32, u32);

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTable {
    /// Rows.
    pub rows: u64,
    /// Fingerprint of the rows, 32 hex digits; `None` where none is known.
    pub fingerprint: Option<String>,
    /// How much of the table the archive holds.
    pub scope: TableScope,
}

/// What a copy of one database has to hold.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Where the numbers come from.
    pub from: ExpectedFrom,
    /// The hash of rows and large objects in fingerprints.
    pub row_hash: ItemHash,
    /// Tables by schema and name, in UTF-8.
    pub tables: BTreeMap<(String, String), ExpectedTable>,
    /// Rows of tables whose names in the archive cannot be told, so that only their sum counts;
    /// `None` where every name is known.
    pub unnamed_rows: Option<u64>,
    /// Sequences by schema and name: value and whether it was called.
    pub sequences: BTreeMap<(String, String), (i64, bool)>,
    /// Large objects; `None` where nothing is known.
    pub large_objects: Option<AttestedLargeObjects>,
    /// The archive's catalogue; `None` for a plain dump.
    pub catalogue: Option<Catalogue>,
    /// Fingerprint of the catalogue that was attested; the archive's own has to be the same.
    pub catalogue_fingerprint: Option<String>,
    /// How definitions are compared.
    pub catalogue_rule: CatalogueRule,
    /// Who wrote the definitions; `None` where that is not known, which counts as the same.
    pub written_by: Option<WrittenBy>,
    /// Whether the copy may hold nothing else.
    pub whole: bool,
    /// Which proof is missing, in words.
    pub missing: Vec<String>,
}

impl Expected {
    /// From the attestation of a backup. `catalogue` is the one of its archive.
    #[must_use]
    pub fn of_attestation(attestation: &Attestation, catalogue: Option<Catalogue>) -> Self {
        let mut tables = BTreeMap::new();
        for table in &attestation.tables {
            add(&mut tables, table);
        }
        Self {
            from: ExpectedFrom::Attestation,
            row_hash: attestation.row_hash,
            tables,
            unnamed_rows: None,
            sequences: sequences(&attestation.sequences),
            large_objects: attestation.large_objects.clone(),
            catalogue,
            catalogue_fingerprint: attestation.catalogue.clone(),
            catalogue_rule: CatalogueRule::Full,
            written_by: None,
            whole: true,
            missing: attestation.missing.clone(),
        }
    }

    /// From an archive that was read whole, with [`ItemHash::default`]: of a backup without
    /// attestation, or of a file that another tool made.
    #[must_use]
    pub fn of_archive(summary: &ArchiveSummary) -> Self {
        Self::of_tables(&summary.tables, Some(summary))
    }

    /// From a planned restore: the attestation where the backup has one, else the archive.
    ///
    /// # Errors
    /// [`BackupError::RestoreRefused`] when the archive cannot be read any more.
    pub async fn of_plan(plan: &RestorePlan) -> Result<Self, BackupError> {
        Self::of_work(&plan.work).await
    }

    /// As [`Expected::of_plan`].
    pub(crate) async fn of_work(work: &PlannedWork) -> Result<Self, BackupError> {
        let checked = &work.checked;
        let rest = checked.rest.as_ref();
        // A part is compared by its rows.
        let catalogue = match &checked.part {
            Some(_) => None,
            None => catalogue(&work.source).await?,
        };
        let mut expected = match work.source.attestation().await? {
            Some(attestation) => Self::of_attestation(&attestation, catalogue),
            None => Self {
                catalogue,
                ..Self::of_tables(&checked.tables, rest)
            },
        };
        expected.written_by = rest.and_then(|rest| written_by(&rest.header));
        if checked.part.is_some() {
            let tables = checked
                .tables
                .iter()
                .map(|table| (table.schema.as_str(), table.name.as_str()));
            let entries = checked.toc.iter().flat_map(|toc| &toc.entries);
            let sequences = entries
                .filter(|entry| entry.kind == "SEQUENCE SET")
                .map(|entry| (entry.schema.unwrap_or_default(), entry.name));
            let chosen: BTreeSet<_> = tables.chain(sequences).collect();
            expected.only(|schema, name| chosen.contains(&(schema, name)));
        }
        if !work.keep_owner {
            expected.catalogue_rule = CatalogueRule::WithoutOwners;
        } else if work.decision.no_tablespaces {
            expected.catalogue_rule = CatalogueRule::Names;
        }
        Ok(expected)
    }

    fn of_tables(found: &[TableData], rest: Option<&ArchiveSummary>) -> Self {
        type Sums = (u64, Option<Fingerprint>);
        let mut sums: BTreeMap<(String, String), Sums> = BTreeMap::new();
        let mut unnamed_rows = None;
        for table in found {
            let Some(rows) = table.rows else {
                continue;
            };
            if table.lossy {
                *unnamed_rows.get_or_insert(0) += rows;
                continue;
            }
            // A table may have several entries; their sum counts, and the sum of fingerprints is
            // the fingerprint of the sum.
            let (sum, prints) = sums
                .entry((table.schema.to_string(), table.name.to_string()))
                .or_insert((0, table.fingerprint.map(|_| Fingerprint::default())));
            *sum += rows;
            match (prints.as_mut(), table.fingerprint) {
                (Some(prints), Some(print)) => prints.merge(print),
                _ => *prints = None,
            }
        }
        let table = |(rows, print): Sums| ExpectedTable {
            rows,
            fingerprint: print.map(|print| print.to_string()),
            scope: TableScope::All,
        };
        let known = rest.iter().flat_map(|rest| &rest.sequences);
        Self {
            from: ExpectedFrom::Archive,
            row_hash: ItemHash::default(),
            tables: sums
                .into_iter()
                .map(|(key, sums)| (key, table(sums)))
                .collect(),
            unnamed_rows,
            sequences: known
                .filter(|sequence| !sequence.lossy)
                .map(|s| ((s.schema.clone(), s.name.clone()), (s.value, s.called)))
                .collect(),
            large_objects: rest.map(|rest| AttestedLargeObjects {
                count: rest.large_objects,
                bytes: rest.large_object_bytes,
                fingerprint: rest.large_object_fingerprint.map(|print| print.to_string()),
            }),
            catalogue: rest.and_then(|rest| rest.catalogue.clone()),
            catalogue_fingerprint: None,
            catalogue_rule: CatalogueRule::Full,
            written_by: rest.and_then(|rest| written_by(&rest.header)),
            whole: true,
            missing: vec!["the source was not attested: compared with the archive".to_owned()],
        }
    }

    /// Leaves only the tables that a partial restore chose; what else is there is not looked at.
    /// Sequences stay where `keep` says so for them.
    pub fn only(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.tables.retain(|(schema, name), _| keep(schema, name));
        self.sequences
            .retain(|(schema, name), _| keep(schema, name));
        self.unnamed_rows = None;
        self.large_objects = None;
        self.catalogue = None;
        self.catalogue_fingerprint = None;
        self.whole = false;
    }

    /// What has to be observed of the copy.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let fingerprints: BTreeSet<_> = self
            .tables
            .iter()
            .filter(|(_, table)| table.fingerprint.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        Wanted {
            fingerprints,
            large_objects: self
                .large_objects
                .as_ref()
                .is_some_and(|objects| objects.fingerprint.is_some()),
            row_hash: self.row_hash,
            catalogue: self.catalogue.is_some(),
        }
    }
}

/// Majors of the server and of pg_dump that wrote an archive.
pub(super) fn written_by(header: &Header) -> Option<WrittenBy> {
    Some((header.server_major()?, header.dump_major()?))
}

fn add(tables: &mut BTreeMap<(String, String), ExpectedTable>, table: &AttestedTable) {
    tables.insert(
        (table.schema.to_string(), table.name.to_string()),
        ExpectedTable {
            rows: table.rows,
            fingerprint: table.fingerprint.map(|print| print.to_string()),
            scope: table.scope,
        },
    );
}

fn sequences(attested: &[AttestedSequence]) -> BTreeMap<(String, String), (i64, bool)> {
    attested
        .iter()
        .map(|s| ((s.schema.clone(), s.name.clone()), (s.value, s.called)))
        .collect()
}
