//! Server and archive against each other: the attestation where they agree, else each difference.

use std::collections::{BTreeMap, BTreeSet};

use archive::{ArchiveSummary, SequenceValue};

use super::contents::{Contents, Held, HeldTables, Wanted};
use super::model::{
    Attestation, AttestedLargeObjects, AttestedSequence, AttestedTable, TableScope,
};
use super::server::{ServerSequence, ServerSide, ServerTable};
use super::session::Attested;

/// Makes the attestation of a dump.
///
/// # Errors
/// What the archive holds otherwise than the server counted, with both numbers.
pub(crate) fn settle(
    attested: Attested,
    mut contents: Contents,
    wanted: &Wanted,
) -> Result<Attestation, Vec<String>> {
    let Attested {
        mut side,
        mut missing,
        seconds,
    } = attested;
    let mut problems = Vec::new();
    // Names in another encoding may hide tables.
    let unnamed = unnamed(&contents);
    let mut held = contents.take_tables();
    let mut tables = Vec::new();
    if side.snapshot {
        let listed = std::mem::take(&mut side.tables);
        tables.reserve_exact(listed.len());
        for table in listed {
            let held = held.remove(table.oid, &table.schema, &table.name);
            tables.push(attest_table(table, held, unnamed, &mut problems));
        }
        left_over(held, &contents, &mut problems, &mut missing);
    } else {
        tables.extend(held.left().map(unasked));
    }
    tables.sort_unstable_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut attestation = Attestation {
        snapshot: side.snapshot,
        row_hash: wanted.hash(),
        tables,
        seconds,
        ..Attestation::default()
    };
    match &contents {
        Contents::Archive(summary) => {
            attestation.sequences = sequences(summary, &side, &mut problems, &mut missing);
            attestation.large_objects = Some(large_objects(summary, &side, wanted, &mut problems));
            attestation.catalogue = summary
                .catalogue_fingerprint
                .map(|fingerprint| fingerprint.to_string());
            let without = attestation
                .tables
                .iter()
                .filter(|table| table.scope != TableScope::Excluded && table.fingerprint.is_none())
                .count();
            if without > 0 {
                missing.push(format!(
                    "fingerprints of {without} tables: over the run's budget for them"
                ));
            }
        }
        Contents::Script(_) => missing.push(
            "fingerprints, catalogue, sequence values and large objects: a plain script does not \
             hold them in a form that is compared"
                .to_owned(),
        ),
    }
    attestation.missing = missing;
    if problems.is_empty() {
        Ok(attestation)
    } else {
        Err(problems)
    }
}

/// The attestation of a dump whose archive was not read: what the server counted.
pub(crate) fn settle_unread(attested: Attested) -> Attestation {
    let Attested {
        side,
        mut missing,
        seconds,
    } = attested;
    missing.push(
        "everything that is told by the archive, which was not read back: fingerprints, \
         catalogue, sequence values, large objects, and whether its rows are those of the server"
            .to_owned(),
    );
    let tables = side.tables.into_iter().filter_map(|table| {
        let scope = match table {
            ServerTable { excluded: true, .. } => TableScope::Excluded,
            ServerTable {
                configuration: true,
                ..
            } => TableScope::Configuration,
            _ => TableScope::All,
        };
        let rows = match scope {
            TableScope::All => table.rows?,
            // Which of them are in the archive is not known.
            _ => 0,
        };
        Some(AttestedTable {
            oid: table.oid,
            schema: table.schema,
            name: table.name,
            rows,
            bytes: None,
            fingerprint: None,
            scope,
        })
    });
    Attestation {
        snapshot: side.snapshot,
        tables: tables.collect(),
        missing,
        seconds,
        ..Attestation::default()
    }
}

