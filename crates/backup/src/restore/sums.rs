//! How much a backup says its database held, in sums: of 100,000 tables the rest is not in memory
//! while they are restored.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::source::Source;
use crate::manifest_file;

/// Of one database.
pub(super) struct Sums {
    pub(super) tables: usize,
    /// Bytes of all rows in COPY's text format, where they are known of every table.
    pub(super) bytes: Option<u64>,
    /// Large objects, where that is known.
    pub(super) large_objects: Option<u64>,
}

/// What a manifest is read as.
#[derive(Deserialize)]
struct View {
    databases: Vec<Database>,
}

#[derive(Deserialize)]
struct Database {
    name: String,
    #[serde(default)]
    attestation: Option<Attested>,
}

#[derive(Deserialize)]
struct Attested {
    #[serde(deserialize_with = "tables")]
    tables: (usize, Option<u64>),
    #[serde(default)]
    large_objects: Option<Objects>,
}

#[derive(Deserialize)]
struct Objects {
    count: u64,
}

/// Adds tables up while they are read.
fn tables<'de, D: Deserializer<'de>>(from: D) -> Result<(usize, Option<u64>), D::Error> {
    #[derive(Deserialize)]
    struct Table {
        #[serde(default)]
        bytes: Option<u64>,
    }
    struct Adding;
    impl<'de> Visitor<'de> for Adding {
        type Value = (usize, Option<u64>);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tables")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let (mut count, mut bytes) = (0, Some(0_u64));
            while let Some(table) = from.next_element::<Table>()? {
                count += 1;
                bytes = bytes
                    .zip(table.bytes)
                    .and_then(|(all, more)| all.checked_add(more));
            }
            Ok((count, bytes))
        }
    }
    from.deserialize_seq(Adding)
}

/// The sums of a backup's database; `None` where nothing is attested, or the manifest cannot be read
/// once more, which whoever needs it finds out.
pub(super) async fn sums(source: &Source) -> Option<Sums> {
    let (store, manifest, record) = source.attesting()?;
    let view: View = manifest_file::view(store, &manifest.id).await.ok()?;
    let mut databases = view.databases.into_iter();
    let attested = databases
        .find(|database| database.name == record.name)?
        .attestation?;
    let (tables, bytes) = attested.tables;
    Some(Sums {
        tables,
        bytes,
        large_objects: attested.large_objects.map(|all| all.count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_one_is_not_known_of_all() {
        let sums = |tables: &str| {
            let text = format!(
                r#"{{"databases": [{{"name": "a", "attestation": {{"tables": [{tables}],
                     "large_objects": {{"count": 3}}, "more": 1}}}}, {{"name": "b"}}]}}"#
            );
            let view: View = serde_json::from_str(&text).unwrap();
            let [a, b] = view.databases.try_into().ok().unwrap();
            assert!(b.attestation.is_none());
            let a = a.attestation.unwrap();
            assert_eq!(a.large_objects.unwrap().count, 3);
            a.tables
        };
        assert_eq!(sums(""), (0, Some(0)));
        let both = r#"{"bytes": 5, "name": "x"}, {"name": "y", "bytes": 7}"#;
        assert_eq!(sums(both), (2, Some(12)));
        assert_eq!(sums(r#"{"bytes": 5}, {"rows": 1}"#), (2, None));
        let many = format!(r#"{{"bytes": {}}}, {{"bytes": 1}}"#, u64::MAX);
        assert_eq!(sums(&many), (2, None));
    }
}
