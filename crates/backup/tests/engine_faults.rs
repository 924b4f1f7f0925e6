//! The parallel engine when something goes wrong half-way.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup::{BackupError, BackupOptions, BackupReport, DumpFormat, EngineChoice, VerifyLevel};
use storage::faulty::{Fault, FaultKind, FaultyStore};
use support::scene::Scene;
use tokio_util::sync::CancellationToken;

fn options(engine: EngineChoice) -> BackupOptions {
    BackupOptions {
        databases: vec!["shop".to_owned()],
        engine,
        jobs: Some(2),
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    }
}

fn engine_of(report: &BackupReport) -> (String, Option<String>) {
    let engine = report.manifest.databases[0].archive.engine.clone().unwrap();
    (engine.engine, engine.reason)
}

const COUNT: &str = "select count(*) from big";
/// Goes on when somebody waits for a lock on the table.
const UNTIL_AWAITED: &str = "do $$ begin
 while not exists (select from pg_locks where relation = 'big'::regclass and not granted) loop
  perform pg_sleep(0.02);
 end loop;
end $$;";
/// A mover has handed over a part of its unit, and for the rest there is no more room: that unit
/// cannot be read once more.
const BLOCKED: &str = "select count(*) = 1 from pg_stat_activity
 where application_name like 'pgstow-%-engine-m_' and wait_event = 'ClientWrite'";

/// A session that moves rows, or the one that leads, is lost: pg_dump does it alone, and says so;
/// where the engine was forced, the run fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_leads_to_stock() {
    // Where a table is one unit.
    let scene = Scene::of(13);
    for suffix in ["engine-m_", "leader"] {
        let (gate, repo) = scene.gate();
        let cancel = CancellationToken::new();
        let options = options(EngineChoice::Auto);
        let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
            gate.reached().await;
            scene.until(BLOCKED).await;
            assert!(scene.terminate(suffix) > 0, "{suffix}");
            gate.open();
        });
        let report = report.unwrap_or_else(|error| panic!("{suffix}: {error:?}"));
        let (engine, reason) = engine_of(&report);
        assert_eq!(engine, "stock", "{suffix}");
        assert!(reason.unwrap().contains("gave up"), "{suffix}");
        let told = scene.home.events.text();
        assert!(told.contains("the parallel engine gave up"), "{told}");
        assert_eq!(scene.restored(&report, COUNT), "40000");
        scene.nothing_stays();
    }
    let before = scene.home.files();
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Parallel);
    let (result, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.until(BLOCKED).await;
        assert!(scene.terminate("engine-m_") > 0);
        gate.open();
    });
    let error = result.unwrap_err();
    assert!(
        matches!(error, BackupError::EngineFailed { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("gave up"), "{error}");
    assert_eq!(scene.home.files(), before);
    scene.nothing_stays();
}

/// A server that finds no room in a file system while it reads (the condition of an extension's table
/// stands for it) is not asked once more, neither by a mover nor by pg_dump.
#[tokio::test(flavor = "multi_thread")]
async fn bar_28_a_server_without_room_is_not_read_again() {
    let scene = Scene::new();
    let full = "create extension stowtest;
        create function full_disk() returns bool language plpgsql as
        $$ begin raise 'could not resize shared memory' using errcode = '53100'; end $$;
        update pg_extension set extcondition = array['where public.full_disk()']
        where extname = 'stowtest'";
    scene.container.psql("shop", full).unwrap();
    let before = scene.home.files();
    let options = options(EngineChoice::Auto);
    let repo = &scene.home.repo;
    let result = scene.run(repo, &options, &CancellationToken::new()).await;
    let error = result.unwrap_err();
    assert!(matches!(error, BackupError::ServerFull { .. }), "{error:?}");
    assert!(error.to_string().contains("could not resize"), "{error}");
    let told = scene.home.events.text();
    assert!(!told.contains("gave up"), "{told}");
    let asked = scene.container.logs();
    assert_eq!(asked.matches("could not resize").count(), 1, "{asked}");
    assert_eq!(scene.home.files(), before);
    scene.nothing_stays();
}

/// Ends the session that leads as soon as it waits for a lock.
const END_THE_LEADER: &str = "do $$ begin
 while not exists (select from pg_stat_activity
                   where application_name like 'pgstow-%-leader' and wait_event_type = 'Lock') loop
  perform pg_sleep(0.02);
  perform pg_stat_clear_snapshot();
 end loop;
 perform pg_terminate_backend(pid) from pg_stat_activity
  where application_name like 'pgstow-%-leader';
end $$;";

/// The session that leads is lost while it lists the tables: pg_dump was started for its table of
/// contents meanwhile and is ended, and another one does it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_lost_before_the_table_of_contents_leads_to_stock() {
    let scene = Scene::new();
    let cancel = CancellationToken::new();
    let held = "select count(*) > 0 from pg_locks
                where relation = 'big'::regclass and mode = 'AccessExclusiveLock' and granted";
    let lock = format!("begin; lock table big; {END_THE_LEADER} commit");
    scene.aside(&lock);
    scene.until(held).await;
    let auto = options(EngineChoice::Auto);
    let report = scene.run(&scene.home.repo, &auto, &cancel).await.unwrap();
    let (engine, reason) = engine_of(&report);
    assert_eq!(engine, "stock");
    assert!(reason.unwrap().contains("has no snapshot"));
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert!(!attestation.missing.is_empty());
    assert_eq!(scene.restored(&report, COUNT), "40000");
    scene.nothing_stays();

    let before = scene.home.files();
    scene.aside(&lock);
    scene.until(held).await;
    let forced = options(EngineChoice::Parallel);
    let error = scene.run(&scene.home.repo, &forced, &cancel).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("has no snapshot"), "{error}");
    assert_eq!(scene.home.files(), before);
    scene.nothing_stays();
}

