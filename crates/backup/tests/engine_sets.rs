//! The data sets of the bench, small, through the parallel engine: its archives are those of
//! pg_dump.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use backup::{DumpFormat, EngineChoice};
use support::Home;
use support::stock::{assert_same_script, attestation, back_up, options, put_archive, restores};
use testkit::process::run;
use testkit::sets::{Set, Sizes};
use testkit::{PgContainer, schema};

/// So large that the big table, the documents and the noise are each of several units of the
/// engine.
fn sizes(set: Set) -> Sizes {
    Sizes {
        megabytes: match set {
            Set::Big => 36,
            Set::Pgbench => 15,
            _ => 28,
        },
        tables: 200,
        objects: 700,
        empty_tables: 200,
    }
}

/// All sets in one database; their names differ.
fn filled(major: u32) -> PgContainer {
    let settings = ["fsync=off", "full_page_writes=off", "autovacuum=off"];
    let container = PgContainer::builder(major)
        .args(&settings.map(|setting| ["-c", setting]).concat())
        .start()
        .unwrap();
    container.psql("postgres", "create database shop").unwrap();
    for set in Set::ALL {
        let sizes = sizes(*set);
        if let Some(sql) = set.sql(&sizes) {
            container.psql("shop", &sql).unwrap();
        } else {
            let scale = sizes.pgbench_scale().to_string();
            let argv = [
                "pgbench", "-U", "postgres", "-i", "-q", "-s", &scale, "shop",
            ];
            container.exec(&argv).unwrap();
        }
    }
    // Rows that were deleted and written again leave gaps in the pages of a split table.
    let sql =
        "delete from orders where id % 13 = 0; update orders set note = '' where id % 17 = 0;";
    container.psql("shop", sql).unwrap();
    container.psql("shop", "vacuum analyze").unwrap();
    let wide = "select count(*) > 0 and bool_and(pg_column_size(body) > 2000) from documents";
    assert_eq!(container.psql("shop", wide).unwrap().trim(), "t");
    container
        .psql(
            "postgres",
            "alter system set log_statement = 'all'; select pg_reload_conf();",
        )
        .unwrap();
    container
}

/// Ranges of a table that sessions asked the server for so far, as its log tells.
fn ranges_read(log: &str, table: &str) -> usize {
    let copy = format!("from only public.{table} where ctid ");
    log.lines().filter(|line| line.contains(&copy)).count()
}

/// The server writes its log to standard error.
fn log(container: &PgContainer) -> String {
    let script = "exec docker logs \"$1\" 2>&1";
    run("sh", &["-c", script, "logs", container.id()]).unwrap()
}

/// Both formats of one major.
async fn equals_stock(major: u32) {
    let container = filled(major);
    let schema = schema::schema_dump(&container, "shop").unwrap();
    let home = Home::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let what = format!("major {major}, {format:?}");
        let ours = back_up(&home, &container, &options(format, EngineChoice::Parallel)).await;
        let stock = back_up(&home, &container, &options(format, EngineChoice::Stock)).await;
        assert_eq!(attestation(&ours), attestation(&stock), "{what}");

        let mine = put_archive(&container, &home, &ours, "ours");
        let theirs = put_archive(&container, &home, &stock, "stock");
        assert_same_script(&container, &mine, &theirs, &what);
        for jobs in [None, Some("-j2")] {
            restores(&container, &mine, jobs, "copy");
            assert_eq!(
                schema::schema_dump(&container, "copy").unwrap(),
                schema,
                "{what}, {jobs:?}"
            );
            container.psql("postgres", "drop database copy").unwrap();
        }
    }
    let log = log(&container);
    for table in ["orders", "documents", "noise"] {
        let ranges = ranges_read(&log, table);
        // Two archives; servers before 14 find no rows by ctid.
        let enough = if major < 14 { ranges == 0 } else { ranges >= 6 };
        assert!(enough, "major {major}: {table} in {ranges} ranges");
    }
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sets_of_the_bench_on_13_are_archived_as_by_pg_dump() {
    equals_stock(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sets_of_the_bench_on_15_are_archived_as_by_pg_dump() {
    equals_stock(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sets_of_the_bench_on_17_are_archived_as_by_pg_dump() {
    equals_stock(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sets_of_the_bench_on_18_are_archived_as_by_pg_dump() {
    equals_stock(18).await;
}
