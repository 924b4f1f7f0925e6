use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::attest::AttestedLargeObjects;
use crate::compare::expected::ExpectedFrom;

type Key = (String, String);

fn key(name: &str) -> Key {
    ("s".to_owned(), name.to_owned())
}

fn expected() -> Expected {
    let table = |rows, fingerprint: Option<&str>, scope| ExpectedTable {
        rows,
        fingerprint: fingerprint.map(str::to_owned),
        scope,
    };
    Expected {
        from: ExpectedFrom::Attestation,
        row_hash: archive::ItemHash::default(),
        tables: BTreeMap::from([
            (key("a"), table(3, Some("aa"), TableScope::All)),
            (key("big"), table(1_000, None, TableScope::All)),
            (
                key("config"),
                table(2, Some("cc"), TableScope::Configuration),
            ),
            (key("empty"), table(0, None, TableScope::Excluded)),
        ]),
        unnamed_rows: None,
        sequences: BTreeMap::from([(key("q"), (7, true))]),
        large_objects: Some(AttestedLargeObjects {
            count: 2,
            bytes: 10,
            fingerprint: Some("ee".to_owned()),
        }),
        catalogue: None,
        catalogue_fingerprint: None,
        catalogue_rule: CatalogueRule::Full,
        written_by: None,
        whole: true,
        missing: Vec::new(),
    }
}

fn observed() -> Observed {
    let table = |rows, fingerprint: Option<&str>, of_extension| ObservedTable {
        rows,
        fingerprint: fingerprint.map(str::to_owned),
        of_extension,
    };
    Observed {
        tables: BTreeMap::from([
            (key("a"), table(3, Some("aa"), false)),
            (key("big"), table(1_000, None, false)),
            (key("config"), table(2, Some("cc"), true)),
            (key("empty"), table(0, None, false)),
            (key("of_extension"), table(5, None, true)),
        ]),
        foreign: BTreeSet::new(),
        sequences: BTreeMap::from([(key("q"), (7, true))]),
        large_objects: 2,
        large_object_bytes: Some(10),
        large_object_fingerprint: Some("ee".to_owned()),
        catalogue: None,
        written_by: None,
        seconds: 0.0,
    }
}

/// The one difference that a change makes.
fn one(change: impl FnOnce(&mut Expected, &mut Observed)) -> (String, String, String) {
    let (mut expected, mut observed) = (expected(), observed());
    change(&mut expected, &mut observed);
    let result = compare(&expected, &observed);
    let [only] = result.differences.as_slice() else {
        panic!("{:?}", result.differences);
    };
    (
        only.object.clone(),
        only.expected.clone(),
        only.found.clone(),
    )
}

fn words(object: &str, expected: &str, found: &str) -> (String, String, String) {
    (object.to_owned(), expected.to_owned(), found.to_owned())
}

#[test]
fn an_equal_copy_is_equal_and_what_was_compared_is_counted() {
    let result = compare(&expected(), &observed());
    assert!(result.is_equal(), "{:?}", result.differences);
    assert_eq!((result.tables_equal, result.tables_total), (4, 4));
    assert_eq!((result.fingerprints, result.rows), (2, 1_005));
    assert_eq!((result.sequences_equal, result.sequences_total), (1, 1));
    assert_eq!(result.large_objects, Some(2));
    assert_eq!(result.catalogue, CatalogueState::NotCompared);
    assert_eq!(
        result.not_compared,
        ["the catalogue: the archive has no table of contents"]
    );
}

#[test]
fn each_kind_of_difference_names_its_object() {
    let found = one(|_, o| o.tables.get_mut(&key("big")).unwrap().rows = 999);
    assert_eq!(found, words("table s.big", "1000 rows", "999 rows"));
    let found = one(|_, o| o.tables.get_mut(&key("empty")).unwrap().rows = 1);
    assert_eq!(found, words("table s.empty", "0 rows", "1 row"));
    let found = one(|_, o| {
        o.tables.remove(&key("a"));
    });
    assert_eq!(
        found,
        words("table s.a", "3 rows", "not there as an ordinary table")
    );
    let found = one(|_, o| {
        o.tables.insert(
            key("new"),
            ObservedTable {
                rows: 4,
                ..ObservedTable::default()
            },
        );
    });
    assert_eq!(found, words("table s.new", "no such table", "4 rows"));
    let found = one(|_, o| {
        o.tables.get_mut(&key("a")).unwrap().fingerprint = Some("ab".to_owned());
    });
    assert_eq!(
        found,
        words(
            "table s.a",
            "3 rows with fingerprint aa",
            "as many rows with fingerprint ab"
        )
    );
    let found = one(|_, o| {
        o.sequences.insert(key("q"), (7, false));
    });
    assert_eq!(
        found,
        words("sequence s.q", "value 7", "value 7, not called yet")
    );
    let found = one(|_, o| o.sequences.clear());
    assert_eq!(found, words("sequence s.q", "value 7", "missing"));
    let found = one(|_, o| o.large_objects = 1);
    assert_eq!(
        found,
        words("large objects", "2 large objects", "1 large object")
    );
    let found = one(|_, o| o.large_object_bytes = Some(11));
    assert_eq!(found.2, "as many of 11 bytes");
    let found = one(|_, o| o.large_object_fingerprint = Some("ef".to_owned()));
    assert_eq!(found.2, "as many with fingerprint ef");
}

#[test]
fn an_extension_may_bring_rows_of_its_own_but_none_may_be_lost() {
    let mut more = observed();
    more.tables.get_mut(&key("config")).unwrap().rows = 9;
    assert!(compare(&expected(), &more).is_equal());
    let found = one(|_, o| o.tables.get_mut(&key("config")).unwrap().rows = 1);
    assert_eq!(found, words("table s.config", "at least 2 rows", "1 row"));
}

#[test]
fn names_that_cannot_be_told_are_compared_by_their_sum() {
    let unnamed = |wanted| {
        let mut expected = expected();
        expected.tables.remove(&key("big"));
        expected.unnamed_rows = Some(wanted);
        compare(&expected, &observed())
    };
    assert!(unnamed(1_000).is_equal());
    assert_eq!(unnamed(1_001).differences.len(), 1);
}

#[test]
fn a_part_does_not_look_at_the_rest() {
    let mut part = expected();
    part.only(|_, name| name == "a");
    let mut copy = observed();
    copy.tables.get_mut(&key("big")).unwrap().rows = 1;
    copy.large_objects = 0;
    let result = compare(&part, &copy);
    assert!(result.is_equal(), "{:?}", result.differences);
    assert_eq!(result.tables_total, 1);
    copy.tables.get_mut(&key("a")).unwrap().rows = 1;
    assert!(!compare(&part, &copy).is_equal());
}

#[test]
fn what_was_not_read_is_said_not_assumed() {
    let mut copy = observed();
    copy.tables.get_mut(&key("a")).unwrap().fingerprint = None;
    copy.large_object_fingerprint = None;
    let result = compare(&expected(), &copy);
    assert!(result.is_equal());
    assert_eq!(result.fingerprints, 1);
    assert!(
        result
            .not_compared
            .iter()
            .any(|text| text.contains("table s.a"))
    );
    assert!(
        result
            .not_compared
            .iter()
            .any(|text| text.contains("large objects"))
    );
}
