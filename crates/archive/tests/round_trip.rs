//! Archives of a copy that was restored from an archive: the reader finds them equal, on every
//! major and from one major to the next.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use archive::{ArchiveSummary, CheckOptions, DifferenceKind, Fingerprints, ItemHash, check_custom};
use server::Server;
use testkit::schema::load_bar31;

const OPTIONS: CheckOptions<'static> = CheckOptions {
    fingerprints: Fingerprints::All,
    hash: ItemHash::Xxh3,
    catalogue: archive::CatalogueDetail::Objects,
};

fn check(path: &Path) -> ArchiveSummary {
    check_custom(File::open(path).unwrap(), &OPTIONS).unwrap()
}

/// What must be equal of the rows, by name.
fn rows(summary: &ArchiveSummary) -> BTreeMap<(String, String), (Option<u64>, String)> {
    let tables = summary.tables.iter().map(|table| {
        let fingerprint = table.fingerprint.unwrap().to_string();
        (
            (table.schema.to_string(), table.name.to_string()),
            (table.rows, fingerprint),
        )
    });
    tables.collect()
}

fn sequences(summary: &ArchiveSummary) -> BTreeMap<(String, String), (i64, bool)> {
    let values = summary.sequences.iter().map(|sequence| {
        (
            (sequence.schema.clone(), sequence.name.clone()),
            (sequence.value, sequence.called),
        )
    });
    values.collect()
}

fn assert_equal(source: &ArchiveSummary, copy: &ArchiveSummary, same_major: bool) {
    let catalogues = (
        source.catalogue.as_ref().unwrap(),
        copy.catalogue.as_ref().unwrap(),
    );
    assert!(catalogues.0.objects.len() > 100);
    assert_eq!(catalogues.0.differences(catalogues.1, same_major), []);
    assert_eq!(rows(source), rows(copy));
    assert!(source.tables.iter().any(|table| table.rows > Some(100)));
    assert!(source.tables.iter().all(|table| table.oid > 16000));
    assert_eq!(sequences(source), sequences(copy));
    let large_objects = |summary: &ArchiveSummary| {
        (
            summary.large_objects,
            summary.large_object_bytes,
            summary.large_object_fingerprint,
        )
    };
    assert!(source.large_objects > 0 && source.large_object_fingerprint.is_some());
    assert_eq!(large_objects(source), large_objects(copy));
}

fn round_trip(major: u32) {
    let server = Server::start(major);
    load_bar31(&server.container, "source").unwrap();
    // What the server writes differently once it was restored: expressions over text, and rows
    // whose columns come in another order.
    let rewritten = "
        create table app.rewritten (
          v varchar(20) check (v in ('a (b)', 'c')), w varchar check (w not in ('x', 'y')),
          c char(3) check (c in ('p', 'q')), t text check (t in ('x', 'y')));
        create view app.rewritten_view as select v in ('a', 'c') as v, c = any (array['p', 'q'])
          as c from app.rewritten where v <> all (array['d', 'e']);
        create index on app.rewritten (v) where v in ('a', 'c');
        create table app.older (a integer);
        create table app.younger (own text, \"z, (y\" text) inherits (app.older);
        alter table app.older add column later text;
        insert into app.younger select g, 'own ' || g, E'tab\\t' || g, 'later ' || g
          from generate_series(1, 500) g;";
    server.container.psql("source", rewritten).unwrap();
    let archive = server.dump("source", "-Fc");
    server.restore(&archive, "copy", &[]);
    let source = check(&archive);
    assert_equal(&source, &check(&server.dump("copy", "-Fc")), true);
    let orders = ["source", "copy"].map(|database| {
        let sql = "select string_agg(attname, ' ' order by attnum) from pg_attribute
            where attrelid = 'app.younger'::regclass and attnum > 0";
        server.container.psql(database, sql).unwrap()
    });
    assert_ne!(orders[0], orders[1], "the case that the test is for");
    let catalogue = source.catalogue.as_ref().unwrap();
    let listed = archive::read_catalogue(File::open(&archive).unwrap()).unwrap();
    assert_eq!(&listed, catalogue);
    changes_are_seen(&server, &source);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_13() {
    round_trip(13);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_15() {
    round_trip(15);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_17() {
    round_trip(17);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_18() {
    round_trip(18);
}

/// A copy in which one thing of each sort is another: each is told, and nothing else.
fn changes_are_seen(server: &Server, source: &ArchiveSummary) {
    let sql = "
        alter table app.ruled add column more integer;
        drop view app.adults;
        create table app.newcomer (a integer);
        alter table app.secret owner to stow_reader;
        grant select on app.secret to public;
        update app.person set tags = '{changed}' where id = 100;
        insert into app.child values (2, 'x', 3);
        select setval('app.standalone', 5);
        select lo_put(oid, 0, 'other') from pg_largeobject_metadata order by oid limit 1;";
    server.container.psql("copy", sql).unwrap();
    let changed = check(&server.dump("copy", "-Fc"));
    let differences = source
        .catalogue
        .as_ref()
        .unwrap()
        .differences(changed.catalogue.as_ref().unwrap(), true);
    let mut found: Vec<_> = differences
        .iter()
        .map(|difference| (difference.object.as_str(), difference.kind))
        .collect();
    found.retain(|(object, _)| !object.starts_with("DEFAULT ACL"));
    let has = |object: &str, kind| found.contains(&(object, kind));
    assert!(has("TABLE app.ruled", DifferenceKind::Changed), "{found:?}");
    assert!(has("VIEW app.adults", DifferenceKind::Missing), "{found:?}");
    assert!(
        has("TABLE app.newcomer", DifferenceKind::Added),
        "{found:?}"
    );
    assert!(has("TABLE app.secret", DifferenceKind::Owner), "{found:?}");
    let other: Vec<_> = found
        .iter()
        .filter(|(object, _)| {
            !["ruled", "adults", "newcomer", "secret"]
                .iter()
                .any(|name| object.contains(name))
        })
        .collect();
    assert!(other.is_empty(), "{other:?}");
    let (before, after) = (rows(source), rows(&changed));
    let differing: Vec<_> = before
        .iter()
        .filter(|(name, rows)| after.get(*name) != Some(rows))
        .map(|((_, table), _)| table.as_str())
        .collect();
    assert_eq!(differing, ["child", "person"]);
    let differing: Vec<_> = sequences(&changed)
        .into_iter()
        .filter(|(name, value)| sequences(source).get(name) != Some(value))
        .collect();
    let standalone = ("app".to_owned(), "standalone".to_owned());
    assert_eq!(differing, [(standalone, (5, true))]);
    assert_ne!(
        source.large_object_fingerprint,
        changed.large_object_fingerprint
    );
}

fn to_a_newer_major(older: u32, newer: u32) {
    let (from, to) = (Server::start(older), Server::start(newer));
    load_bar31(&from.container, "source").unwrap();
    // The roles that the archive names.
    load_bar31(&to.container, "other").unwrap();
    let archive = from.dump("source", "-Fc");
    to.restore(&archive, "copy", &[]);
    assert_equal(&check(&archive), &check(&to.dump("copy", "-Fc")), false);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_15_to_17() {
    to_a_newer_major(15, 17);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_17_to_18() {
    to_a_newer_major(17, 18);
}

#[test]
fn bar_31_the_reader_finds_a_copy_equal_13_to_18() {
    to_a_newer_major(13, 18);
}
