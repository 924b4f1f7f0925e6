//! Attestations of real servers: what is attested is what the source held when the dump began.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup::attest::{Attestation, TableScope};
use backup::{BackupId, BackupOptions, Clock, DumpFormat, Manifest, VerifyLevel};
use dbexec::PgExecutor;
use support::Home;
use support::real::{Login, in_container};
use testkit::{PgContainer, schema};
use tokio_util::sync::CancellationToken;

async fn back_up(
    home: &Home,
    container: &PgContainer,
    login: &Login<'_>,
    options: &BackupOptions,
) -> Manifest {
    let id = BackupId::new(home.clock.now());
    let executor: Arc<dyn PgExecutor> = in_container(container, &id, login).await;
    backup::back_up(
        &home.repo,
        &executor,
        id,
        options,
        &home.events,
        &CancellationToken::new(),
    )
    .await
    .unwrap()
    .manifest
}

fn only(database: &str, format: DumpFormat) -> BackupOptions {
    BackupOptions {
        databases: vec![database.to_owned()],
        format,
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    }
}

fn attestation(manifest: &Manifest) -> &Attestation {
    manifest.databases[0].attestation.as_ref().unwrap()
}

/// Rows of each ordinary table, counted apart from pgstow, by oid.
fn counted(container: &PgContainer, database: &str) -> BTreeMap<u32, u64> {
    let list = "select format('select %s, count(*) from only %I.%I', c.oid, n.nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace \
                where relkind = 'r' and n.nspname !~ '^(pg_|information_schema)' \\gexec";
    container
        .psql(database, list)
        .unwrap()
        .lines()
        .filter_map(|line| line.rsplit_once('|'))
        .map(|(oid, rows)| (oid.parse().unwrap(), rows.parse().unwrap()))
        .collect()
}