fn attest_table(
    table: ServerTable,
    held: Option<Held>,
    unnamed: bool,
    problems: &mut Vec<String>,
) -> AttestedTable {
    let what = format!("table {}.{}", table.schema, table.name);
    let scope = match (&held, table.configuration) {
        (None, true) => TableScope::Excluded,
        (None, false) if table.excluded => TableScope::Excluded,
        (_, true) => TableScope::Configuration,
        _ => TableScope::All,
    };
    let in_archive = held.as_ref().map(|held| held.rows);
    match (in_archive, table.rows, scope) {
        (Some(Some(0)), None, TableScope::All) if table.emptied => problems.push(format!(
            "{what} was rewritten or emptied between the snapshot and its dump, and none of the \
             rows that it had are in the archive"
        )),
        (_, None, _) | (None, _, TableScope::Excluded) => {}
        // A name in another encoding may hide it.
        (None, Some(_), _) if unnamed => {}
        (None, Some(0), _) => {}
        (None, Some(rows), _) => problems.push(format!(
            "{what} has {rows} rows on the server and none in the archive"
        )),
        (Some(None), Some(_), _) => {}
        (Some(Some(found)), Some(rows), TableScope::Configuration) if found <= rows => {}
        (Some(Some(found)), Some(rows), _) if found == rows => {}
        (Some(Some(found)), Some(rows), _) => problems.push(format!(
            "{what} has {rows} rows on the server and {found} in the archive"
        )),
    }
    let rows = in_archive.flatten().or(match scope {
        TableScope::Excluded => None,
        _ => table.rows,
    });
    AttestedTable {
        oid: table.oid,
        schema: table.schema,
        name: table.name,
        rows: rows.unwrap_or(0),
        bytes: held.as_ref().and_then(|held| held.bytes),
        fingerprint: held.and_then(|held| held.fingerprint),
        scope,
    }
}

/// A table that only the archive tells of.
fn unasked(held: Held) -> AttestedTable {
    AttestedTable {
        oid: held.oid(),
        schema: held.schema,
        name: held.name,
        rows: held.rows.unwrap_or(0),
        bytes: held.bytes,
        fingerprint: held.fingerprint,
        scope: TableScope::All,
    }
}

/// Rows in the archive of tables that the server did not list.
fn left_over(
    held: HeldTables,
    contents: &Contents,
    problems: &mut Vec<String>,
    missing: &mut Vec<String>,
) {
    let mut unnamed = 0;
    for held in held.left() {
        if held.lossy && matches!(contents, Contents::Script(_)) {
            unnamed += 1;
        } else if held.rows != Some(0) {
            problems.push(format!(
                "table {}.{} has {} rows in the archive and is not on the server",
                held.schema,
                held.name,
                held.rows.unwrap_or(0)
            ));
        }
    }
    if unnamed > 0 {
        missing.push(format!(
            "row counts of {unnamed} tables: their names in the script are in another encoding"
        ));
    }
}

fn unnamed(contents: &Contents) -> bool {
    match contents {
        Contents::Archive(_) => false,
        Contents::Script(script) => script.tables.iter().any(|table| table.lossy),
    }
}

fn large_objects(
    summary: &ArchiveSummary,
    side: &ServerSide,
    wanted: &Wanted,
    problems: &mut Vec<String>,
) -> AttestedLargeObjects {
    if side.snapshot && side.large_objects != summary.large_objects {
        problems.push(format!(
            "there are {} large objects on the server and {} in the archive",
            side.large_objects, summary.large_objects
        ));
    }
    AttestedLargeObjects {
        count: summary.large_objects,
        bytes: summary.large_object_bytes,
        fingerprint: wanted.large_objects().map(|_| {
            summary
                .large_object_fingerprint
                .unwrap_or_default()
                .to_string()
        }),
    }
}

type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a ServerSequence>;

fn by_name(sequences: &[ServerSequence]) -> ByName<'_> {
    sequences
        .iter()
        .map(|sequence| ((sequence.schema.as_str(), sequence.name.as_str()), sequence))
        .collect()
}