/// Whoever waits for our locks to change a table gets it when the engine gives up, and the rows as
/// they were are then not seen any more in the snapshot: pg_dump alone needs another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_rewritten_when_the_engine_gives_up_is_not_dumped_empty() {
    let scene = Scene::of(13);
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Auto);
    let (result, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.until(BLOCKED).await;
        scene.aside("alter table big alter column id type bigint");
        let waits = "select count(*) > 0 from pg_stat_activity
                     where query like 'alter table big%' and wait_event_type = 'Lock'";
        scene.until(waits).await;
        assert!(scene.terminate("engine-m_") > 0);
        gate.open();
    });
    match result {
        Ok(report) => {
            assert_eq!(engine_of(&report).0, "stock");
            assert_eq!(scene.restored(&report, COUNT), "40000");
        }
        // The change was under way when that snapshot was taken.
        Err(error) => {
            assert!(
                matches!(error, BackupError::AttestationFailed { .. }),
                "{error:?}"
            );
            assert!(scene.home.files().is_empty());
        }
    }
    scene.nothing_stays();
}

/// A mover that is lost before anything of its unit was handed over: another one reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_which_nothing_was_handed_over_is_read_again() {
    let scene = Scene::new();
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Parallel);
    let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        // The tables come first, and there is no room for all of their rows.
        gate.reached().await;
        scene.aside("begin; lock table pg_largeobject; select pg_sleep(60), 'holder'");
        let held = "select count(*) > 0 from pg_locks
                    where relation = 'pg_largeobject'::regclass and mode = 'AccessExclusiveLock' and granted";
        scene.until(held).await;
        gate.open();
        let waits = "select count(*) > 0 from pg_stat_activity
                     where application_name like 'pgstow-%-engine-m_' and wait_event_type = 'Lock'";
        scene.until(waits).await;
        let one = "select count(pg_terminate_backend(pid)) = 1 from pg_stat_activity
                   where application_name like 'pgstow-%-engine-m_' and wait_event_type = 'Lock'";
        assert_eq!(scene.psql(one), "t");
        let holder = "select count(pg_terminate_backend(pid)) = 1 from pg_stat_activity
                      where query like 'begin; lock table%'";
        assert_eq!(scene.psql(holder), "t");
    });
    let report = report.unwrap();
    assert_eq!(engine_of(&report), ("parallel".to_owned(), None));
    let rows = "select (select count(*) from big) || ' ' || (select count(*) from small) || ' '
                || (select string_agg(encode(lo_get(oid), 'escape'), ',') from pg_largeobject_metadata)";
    assert_eq!(scene.restored(&report, rows), "40000 10 x");
    scene.nothing_stays();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_killed_fails_the_run() {
    let scene = Scene::new();
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Auto);
    let (result, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.container.engine("kill").unwrap();
        gate.open();
    });
    let error = result.unwrap_err();
    assert!(scene.home.files().is_empty(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_fails_the_run() {
    let scene = Scene::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let fault = Fault::AtByte(5 << 20, FaultKind::Full);
        let store = FaultyStore::new(Arc::clone(&scene.home.repo.store), fault);
        let repo = scene.home.with_store(Arc::new(store));
        let options = BackupOptions {
            format,
            ..options(EngineChoice::Auto)
        };
        let cancel = CancellationToken::new();
        let error = scene.run(&repo, &options, &cancel).await.unwrap_err();
        assert!(matches!(error, BackupError::Store { .. }), "{error:?}");
        scene.nothing_is_published();
    }
}

/// Whoever wants to change a table waits for us, and we do not wait for him: the units of that
/// table are read by the session that has its lock.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_queues_behind_us_stops_nothing() {
    let scene = Scene::new();
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Parallel);
    let (report, ()) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        scene.aside("alter table big alter column id type bigint");
        let waits = "select count(*) > 0 from pg_stat_activity
                     where query like 'alter table big%' and wait_event_type = 'Lock'";
        scene.until(waits).await;
        gate.open();
    });
    let report = report.unwrap();
    assert_eq!(engine_of(&report), ("parallel".to_owned(), None));
    assert_eq!(scene.restored(&report, COUNT), "40000");
    let changed = "select format_type(atttypid, null) = 'bigint' from pg_attribute
                   where attrelid = 'big'::regclass and attname = 'id'";
    scene.until(changed).await;
    scene.nothing_stays();
}