/// Every kind of object: what is attested is what a plain query counts, in every format, and the
/// formats agree.
async fn everything_of(major: u32) {
    let container = PgContainer::start(major).unwrap();
    schema::load_bar31(&container, "fixture").unwrap();
    let home = Home::new();
    let expected = counted(&container, "fixture");
    assert!(expected.len() > 10, "{expected:?}");
    let mut before: Option<Attestation> = None;
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let options = only("fixture", format);
        let manifest = back_up(&home, &container, &Login::default(), &options).await;
        let attested = attestation(&manifest);
        assert!(attested.snapshot);
        let whole = |table: &&backup::attest::AttestedTable| table.scope == TableScope::All;
        let found: BTreeMap<u32, u64> = attested
            .tables
            .iter()
            .filter(whole)
            .map(|table| (table.oid, table.rows))
            .collect();
        for (oid, rows) in &found {
            assert_eq!(expected.get(oid), Some(rows), "{major} {format:?}: {oid}");
        }
        // Those of extensions hold configuration or belong to the extension alone.
        let own = attested.tables.iter().filter(whole).count();
        let configuration = attested.tables.len() - own;
        assert!(
            own + configuration + 3 >= expected.len(),
            "{found:?} {expected:?}"
        );
        assert_eq!(
            manifest.target.settings["wal_level"], "replica",
            "{:?}",
            manifest.target.settings
        );
        let mut same = attested.clone();
        same.seconds = 0.0;
        match (&before, format) {
            (_, DumpFormat::Plain) => {
                assert_eq!(attested.missing.len(), 1, "{:?}", attested.missing);
            }
            (None, _) => {
                assert_eq!(attested.missing, [""; 0], "{major} {format:?}");
                assert!(
                    attested
                        .tables
                        .iter()
                        .all(|table| table.fingerprint.is_some())
                );
                assert!(attested.sequences.len() > 2 && attested.catalogue.is_some());
                let objects = attested.large_objects.as_ref().unwrap();
                assert!(objects.count > 0 && objects.fingerprint.is_some());
                before = Some(same);
            }
            (Some(before), _) => assert_eq!(same, *before, "{major} {format:?}"),
        }
        let read = backup::verify(
            &home.repo,
            &manifest.id,
            VerifyLevel::Read,
            &home.events,
            &CancellationToken::new(),
        )
        .await
        .unwrap();
        assert!(read.ok, "{major} {format:?}: {:?}", read.problems);
    }
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_everything_is_attested_on_13() {
    everything_of(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_everything_is_attested_on_15() {
    everything_of(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_everything_is_attested_on_17() {
    everything_of(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_everything_is_attested_on_18() {
    everything_of(18).await;
}

/// Rows come and go and sequences move while the dumps run: server and archive see the same
/// snapshot, so no run fails and none is told wrongly.
#[tokio::test(flavor = "multi_thread")]
async fn counts_and_archive_agree_while_rows_come_and_go() {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    schema::fill(&container, "shop", "item", 50_000).unwrap();
    container
        .psql(
            "shop",
            "create table log (id serial primary key, at timestamptz default now())",
        )
        .unwrap();
    let writer = {
        let target = container.id().to_owned();
        let loop_sql = "do $$ begin for i in 1..100000 loop \
             insert into log default values; delete from item where id = i; \
             commit; end loop; end $$";
        std::thread::spawn(move || {
            let argv = [
                "exec", &target, "psql", "-U", "postgres", "-d", "shop", "-c", loop_sql,
            ];
            // Ends with its session.
            let _ = testkit::process::docker(&argv);
        })
    };
    let moving = || {
        let sql = "select coalesce(max(id), 0) from log";
        container
            .psql("shop", sql)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let begun = std::time::Instant::now();
    while moving() < 100 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody writes");
        std::thread::sleep(Duration::from_millis(50));
    }
    let home = Home::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let first = moving();
        let manifest = back_up(&home, &container, &Login::default(), &only("shop", format)).await;
        let last = moving();
        let attested = attestation(&manifest);
        let rows = |name: &str| {
            let found = attested.tables.iter().find(|table| table.name == name);
            found.unwrap().rows
        };
        assert!(attested.snapshot && last > first);
        // Both tables at one moment: each commit adds one row here and takes one there.
        assert_eq!(rows("log") + rows("item"), 50_000);
        assert!((first..=last).contains(&rows("log")));
        if format != DumpFormat::Plain {
            let value = u64::try_from(attested.sequences[0].value).unwrap();
            assert!(value >= rows("log") && value <= last + 1, "{value}");
        }
    }
    container
        .psql(
            "postgres",
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'do $$%'",
        )
        .unwrap();
    writer.join().unwrap();
}

/// A role that may not export a snapshot: backed up all the same, and the manifest says what is
/// not proven.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_snapshots_is_backed_up_and_told() {
    let container = PgContainer::start(15).unwrap();
    container
        .psql(
            "postgres",
            "create database shop; create role backup login password 'test-secret';
             grant pg_read_all_data to backup",
        )
        .unwrap();
    schema::fill(&container, "shop", "item", 1000).unwrap();
    container
        .psql(
            "shop",
            "revoke execute on function pg_export_snapshot() from public",
        )
        .unwrap();
    let home = Home::new();
    let login = Login {
        user: "backup",
        database: "shop",
        ..Login::default()
    };
    let manifest = back_up(&home, &container, &login, &only("shop", DumpFormat::Custom)).await;
    let attested = attestation(&manifest);
    assert!(!attested.snapshot);
    assert!(
        attested
            .missing
            .iter()
            .any(|why| why.contains("permission denied")),
        "{:?}",
        attested.missing
    );
    assert_eq!(attested.tables[0].rows, 1000);
    assert!(attested.tables[0].fingerprint.is_some() && attested.catalogue.is_some());
    assert!(home.events.text().contains("permission denied"));
}

/// Rows left out on request, and a budget that only small tables fit into.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_attested_as_such() {
    let container = PgContainer::start(18).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    for (name, rows) in [("large", 20_000), ("small", 10), ("Left Out", 5)] {
        schema::fill(&container, "shop", name, rows).unwrap();
    }
    // One row, 200 kB of it out of line, which counts.
    let wide = "create table wide as select string_agg(sha512(i::text::bytea), ''::bytea) as bytes
                from generate_series(1, 3200) i";
    container.psql("shop", wide).unwrap();
    let home = Home::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let options = BackupOptions {
            exclude_table_data: vec!["\"Left Out\"".to_owned()],
            fingerprint_budget: Some(100_000),
            ..only("shop", format)
        };
        let manifest = back_up(&home, &container, &Login::default(), &options).await;
        let attested = attestation(&manifest);
        let found: Vec<_> = attested
            .tables
            .iter()
            .map(|table| {
                let fingerprint = table.fingerprint.is_some();
                (table.name.as_str(), table.rows, table.scope, fingerprint)
            })
            .collect();
        let small = format != DumpFormat::Plain;
        assert_eq!(
            found,
            [
                ("Left Out", 0, TableScope::Excluded, false),
                ("large", 20_000, TableScope::All, false),
                ("small", 10, TableScope::All, small),
                ("wide", 1, TableScope::All, false),
            ],
            "{format:?}"
        );
    }
}

/// A standby: what can be proven there is, and what cannot is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_attested_as_far_as_it_can_be() {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    schema::fill(&container, "shop", "item", 1000).unwrap();
    container
        .psql(
            "shop",
            "create sequence counter; select nextval('counter');
             create unlogged table gone as select 1 as x",
        )
        .unwrap();
    let script = "exec >/tmp/standby.log 2>&1; set -e; \
         run() { su postgres -c \"$1\"; }; \
         run 'pg_basebackup -U postgres -D /tmp/standby -R -X stream -c fast'; \
         run '/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -o \"-p 5433\" -w start'";
    let started = container.exec(&["sh", "-c", script]);
    assert!(
        started.is_ok(),
        "{}",
        container.exec(&["cat", "/tmp/standby.log"]).unwrap()
    );
    let home = Home::new();
    let login = Login {
        database: "shop",
        port: 5433,
        ..Login::default()
    };
    let manifest = back_up(&home, &container, &login, &only("shop", DumpFormat::Custom)).await;
    assert!(manifest.target.server.in_recovery);
    let attested = attestation(&manifest);
    let found: Vec<_> = attested
        .tables
        .iter()
        .map(|table| (table.name.as_str(), table.rows, table.scope))
        .collect();
    let item = ("item", 1000, TableScope::All);
    // Whether a standby exports snapshots is the server's matter; either way nothing is hidden.
    if attested.snapshot {
        assert_eq!(attested.missing, [""; 0]);
        assert_eq!(found, [("gone", 0, TableScope::Excluded), item]);
    } else {
        assert!(!attested.missing.is_empty());
        assert_eq!(found, [item]);
    }
    assert_eq!(attested.sequences[0].value, 1);
}
