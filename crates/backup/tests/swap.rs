//! Restores that replace a database, on real servers: swap, rollback, resume, and what other
//! people's databases do to them.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::Path;

use backup::{
    BackupError, RestoreJournal, RestorePlace, RestoreReport, RestoreRequest, RestoreStep,
    replacing_restores, unfinished_restores,
};
use support::live::{Live, file_as, words};

const WEEK: u64 = 7 * 24 * 3600;

/// A restore of a file that replaces a database.
fn swap(path: &Path, name: &str) -> RestoreRequest {
    let mut request = file_as(path, name);
    request.place = RestorePlace::Swap {
        name: name.to_owned(),
        safety_backup: false,
        keep_old_seconds: WEEK,
    };
    request
}

async fn with_shop(major: u32) -> (Live, std::path::PathBuf) {
    let live = Live::start(major).await;
    live.psql(
        "postgres",
        "CREATE ROLE app; CREATE DATABASE shop OWNER app CONNECTION LIMIT 40; \
         ALTER DATABASE shop SET work_mem = '9MB'; REVOKE CONNECT ON DATABASE shop FROM PUBLIC; \
         COMMENT ON DATABASE shop IS 'old'",
    );
    live.psql(
        "shop",
        "CREATE TABLE t (id int primary key, v text); \
         INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 500) AS g; \
         ALTER TABLE t OWNER TO app",
    );
    let path = live.dump("shop", "shop.dump", &["-Fc"]);
    // What is newer than the dump.
    live.psql(
        "shop",
        "DELETE FROM t WHERE id <= 100; INSERT INTO t VALUES (9999, 'newer')",
    );
    (live, path)
}

fn sum(live: &Live) -> String {
    live.psql("shop", "SELECT count(*), max(id) FROM t")
}

fn oid(live: &Live, name: &str) -> String {
    live.psql(
        "postgres",
        &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"),
    )
}

fn journal(live: &Live) -> RestoreJournal {
    replacing_restores(&live.home.repo.state_dir)
        .unwrap()
        .pop()
        .unwrap()
}

fn properties(live: &Live, name: &str) -> String {
    live.psql(
        "postgres",
        &format!(
            "SELECT pg_get_userbyid(datdba), datconnlimit, datallowconn, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) AS a), \
               shobj_description(oid, 'pg_database'), \
               (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) \
             FROM pg_database AS d WHERE datname = '{name}'"
        ),
    )
}

async fn there_and_back(major: u32) {
    let (live, path) = with_shop(major).await;
    let (newer, old_oid) = (sum(&live), oid(&live, "shop"));
    let before = properties(&live, "shop");
    // A session that holds on, and one that comes again and again.
    let busy = "while true; do psql -U postgres -d shop -XAtqc 'select pg_sleep(0.05)' >/dev/null 2>&1; done & \
                exec psql -U postgres -d shop -XAtqc 'select pg_sleep(600)' >/dev/null 2>&1";
    testkit::process::docker(&["exec", "-d", live.container.id(), "sh", "-c", busy]).unwrap();
    while live.psql(
        "postgres",
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'shop' AND query ~ '600'",
    ) != "t"
    {}

    let plan = live.plan(&swap(&path, "shop")).await.unwrap();
    assert!(
        plan.replaces && plan.sessions.iter().any(|s| s.application == "psql"),
        "{:?}",
        plan.sessions
    );
    assert!(
        plan.steps.iter().any(|step| step.starts_with("swap:")),
        "{:?}",
        plan.steps
    );
    let report: RestoreReport = live
        .apply(&plan)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    let done = report.swap.unwrap();
    let outage = done.outage_seconds.unwrap();
    assert!(outage > 0.0 && outage < 2.0, "{done:?}");
    assert!(done.sessions_ended.unwrap() >= 1, "{done:?}");
    assert_eq!(sum(&live), "500|500");
    assert_eq!(properties(&live, "shop"), before);
    let kept = done.kept.unwrap();
    assert_eq!(kept.oid.to_string(), old_oid);
    assert_eq!(oid(&live, &kept.name), old_oid);
    let closed = properties(&live, &kept.name);
    assert!(closed.contains("|f|"), "{closed}");
    assert!(live.container.psql(&kept.name, "SELECT 1").is_err());
    assert_eq!(journal(&live).step, RestoreStep::Swapped);
    assert!(
        unfinished_restores(&live.home.repo.state_dir)
            .unwrap()
            .is_empty()
    );

    live.psql("shop", "INSERT INTO t VALUES (77777, 'after the restore')");
    let (state, _) = backup::rollback(
        &live.home.repo,
        &live.executor,
        &done.restore,
        &live.home.events,
    )
    .await
    .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(state.step, RestoreStep::RolledBack);
    assert_eq!(sum(&live), newer);
    assert_eq!(properties(&live, "shop"), before);
    let undone = state.kept().unwrap();
    assert!(undone.name.starts_with("shop__undone_"), "{undone:?}");
    assert_eq!(oid(&live, &undone.name), undone.oid.to_string());
    // Once more changes nothing.
    backup::rollback(
        &live.home.repo,
        &live.executor,
        &done.restore,
        &live.home.events,
    )
    .await
    .unwrap();
    assert_eq!(sum(&live), newer);
    backup::drop_kept(
        &live.home.repo,
        &live.executor,
        &done.restore,
        &live.home.events,
    )
    .await
    .unwrap();
    assert_eq!(oid(&live, &undone.name), "");
    assert_eq!(sum(&live), newer);
    assert_eq!(journal(&live).step, RestoreStep::Dropped);
    match backup::rollback(
        &live.home.repo,
        &live.executor,
        &done.restore,
        &live.home.events,
    )
    .await
    {
        Err(BackupError::RestoreRefused { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bar_34_swap_and_back_on_13() {
    there_and_back(13).await;
}

#[tokio::test]
async fn bar_34_swap_and_back_on_15() {
    there_and_back(15).await;
}

#[tokio::test]
async fn bar_34_swap_and_back_on_17() {
    there_and_back(17).await;
}

#[tokio::test]
async fn bar_34_swap_and_back_on_18() {
    there_and_back(18).await;
}
