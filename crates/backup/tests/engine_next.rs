//! Sessions: the next database begins while the last rows of the one before it are on their way, and
//! a server may have fewer than there are to be.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup::{BackupError, BackupOptions, BackupReport, EngineChoice, VerifyLevel};
use storage::faulty::{Fault, FaultKind, FaultyStore};
use support::scene::Scene;
use testkit::PgContainer;
use tokio_util::sync::CancellationToken;

/// The session is there that leads in the next database.
const BEGUN: &str = "select count(*) = 1 from pg_stat_activity
 where datname = 'next' and application_name like 'pgstow-%-leader'";
/// Nothing of ours is in the next database.
const GONE: &str = "not exists (select from pg_stat_activity
 where datname = 'next' and application_name like 'pgstow-%')";

/// Every mover has handed over its last rows.
const MOVERS_GONE: &str = "select not exists (select from pg_stat_activity
 where application_name like 'pgstow-%-engine-m_')";

/// Two databases, and sessions enough for both.
fn scene(major: u32) -> Scene {
    let mut scene = Scene::of(major);
    scene.sessions = 6;
    scene.psql("create database next");
    let rows = "create table few as select g from generate_series(1, 7) g";
    scene.container.psql("next", rows).unwrap();
    scene
}

fn options() -> BackupOptions {
    BackupOptions {
        databases: vec!["next".to_owned(), "shop".to_owned()],
        engine: EngineChoice::Auto,
        jobs: Some(2),
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    }
}

/// Engine and rows of each database, in the order of their names.
fn dumped(report: &BackupReport) -> Vec<(String, u64)> {
    let databases = report.manifest.databases.iter();
    let dumped = databases.map(|database| {
        let engine = database.archive.engine.as_ref().unwrap();
        let attestation = database.attestation.as_ref().unwrap();
        let rows = attestation.tables.iter().map(|table| table.rows).sum();
        (engine.engine.clone(), rows)
    });
    dumped.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_database_begins_before_the_last_rows_are_stored() {
    let mut scene = scene(17);
    let (cancel, options) = (CancellationToken::new(), options());
    let both = [("parallel".to_owned(), 7), ("parallel".to_owned(), 40_010)];
    let report = scene.run(&scene.home.repo, &options, &cancel).await;
    let report = report.unwrap();
    assert_eq!(dumped(&report), both);
    let stored = report.manifest.databases[1].archive.files[0].bytes;

    // What is left then finds room to wait.
    let at = stored - (3 << 20);
    let (gate, repo) = scene.gate_at(at, Arc::clone(&scene.home.repo.store));
    let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.until(BEGUN).await;
        gate.open();
    });
    assert_eq!(dumped(&report.unwrap()), both);
    scene.nothing_stays();

    // Where sessions are few, it does not.
    scene.sessions = 5;
    let (gate, repo) = scene.gate_at(at, Arc::clone(&scene.home.repo.store));
    let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        // The last unit was taken up long before its mover ends.
        scene.until(MOVERS_GONE).await;
        assert_eq!(scene.psql(&format!("select {GONE}")), "t");
        gate.open();
    });
    assert_eq!(dumped(&report.unwrap()), both);
}

/// A table is one unit before 14, so that all are taken while most rows are still to come.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_ended_where_the_dump_before_it_fails_or_begins_again() {
    let scene = scene(13);
    let (cancel, options) = (CancellationToken::new(), options());

    // The store is full.
    let fault = Fault::AtByte(5 << 20, FaultKind::Full);
    let store = FaultyStore::new(Arc::clone(&scene.home.repo.store), fault);
    let (gate, repo) = scene.gate_at(3 << 20, Arc::new(store));
    let (result, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.until(BEGUN).await;
        gate.open();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, BackupError::Store { .. }), "{error:?}");
    scene.nothing_is_published();

    // Somebody ends the run.
    let (gate, repo) = scene.gate();
    let stop = CancellationToken::new();
    let (result, cancelled) = tokio::join!(scene.run(&repo, &options, &stop), async {
        gate.reached().await;
        scene.until(BEGUN).await;
        stop.cancel();
        Instant::now()
    });
    let took = cancelled.elapsed();
    let error = result.unwrap_err();
    assert!(
        matches!(error, BackupError::Interrupted { .. }),
        "{error:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    scene.nothing_is_published();

    // pg_dump alone begins again, and that may take hours: the locks of the next database are given
    // back. Whoever has the table goes on when they are.
    let holder = format!(
        "begin; lock table big; do $$ begin
          while not ({GONE}) loop
           perform pg_sleep(0.05);
           perform pg_stat_clear_snapshot();
          end loop; end $$; commit"
    );
    let (gate, repo) = scene.gate();
    let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.until(BEGUN).await;
        scene.aside(&holder);
        let waits = "select count(*) > 0 from pg_stat_activity
                     where query like 'begin; lock table big%' and wait_event_type = 'Lock'";
        scene.until(waits).await;
        let blocked = "select count(*) = 1 from pg_stat_activity
            where application_name like 'pgstow-%-engine-m_' and wait_event = 'ClientWrite'";
        scene.until(blocked).await;
        assert!(scene.terminate("engine-m_") > 0);
        gate.open();
    });
    let found = dumped(&report.unwrap());
    let wanted = [("parallel".to_owned(), 7), ("stock".to_owned(), 40_010)];
    assert_eq!(found, wanted);
    let told = scene.home.events.text();
    assert_eq!(told.matches("gave up").count(), 2, "{told}");
    scene.nothing_stays();
}

#[tokio::test(flavor = "multi_thread")]
async fn movers_for_which_there_is_no_connection_are_done_without() {
    let few = PgContainer::builder(17).args(&["-c", "max_connections=8"]);
    let mut scene = Scene::on(few.start().unwrap());
    scene.sessions = 12;
    let options = BackupOptions {
        databases: vec!["shop".to_owned()],
        jobs: Some(8),
        ..options()
    };
    let cancel = CancellationToken::new();
    let report = scene.run(&scene.home.repo, &options, &cancel).await;
    let report = report.unwrap();
    assert_eq!(dumped(&report), [("parallel".to_owned(), 40_010)]);
    let engine = report.manifest.databases[0].archive.engine.clone();
    let jobs = engine.unwrap().jobs.unwrap();
    assert!((1..8).contains(&jobs), "{jobs}");
    let told = scene.home.events.text();
    let words = format!("{jobs} movers instead of 8 for");
    assert!(told.contains(&words), "{told}");
    assert!(told.contains("the server had no connection"), "{told}");
    assert_eq!(scene.restored(&report, "select count(*) from big"), "40000");
    scene.nothing_stays();
}
