//! The parallel engine against real servers: its archives are those of pg_dump.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use backup::{BackupReport, DumpFormat, EngineChoice};
use support::Home;
use support::stock::{assert_same_script, attestation, back_up, options, put_archive, restores};
use testkit::{PgContainer, schema};

/// Tables of every shape that matters to whoever moves rows; `wide` and `split` are cut into
/// ranges where the server can.
const TABLES: &str = r#"
create schema gen;
set search_path = gen;
create table split (id int, filler text);
insert into split select g, repeat(md5(g::text), 6) || E'\t\\\n' from generate_series(1, 130000) g;
delete from split where id % 7 = 0;
update split set id = -id where id % 11 = 0;
create table wide (id int primary key, doc text);
alter table wide alter doc set storage external;
insert into wide select g, (select string_agg(md5(g::text || i), '') from generate_series(1, 1500) i)
  from generate_series(1, 700) g;
create table none ();
insert into none select from generate_series(1, 13);
create table made (a int, b int generated always as (a * 2) stored, c text, d int);
insert into made (a, c, d) select g, null, 1 from generate_series(1, 100) g;
alter table made drop column c;
alter table made add column e timestamptz default '2026-01-01 00:00:00+00';
create table parent (id int, z text, a text);
create table child (extra int) inherits (parent);
create table middle (a text, b int);
create table both_of (q int) inherits (parent, middle);
insert into parent select g, 'z' || g, 'a' from generate_series(1, 50) g;
insert into child select g, 'z', 'a', 4 from generate_series(1, 60) g;
insert into both_of select g, 'z', 'a', 4, 5 from generate_series(1, 70) g;
create schema "s.""( $(x) '";
create table "s.""( $(x) '"."t) FROM stdin;
" ("a, b" int, "c)""" text, "select" float8, "ü" interval);
insert into "s.""( $(x) '"."t) FROM stdin;
" values (1, E'\\N', 1e300, '1 day 2 hours'), (2, null, 'NaN', null), (3, '', -0.1, '-1 mon');
create table parts (id int, v bytea) partition by range (id);
create table parts_1 partition of parts for values from (0) to (100);
create table parts_2 partition of parts for values from (100) to (1000);
insert into parts select g, decode(md5(g::text), 'hex') from generate_series(1, 500) g;
create unlogged table scratch (a int);
insert into scratch values (1);
create materialized view counted as select count(*) from split;
select lo_from_bytea(0, decode(repeat(md5(g::text), g % 40), 'hex')) from generate_series(1, 620) g;
select lo_from_bytea(0, decode(repeat('00ff17', 900000), 'hex'));
select lo_from_bytea(0, decode(repeat('ab', 1048576), 'hex'));
do $$ declare o oid; begin o := lo_create(0); perform lo_put(o, 5000000, 'end'); end $$;
"#;

/// Both formats of one major: text of pg_restore, restored databases, counts and fingerprints.
async fn equals_stock(major: u32) {
    let container = PgContainer::start(major).unwrap();
    schema::load_bar31(&container, "shop").unwrap();
    container.psql("shop", TABLES).unwrap();
    let home = Home::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let ours = back_up(&home, &container, &options(format, EngineChoice::Parallel)).await;
        let stock = back_up(&home, &container, &options(format, EngineChoice::Stock)).await;
        let archive = &ours.manifest.databases[0].archive;
        let engine = archive.engine.as_ref().unwrap();
        assert_eq!((engine.engine.as_str(), engine.jobs), ("parallel", Some(2)));
        assert!(
            engine.route.as_deref().unwrap().contains("socket"),
            "{engine:?}"
        );
        let compression = if major < 16 { "gzip:1" } else { "zstd:1-3" };
        assert_eq!(archive.compression, compression);

        let mine = put_archive(&container, &home, &ours, "ours");
        let theirs = put_archive(&container, &home, &stock, "stock");
        let what = format!("major {major}, {format:?}");
        assert_same_script(&container, &mine, &theirs, &what);
        let into = format!("{format:?}").to_lowercase();
        restores(&container, &mine, None, &format!("{into}_1"));
        restores(&container, &mine, Some("-j3"), &format!("{into}_2"));

        // What is attested is what stock's archive was found to hold.
        let (ours, stock) = (attestation(&ours), attestation(&stock));
        assert!(ours.missing.is_empty(), "{what}: {:?}", ours.missing);
        assert_eq!(ours.tables, stock.tables, "{what}");
        assert_eq!(ours, stock, "{what}");
        for table in &ours.tables {
            if table.scope == backup::attest::TableScope::All {
                let name = format!(
                    "{}.{}",
                    schema::quoted(&table.schema),
                    schema::quoted(&table.name)
                );
                let count = format!("select count(*) from only {name}");
                let count = container.psql("shop", &count).unwrap();
                assert_eq!(count.trim(), table.rows.to_string(), "{what}: {name}");
                assert!(table.fingerprint.is_some());
            }
        }
        assert_eq!(
            ours.large_objects.as_ref().unwrap().count,
            623 + bar31_objects(&container)
        );
    }
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
}

fn bar31_objects(container: &PgContainer) -> u64 {
    let count = "select count(*) - 623 from pg_largeobject_metadata";
    container
        .psql("shop", count)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_major_13_are_those_of_pg_dump() {
    equals_stock(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_major_15_are_those_of_pg_dump() {
    equals_stock(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_major_17_are_those_of_pg_dump() {
    equals_stock(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_major_18_are_those_of_pg_dump() {
    equals_stock(18).await;
}

/// A small generator, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Types with an expression over `g` that gives a value of each.
const TYPES: &[(&str, &str)] = &[
    ("int", "g"),
    ("bigint", "g::bigint * 4000000000"),
    ("numeric", "g / 7.0"),
    ("float8", "sqrt(g)"),
    ("float4", "g / 3.0"),
    ("text", r"repeat(chr(9 + g % 3) || '\' || chr(228), g % 5)"),
    ("varchar(9)", "left(md5(g::text), g % 10)"),
    ("bytea", "decode(md5(g::text), 'hex')"),
    (
        "timestamptz",
        "'2026-03-29 00:00+00'::timestamptz + g * interval '17 min'",
    ),
    ("date", "'1999-12-31'::date + g"),
    ("interval", "g * interval '1 mon 2 days 3.5 s'"),
    (
        "jsonb",
        r#"jsonb_build_object('k"', g, 'n', array[g, null])"#,
    ),
    ("bool", "g % 3 = 0"),
    ("uuid", "md5(g::text)::uuid"),
    ("text[]", r"array['a,b', null, '{' || g, '\']"),
    ("inet", "('10.0.0.' || g % 256)::inet"),
    ("bit varying", "g::bit(32)::bit varying"),
    ("int4range", "int4range(g, g + 5)"),
    ("point", "point(g, -g)"),
];

/// A database of tables of any shape, from a number.
fn random_schema(seed: u64) -> String {
    let random = &mut Random(seed);
    let mut sql = String::new();
    for number in 0..24 {
        let odd = schema::ODD_NAMES[random.below(schema::ODD_NAMES.len())];
        let name: String = format!("{number} {odd}").chars().take(20).collect();
        let table = schema::quoted(&name);
        let count = random.below(9);
        let columns: Vec<(String, &str, &str)> = (0..count)
            .map(|column| {
                let (kind, value) = TYPES[random.below(TYPES.len())];
                let odd = schema::ODD_NAMES[random.below(schema::ODD_NAMES.len())];
                let name: String = format!("{odd} {column}").chars().rev().take(15).collect();
                (schema::quoted(&name), kind, value)
            })
            .collect();
        let made: Vec<String> = columns
            .iter()
            .map(|(name, kind, _)| format!("{name} {kind}"))
            .collect();
        let nulls = 2 + random.below(6);
        let values: Vec<String> = columns
            .iter()
            .map(|(_, _, value)| format!("case when g % {nulls} > 0 then {value} end"))
            .collect();
        let rows = [0, 1, 50, 3000][random.below(4)];
        sql.push_str(&format!(
            "create table {table} ({});\ninsert into {table} select {} from generate_series(1, {rows}) g;\n",
            made.join(", "),
            values.join(", "),
        ));
        if rows > 1 && random.below(2) == 0 {
            sql.push_str(&format!(
                "delete from {table} where ctid::text like '%3)';\n"
            ));
        }
        if let (Some((name, _, _)), 0) = (columns.first(), random.below(3)) {
            sql.push_str(&format!("alter table {table} drop column {name};\n"));
        }
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn random_schemas_are_archived_as_by_pg_dump() {
    for (major, seeds) in [(13, [1, 2]), (15, [3, 4]), (17, [5, 6]), (18, [7, 8])] {
        let container = PgContainer::start(major).unwrap();
        let home = Home::new();
        for seed in seeds {
            container
                .psql("postgres", "drop database if exists shop")
                .unwrap();
            container.psql("postgres", "create database shop").unwrap();
            container.psql("shop", &random_schema(seed)).unwrap();
            for format in [DumpFormat::Custom, DumpFormat::Directory] {
                let what = format!("major {major}, {format:?}, seed {seed}");
                let ours =
                    back_up(&home, &container, &options(format, EngineChoice::Parallel)).await;
                let stock = back_up(&home, &container, &options(format, EngineChoice::Stock)).await;
                let mine = put_archive(&container, &home, &ours, "ours");
                let theirs = put_archive(&container, &home, &stock, "stock");
                assert_same_script(&container, &mine, &theirs, &what);
                let tables = |report: &BackupReport| attestation(report).tables;
                assert_eq!(tables(&ours), tables(&stock), "{what}");
            }
        }
    }
}