/// A table that is emptied after the snapshot and before the lock would look empty in it, also to
/// pg_dump: the dump is made in another snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_rewritten_before_the_lock_is_noticed() {
    let scene = Scene::new();
    scene.aside(&format!(
        "begin; truncate big; insert into big values (1, 'x'), (2, 'y'); {UNTIL_AWAITED} commit"
    ));
    let held = "select count(*) > 0 from pg_locks
                where relation = 'big'::regclass and mode = 'AccessExclusiveLock' and granted";
    scene.until(held).await;
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Auto);
    let report = scene
        .run(&scene.home.repo, &options, &cancel)
        .await
        .unwrap();
    let (engine, reason) = engine_of(&report);
    assert_eq!(engine, "stock");
    assert!(reason.unwrap().contains("rewritten or emptied"));
    assert_eq!(scene.restored(&report, COUNT), "2");
}

/// The same without the engine: pg_dump and the count agree about no rows, and both are wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_rewritten_before_the_lock_of_pg_dump_fails_the_run() {
    let scene = Scene::new();
    scene.psql("create table never (a int)");
    scene.aside(&format!(
        "begin; alter table big alter column id type bigint; {UNTIL_AWAITED} commit"
    ));
    let held = "select count(*) > 0 from pg_locks
                where relation = 'big'::regclass and mode = 'AccessExclusiveLock' and granted";
    scene.until(held).await;
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Stock);
    let error = scene
        .run(&scene.home.repo, &options, &cancel)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BackupError::AttestationFailed { problems, .. }
            if problems.len() == 1 && problems[0].contains("public.big was rewritten or emptied")),
        "{error:?}"
    );
    scene.nothing_is_published();
    // Afterwards it is a table like any other, and so is one without rows.
    let report = scene
        .run(&scene.home.repo, &options, &cancel)
        .await
        .unwrap();
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert_eq!(attestation.missing, Vec::<String>::new());
    let rows: Vec<_> = attestation.tables.iter().map(|table| table.rows).collect();
    assert_eq!(rows, [40_000, 0, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_08_a_cancelled_run_leaves_nothing() {
    let scene = Scene::new();
    let (gate, repo) = scene.gate();
    let cancel = CancellationToken::new();
    let options = options(EngineChoice::Auto);
    let (result, cancelled) = tokio::join!(scene.run(&repo, &options, &cancel), async {
        gate.reached().await;
        cancel.cancel();
        Instant::now()
    });
    let took = cancelled.elapsed();
    assert!(matches!(
        result.unwrap_err(),
        BackupError::Interrupted { .. }
    ));
    assert!(took < Duration::from_secs(5), "{took:?}");
    scene.nothing_is_published();
}
