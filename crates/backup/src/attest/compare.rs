//! An archive against its attestation: each difference in words.

use std::collections::BTreeMap;

use archive::{ArchiveSummary, Fingerprint};

use super::contents::Contents;
use super::matched::{Matched, Read};
use super::model::{Attestation, AttestedLargeObjects, AttestedTable, TableScope};

/// What an archive holds otherwise than its attestation says. `matched`: the tables of which were
/// taken while it was read.
pub(crate) fn differences(
    attestation: &Attestation,
    mut contents: Contents,
    matched: Option<&Matched>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut held = contents.take_tables();
    // A name that cannot be read cannot be found either.
    let unnamed = matches!(contents, Contents::Script(_)) && held.any_lossy();
    for (place, table) in attestation.tables.iter().enumerate() {
        let read = matched.and_then(|matched| matched.at(place)).or_else(|| {
            let held = held.remove(table.oid, &table.schema, &table.name)?;
            Some(Read {
                rows: held.rows,
                fingerprint: held.fingerprint,
            })
        });
        match read {
            Some(read) => table_difference(table, read, &mut found),
            None if unnamed || table.rows == 0 || table.scope == TableScope::Excluded => {}
            None => found.push(format!(
                "table {}.{} is not in the archive, {} rows were attested",
                table.schema, table.name, table.rows
            )),
        }
    }
    // An attestation of an archive that nobody read knows the server's counts alone.
    let complete = matches!(contents, Contents::Script(_)) || attestation.catalogue.is_some();
    for held in held.left() {
        if complete && !unnamed && held.rows != Some(0) {
            found.push(format!(
                "table {}.{} has {} rows and was not attested",
                held.schema,
                held.name,
                held.rows.unwrap_or(0)
            ));
        }
    }
    if let Contents::Archive(summary) = &contents {
        beside_tables(attestation, summary, &mut found);
    }
    found
}

fn table_difference(table: &AttestedTable, read: Read, found: &mut Vec<String>) {
    let rows = read.rows.unwrap_or(0);
    let what = format!("table {}.{}", table.schema, table.name);
    let unknown = table.scope == TableScope::Configuration && table.bytes.is_none();
    if rows != table.rows && !(unknown && rows > table.rows) {
        found.push(format!(
            "{what} has {rows} rows, {} were attested",
            table.rows
        ));
        return;
    }
    let (Some(attested), Some(now)) = (table.fingerprint, read.fingerprint) else {
        return;
    };
    if attested != now {
        found.push(format!(
            "{what} has {rows} rows as attested, but not the same ones"
        ));
    }
}

fn beside_tables(attestation: &Attestation, summary: &ArchiveSummary, found: &mut Vec<String>) {
    let mut sequences: BTreeMap<_, _> = summary
        .sequences
        .iter()
        .map(|sequence| ((sequence.schema.as_str(), sequence.name.as_str()), sequence))
        .collect();
    let said = |value: i64, called: bool| {
        format!("{value}{}", if called { "" } else { " (not yet used)" })
    };
    for attested in &attestation.sequences {
        let what = format!("sequence {}.{}", attested.schema, attested.name);
        match sequences.remove(&(attested.schema.as_str(), attested.name.as_str())) {
            None => found.push(format!("{what} is not in the archive")),
            Some(now) if (now.value, now.called) != (attested.value, attested.called) => {
                found.push(format!(
                    "{what} is at {}, {} was attested",
                    said(now.value, now.called),
                    said(attested.value, attested.called)
                ));
            }
            Some(_) => {}
        }
    }
    for ((schema, name), sequence) in sequences {
        if attestation.catalogue.is_some() && !sequence.lossy {
            found.push(format!("sequence {schema}.{name} was not attested"));
        }
    }
    if let Some(attested) = &attestation.large_objects {
        let now = (summary.large_objects, summary.large_object_bytes);
        found.extend(objects_difference(
            attested,
            now,
            summary.large_object_fingerprint,
        ));
    }
    if let (Some(attested), Some(catalogue)) =
        (&attestation.catalogue, &summary.catalogue_fingerprint)
        && *attested != Fingerprint::to_string(catalogue)
    {
        found.push("the definitions of its objects are not those that were attested".to_owned());
    }
}

/// `now`: how many large objects there are, and their bytes. What was not fingerprinted is not
/// compared by it.
fn objects_difference(
    attested: &AttestedLargeObjects,
    now: (u64, u64),
    fingerprint: Option<Fingerprint>,
) -> Option<String> {
    if now != (attested.count, attested.bytes) {
        return Some(format!(
            "there are {} large objects of {} bytes, {} of {} bytes were attested",
            now.0, now.1, attested.count, attested.bytes
        ));
    }
    let others = attested
        .fingerprint
        .as_ref()
        .zip(fingerprint)
        .is_some_and(|(attested, now)| *attested != now.to_string());
    others.then(|| "the large objects are not the same ones as attested".to_owned())
}

#[cfg(test)]
mod tests {
    use archive::{Fingerprint, ItemHash};

    use super::{AttestedLargeObjects, objects_difference};

    #[test]
    fn large_objects_are_compared_by_all_that_is_known() {
        let of = |item: &[u8]| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(ItemHash::Xxh3, item);
            fingerprint
        };
        let attested = AttestedLargeObjects {
            count: 1,
            bytes: 3,
            fingerprint: Some(of(b"abc").to_string()),
        };
        let same = (1, 3);
        assert_eq!(objects_difference(&attested, same, Some(of(b"abc"))), None);
        assert_eq!(objects_difference(&attested, same, None), None);
        let other = objects_difference(&attested, same, Some(of(b"abd")));
        assert!(other.unwrap().contains("not the same ones"));
        for now in [(0, 0), (1, 4), (2, 3)] {
            let counted = objects_difference(&attested, now, None);
            assert!(counted.unwrap().contains("were attested"), "{now:?}");
        }
    }
}
