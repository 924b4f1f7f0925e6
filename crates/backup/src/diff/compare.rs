//! Two archives of one database: objects that came, went or changed, and rows.

use std::collections::BTreeMap;

use archive::DifferenceKind;
use serde::Serialize;

use super::contents::ArchiveContents;
use crate::attest::AttestedTable;

/// What lies between two backups of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseDiff {
    /// Objects, in the order of kind and name. `None` where an archive is a plain script, which
    /// has no table of contents.
    pub objects: Option<Vec<ObjectDiff>>,
    /// Tables whose rows are not the same, in the order of their names; those that came or went
    /// with all their rows too.
    pub rows: Vec<RowsDiff>,
    /// Tables of which no more is known than that the number of rows is the same: they have no
    /// fingerprint in one of the backups, or they are among those below.
    pub not_compared: u64,
    /// Tables with as many rows as before and a fingerprint in both backups that say nothing of each
    /// other, because the backups hash rows differently.
    pub hashed_differently: u64,
}

/// An object that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectDiff {
    /// The object in words, for example `TABLE s.t`.
    pub object: String,
    /// What happened to it.
    pub change: ObjectChange,
}

/// What happened to an object from the first backup to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectChange {
    /// Only the second backup has it.
    Added,
    /// Only the first backup has it.
    Dropped,
    /// Its definition is another.
    Changed,
    /// It belongs to another role.
    Owner,
}

/// A table whose rows are not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowsDiff {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Rows in the first backup; `None` where it does not have the table.
    pub before: Option<u64>,
    /// Rows in the second backup; `None` where it does not have the table.
    pub after: Option<u64>,
}

/// Compares two archives, the first one being the older.
#[must_use]
pub fn diff(before: &ArchiveContents, after: &ArchiveContents) -> DatabaseDiff {
    let objects = match (&before.catalogue, &after.catalogue) {
        (Some(first), Some(second)) => {
            let same_major = before.server_major == after.server_major;
            let found = first.differences(second, same_major);
            Some(found.into_iter().map(ObjectDiff::from).collect())
        }
        _ => None,
    };
    let mut tables: BTreeMap<_, [Option<&AttestedTable>; 2]> = BTreeMap::new();
    for (side, contents) in [before, after].into_iter().enumerate() {
        for table in &contents.tables {
            let key = (table.schema.as_str(), table.name.as_str());
            tables.entry(key).or_default()[side] = Some(table);
        }
    }
    let mut rows = Vec::new();
    let (mut not_compared, mut hashed_differently) = (0, 0);
    let comparable = before.row_hash == after.row_hash;
    for ((schema, name), [first, second]) in tables {
        let prints = first
            .zip(second)
            .and_then(|(first, second)| first.fingerprint.zip(second.fingerprint));
        let content = prints
            .filter(|_| comparable)
            .map(|(first, second)| first == second);
        let (before, after) = (first.map(|t| t.rows), second.map(|t| t.rows));
        if before != after || content == Some(false) {
            rows.push(RowsDiff {
                schema: schema.to_owned(),
                name: name.to_owned(),
                before,
                after,
            });
        } else if content.is_none() && before != Some(0) {
            not_compared += 1;
            hashed_differently += u64::from(prints.is_some());
        }
    }
    DatabaseDiff {
        objects,
        rows,
        not_compared,
        hashed_differently,
    }
}