fn sequences(
    summary: &ArchiveSummary,
    side: &ServerSide,
    problems: &mut Vec<String>,
    missing: &mut Vec<String>,
) -> Vec<AttestedSequence> {
    let lossy = summary.sequences.iter().filter(|one| one.lossy).count();
    if lossy > 0 {
        missing.push(format!(
            "values of {lossy} sequences: their names in the archive are in another encoding"
        ));
    }
    let mut oids = BTreeMap::new();
    if let Some((before, after)) = &side.sequences {
        let (before, after) = (by_name(before), by_name(after));
        let mut seen = BTreeSet::new();
        for value in summary.sequences.iter().filter(|value| !value.lossy) {
            let key = (value.schema.as_str(), value.name.as_str());
            seen.insert(key);
            if let (Some(before), Some(after)) = (before.get(&key), after.get(&key)) {
                oids.insert(key, before.oid);
                sequence_problem(value, before, after, problems);
            }
        }
        let absent = before
            .iter()
            .filter(|(key, sequence)| {
                !sequence.may_be_absent && after.contains_key(*key) && !seen.contains(*key)
            })
            .map(|(key, _)| format!("sequence {}.{} is not in the archive", key.0, key.1));
        if lossy == 0 {
            problems.extend(absent);
        }
    }
    let mut attested: Vec<_> = summary
        .sequences
        .iter()
        .filter(|value| !value.lossy)
        .map(|value| AttestedSequence {
            oid: oids
                .get(&(value.schema.as_str(), value.name.as_str()))
                .copied()
                .unwrap_or(0),
            schema: value.schema.clone(),
            name: value.name.clone(),
            value: value.value,
            called: value.called,
        })
        .collect();
    attested.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    attested
}

