//! Copies compared with what an archive holds, on real servers.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::fs::File;
use std::path::Path;

use archive::{CheckOptions, Fingerprints, ItemHash};
use backup::compare::{
    CatalogueRule, CatalogueState, Comparison, Expected, Observed, compare, observe,
};
use backup::event::NoEvents;
use support::live::{Live, file_as, words};
use testkit::schema::load_bar31;
use tokio_util::sync::CancellationToken;

const DATABASE: &str = "the source";

/// What an archive holds, with every fingerprint.
fn expected(path: &Path) -> Expected {
    let options = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::default(),
        catalogue: archive::CatalogueDetail::Objects,
    };
    let summary = archive::check_custom(File::open(path).unwrap(), &options).unwrap();
    Expected::of_archive(&summary)
}

async fn observed(live: &Live, database: &str, expected: &Expected) -> Observed {
    let cancel = CancellationToken::new();
    observe(
        &live.executor,
        database,
        &expected.wanted(),
        &NoEvents,
        &cancel,
    )
    .await
    .unwrap_or_else(|error| panic!("{}", words(&error)))
}

fn equal(result: &Comparison) {
    assert!(result.is_equal(), "{:#?}", result.differences);
    assert_eq!(result.catalogue, CatalogueState::Full);
    assert!(result.tables_total > 10, "{result:?}");
    assert_eq!(result.tables_equal, result.tables_total);
    assert!(result.sequences_total > 0 && result.sequences_equal == result.sequences_total);
}

/// A copy that pg_restore made of everything that a schema can hold is equal by every measure.
async fn restored_copies_are_equal(major: u32) {
    let live = Live::start(major).await;
    load_bar31(&live.container, DATABASE).unwrap();
    let path = live.dump(DATABASE, "source.dump", &["-Fc"]);
    live.restore(&file_as(&path, "copy"))
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    let wanted = expected(&path);
    let copy = observed(&live, "copy", &wanted).await;
    let result = compare(&wanted, &copy);
    equal(&result);
    assert_eq!(result.fingerprints, result.tables_total);
    assert!(result.large_objects.is_some_and(|number| number > 0));
    assert!(
        copy.large_object_bytes.is_some_and(|bytes| bytes > 0),
        "{copy:?}"
    );

    // Without any fingerprint nothing is read, and counts, sequences and definitions still are
    // compared.
    let mut counts = wanted.clone();
    for table in counts.tables.values_mut() {
        table.fingerprint = None;
    }
    if let Some(objects) = &mut counts.large_objects {
        objects.fingerprint = None;
    }
    let copy = observed(&live, "copy", &counts).await;
    let result = compare(&counts, &copy);
    equal(&result);
    assert_eq!(result.fingerprints, 0);
    assert!(copy.large_object_bytes.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_copies_are_equal_13() {
    restored_copies_are_equal(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_copies_are_equal_15() {
    restored_copies_are_equal(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_copies_are_equal_17() {
    restored_copies_are_equal(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_copies_are_equal_18() {
    restored_copies_are_equal(18).await;
}

const SMALL: &str = "
create table \"Odd \"\"name.*\" (id int primary key, v text);
insert into \"Odd \"\"name.*\" select g, 'v' || g from generate_series(1, 100) g;
create table plain as select g as id from generate_series(1, 50) g;
create sequence s; select nextval('s');
create sequence fresh;
select lo_from_bytea(4711, 'abc');
create view w as select * from plain;";

/// Each change of a copy is seen and named, whether rows were read or counted.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_copy_is_named() {
    let live = Live::start(17).await;
    live.psql("postgres", "create database small");
    live.psql("small", SMALL);
    let path = live.dump("small", "small.dump", &["-Fc"]);
    let mut wanted = expected(&path);
    // Counted, not read.
    let plain = ("public".to_owned(), "plain".to_owned());
    wanted.tables.get_mut(&plain).unwrap().fingerprint = None;
    let result = compare(&wanted, &observed(&live, "small", &wanted).await);
    assert!(result.is_equal(), "{:?}", result.differences);
    assert_eq!((result.tables_equal, result.fingerprints), (2, 1));

    for (change, back, object) in [
        (
            "update \"Odd \"\"name.*\" set v = 'x' where id = 7",
            "update \"Odd \"\"name.*\" set v = 'v7' where id = 7",
            "table public.Odd \"name.*",
        ),
        (
            "delete from plain where id = 50",
            "insert into plain values (50)",
            "table public.plain",
        ),
        (
            "select nextval('fresh')",
            "select setval('fresh', 1, false)",
            "sequence public.fresh",
        ),
        (
            "select lo_put(4711, 0, 'x')",
            "select lo_put(4711, 0, 'a')",
            "large objects",
        ),
        (
            "create table extra as select 1 as x",
            "drop table extra",
            "table public.extra",
        ),
        (
            "create or replace view w as select id + 0 as id from plain",
            "create or replace view w as select * from plain",
            "VIEW public.w",
        ),
        (
            "create index i on plain (id)",
            "drop index i",
            "INDEX public.i",
        ),
        (
            "grant select on plain to pg_monitor",
            "revoke select on plain from pg_monitor",
            "ACL public.TABLE plain",
        ),
    ] {
        live.psql("small", change);
        let result = compare(&wanted, &observed(&live, "small", &wanted).await);
        assert!(
            result.differences.iter().any(|d| d.object == object),
            "{change}: {:?}",
            result.differences
        );
        live.psql("small", back);
    }
    assert!(compare(&wanted, &observed(&live, "small", &wanted).await).is_equal());
    // Owners and privileges do not count where a restore left them out.
    live.psql(
        "small",
        "create role another; alter table plain owner to another; grant select on w to another",
    );
    let result = compare(&wanted, &observed(&live, "small", &wanted).await);
    let changed: Vec<_> = result.differences.iter().map(|d| &d.object).collect();
    assert_eq!(changed, ["ACL public.TABLE w", "TABLE public.plain"]);
    wanted.catalogue_rule = CatalogueRule::WithoutOwners;
    let result = compare(&wanted, &observed(&live, "small", &wanted).await);
    assert!(result.is_equal(), "{:?}", result.differences);
    assert_eq!(result.catalogue, CatalogueState::Names);
}

/// Names and rows in another encoding than UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn another_encoding_is_compared_by_its_own_bytes() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'",
    );
    live.psql(
        "latin",
        "\\encoding UTF8
         create table \"tëst\" as select 'é' || g as v from generate_series(1, 10) g;
         create table ascii as select 'é' || g as v from generate_series(1, 10) g;
         create table small as select 1 as one;
         create sequence \"sëq\"",
    );
    let path = live.dump("latin", "latin.dump", &["-Fc"]);
    let mut wanted = expected(&path);
    assert_eq!(wanted.unnamed_rows, Some(10));
    let small = ("public".to_owned(), "small".to_owned());
    wanted.tables.get_mut(&small).unwrap().fingerprint = None;
    let copy = observed(&live, "latin", &wanted).await;
    assert!(copy.tables.keys().any(|(_, name)| name == "tëst"));
    assert!(copy.sequences.keys().any(|(_, name)| name == "sëq"));
    let result = compare(&wanted, &copy);
    assert!(result.is_equal(), "{:?}", result.differences);
    assert_eq!(result.fingerprints, 1);
    live.psql(
        "latin",
        "\\encoding UTF8\n delete from \"tëst\" where v like '%7'",
    );
    let result = compare(&wanted, &observed(&live, "latin", &wanted).await);
    assert_eq!(result.differences.len(), 1, "{:?}", result.differences);
}