impl From<archive::CatalogueDifference> for ObjectDiff {
    fn from(found: archive::CatalogueDifference) -> Self {
        Self {
            object: found.object,
            change: match found.kind {
                DifferenceKind::Missing => ObjectChange::Dropped,
                DifferenceKind::Added => ObjectChange::Added,
                DifferenceKind::Changed => ObjectChange::Changed,
                DifferenceKind::Owner => ObjectChange::Owner,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use archive::{Catalogue, CatalogueObject, ItemHash};

    use super::*;
    use crate::attest::TableScope;

    fn object(name: &str, definition: u128) -> CatalogueObject {
        CatalogueObject {
            kind: "VIEW".into(),
            schema: Some("s".into()),
            name: name.into(),
            owner: Some("o".into()),
            strict: definition,
            loose: definition,
        }
    }

    fn table(name: &str, rows: u64, fingerprint: Option<&str>) -> AttestedTable {
        AttestedTable {
            oid: 1,
            schema: "s".into(),
            name: name.into(),
            rows,
            bytes: None,
            fingerprint: fingerprint.map(|word| {
                let mut fingerprint = archive::Fingerprint::default();
                fingerprint.add(ItemHash::Xxh3, word.as_bytes());
                fingerprint
            }),
            scope: TableScope::All,
        }
    }

    fn contents(objects: Vec<CatalogueObject>, tables: Vec<AttestedTable>) -> ArchiveContents {
        ArchiveContents {
            toc: None,
            catalogue: Some(Catalogue { objects }),
            tables,
            row_hash: ItemHash::Xxh3,
            attested: true,
            server_major: 17,
        }
    }

    #[test]
    fn objects_and_rows_that_came_went_and_changed() {
        let before = contents(
            vec![object("gone", 1), object("kept", 2), object("other", 3)],
            vec![
                table("grown", 1, Some("a")),
                table("same", 2, Some("b")),
                table("rewritten", 2, Some("b")),
                table("unknown", 5, None),
                table("dropped", 7, None),
            ],
        );
        let after = contents(
            vec![object("kept", 2), object("new", 1), object("other", 4)],
            vec![
                table("grown", 3, Some("c")),
                table("same", 2, Some("b")),
                table("rewritten", 2, Some("d")),
                table("unknown", 5, Some("x")),
                table("made", 0, Some("0")),
            ],
        );
        let found = diff(&before, &after);
        let objects: Vec<_> = found
            .objects
            .unwrap()
            .into_iter()
            .map(|object| (object.object, object.change))
            .collect();
        assert_eq!(
            objects,
            [
                ("VIEW s.gone".to_owned(), ObjectChange::Dropped),
                ("VIEW s.new".to_owned(), ObjectChange::Added),
                ("VIEW s.other".to_owned(), ObjectChange::Changed),
            ]
        );
        let rows: Vec<_> = found
            .rows
            .iter()
            .map(|rows| (rows.name.as_str(), rows.before, rows.after))
            .collect();
        assert_eq!(
            rows,
            [
                ("dropped", Some(7), None),
                ("grown", Some(1), Some(3)),
                ("made", None, Some(0)),
                ("rewritten", Some(2), Some(2)),
            ]
        );
        assert_eq!((found.not_compared, found.hashed_differently), (1, 0));
        let nothing = diff(&before, &before);
        assert!(nothing.rows.is_empty() && nothing.objects.unwrap().is_empty());
    }

    #[test]
    fn rows_that_are_hashed_differently_are_counted_and_not_compared() {
        let old = ArchiveContents {
            row_hash: ItemHash::Sha256,
            ..contents(
                Vec::new(),
                vec![
                    table("grown", 1, Some("a")),
                    table("same", 2, Some("b")),
                    table("unknown", 5, None),
                    table("empty", 0, Some("c")),
                ],
            )
        };
        let new = contents(
            Vec::new(),
            vec![
                table("grown", 3, Some("x")),
                table("same", 2, Some("y")),
                table("unknown", 5, Some("z")),
                table("empty", 0, Some("e")),
            ],
        );
        for (before, after) in [(&old, &new), (&new, &old)] {
            let found = diff(before, after);
            let rows: Vec<_> = found.rows.iter().map(|rows| rows.name.as_str()).collect();
            assert_eq!(rows, ["grown"]);
            assert_eq!((found.not_compared, found.hashed_differently), (2, 1));
        }
    }
}