/// A sequence goes on while the dump runs, so its value has to lie between those before and
/// after. One that was set back or has come round in the meantime tells nothing.
fn sequence_problem(
    value: &SequenceValue,
    before: &ServerSequence,
    after: &ServerSequence,
    problems: &mut Vec<String>,
) {
    let up = before.increment >= 0;
    let ordered = |first: i64, second: i64| if up { first <= second } else { first >= second };
    let fits = match (before.value, after.value) {
        // Never used, neither then nor now.
        (None, None) => !value.called,
        (None, Some(after)) => before.cycles || !value.called || ordered(value.value, after),
        (Some(_), None) => true,
        (Some(first), Some(last)) if first == last => value.called && value.value == first,
        (Some(first), Some(last)) => {
            before.cycles
                || !ordered(first, last)
                || (ordered(first, value.value) && ordered(value.value, last))
        }
    };
    if fits {
        return;
    }
    let said = |value: Option<i64>| value.map_or("unused".to_owned(), |value| value.to_string());
    problems.push(format!(
        "sequence {}.{} was at {} before and at {} after the dump, and is at {} in the archive",
        value.schema,
        value.name,
        said(before.value),
        said(after.value),
        said(value.called.then_some(value.value)),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(value: Option<i64>, increment: i64, cycles: bool) -> ServerSequence {
        ServerSequence {
            oid: 1,
            schema: "s".to_owned(),
            name: "q".to_owned(),
            increment,
            cycles,
            may_be_absent: false,
            value,
        }
    }

    #[test]
    fn a_sequence_lies_between_its_values_before_and_after() {
        let fits = |before, after, value, called, increment, cycles| {
            let archived = SequenceValue {
                oid: 0,
                schema: "s".to_owned(),
                name: "q".to_owned(),
                value,
                called,
                lossy: false,
            };
            let mut problems = Vec::new();
            sequence_problem(
                &archived,
                &sequence(before, increment, cycles),
                &sequence(after, increment, cycles),
                &mut problems,
            );
            problems.is_empty()
        };
        // Still.
        assert!(fits(Some(5), Some(5), 5, true, 1, false));
        assert!(!fits(Some(5), Some(5), 4, true, 1, false));
        assert!(!fits(Some(5), Some(5), 5, false, 1, false));
        assert!(fits(None, None, 1, false, 1, false));
        assert!(!fits(None, None, 1, true, 1, false));
        // Moving, up and down.
        assert!(fits(Some(5), Some(9), 7, true, 1, false));
        assert!(!fits(Some(5), Some(9), 4, true, 1, false));
        assert!(!fits(Some(5), Some(9), 10, true, 1, false));
        assert!(fits(Some(5), Some(1), 3, true, -1, false));
        assert!(!fits(Some(5), Some(1), 6, true, -1, false));
        assert!(fits(None, Some(3), 2, true, 1, false));
        assert!(!fits(None, Some(3), 4, true, 1, false));
        assert!(fits(None, Some(3), 1, false, 1, false));
        // Set back, or come round: nothing can be said.
        assert!(fits(Some(9), Some(2), 1, true, 1, false));
        assert!(fits(Some(9), Some(12), 3, true, 1, true));
        assert!(fits(Some(9), None, 1, false, 1, false));
    }

    fn script(tables: &[(&str, u64, bool)]) -> Contents {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\
                    --\n-- PostgreSQL database dump complete\n--\n\n";
        let mut summary = archive::check_plain(text.as_bytes()).unwrap();
        summary.tables = tables
            .iter()
            .map(|(name, rows, lossy)| archive::TableData {
                dump_id: 0,
                oid: 0,
                schema: "s".into(),
                name: (*name).into(),
                bytes: 0,
                rows: Some(*rows),
                fingerprint: None,
                lossy: *lossy,
            })
            .collect();
        Contents::Script(summary)
    }

    fn table(name: &str, rows: Option<u64>) -> ServerTable {
        ServerTable {
            schema: "s".into(),
            name: name.into(),
            rows,
            ..ServerTable::default()
        }
    }

    fn settled(
        tables: Vec<ServerTable>,
        held: &[(&str, u64, bool)],
    ) -> Result<Attestation, Vec<String>> {
        let attested = Attested {
            side: ServerSide {
                snapshot: true,
                tables,
                ..ServerSide::default()
            },
            ..Attested::default()
        };
        settle(attested, script(held), &Wanted::default())
    }

    #[test]
    fn each_way_in_which_server_and_archive_can_differ() {
        let good = settled(
            vec![
                table("a", Some(3)),
                table("empty", Some(0)),
                table("uncounted", None),
            ],
            &[
                ("a", 3, false),
                ("uncounted", 7, false),
                ("twice", 0, false),
            ],
        )
        .unwrap();
        let rows: Vec<_> = good.tables.iter().map(|table| table.rows).collect();
        assert_eq!(rows, [3, 0, 7]);

        let configuration = ServerTable {
            configuration: true,
            ..table("c", Some(5))
        };
        let excluded = ServerTable {
            excluded: true,
            ..table("x", None)
        };
        let both = || vec![configuration.clone(), excluded.clone()];
        let found = settled(both(), &[("c", 2, false)]).unwrap();
        assert_eq!(found.tables[0].scope, TableScope::Configuration);
        assert_eq!(found.tables[0].rows, 2);
        assert_eq!(found.tables[1].scope, TableScope::Excluded);

        let problems = settled(
            vec![table("a", Some(3)), table("b", Some(1)), configuration],
            &[("a", 2, false), ("c", 6, false), ("d", 4, false)],
        )
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "table s.a has 3 rows on the server and 2 in the archive",
                "table s.b has 1 rows on the server and none in the archive",
                "table s.c has 5 rows on the server and 6 in the archive",
                "table s.d has 4 rows in the archive and is not on the server",
            ]
        );
        let emptied = |name| ServerTable {
            emptied: true,
            ..table(name, None)
        };
        let held = [("before", 0, false), ("after", 3, false)];
        let problems = settled(vec![emptied("before"), emptied("after")], &held).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("table s.before was rewritten or emptied"));
        // A name in another encoding is no difference, but a proof that is missing.
        let lossy = settled(vec![table("ü", Some(1))], &[("\u{fffd}", 1, true)]).unwrap();
        assert!(lossy.missing.iter().any(|why| why.contains("encoding")));
    }
}
