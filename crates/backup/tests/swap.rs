//! Restores that replace a database, on real servers: swap, rollback, resume, and what other
//! people's databases do to them.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::Path;
use std::sync::Arc;

use backup::{
    BackupError, BackupEvent, BackupId, EventSink, RestoreJournal, RestorePlace, RestoreReport,
    RestoreRequest, RestoreStep, replacing_restores, unfinished_restores,
};
use dbexec::PgExecutor;
use support::live::{Live, file_as, words};
use support::real::{Login, in_container};
use tokio_util::sync::CancellationToken;

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
    shop_on(Live::start(major).await)
}

fn shop_on(live: Live) -> (Live, std::path::PathBuf) {
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
    there_and_back_on(with_shop(major).await).await;
}

async fn there_and_back_on((live, path): (Live, std::path::PathBuf)) {
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
async fn bar_34_swap_and_back_with_programs_of_this_host() {
    there_and_back_on(shop_on(Live::over_network(15).await)).await;
}

#[tokio::test]
async fn bar_34_the_database_of_the_login_can_be_swapped() {
    let mut live = Live::start(17).await;
    live.psql("postgres", "CREATE DATABASE shop");
    let id = BackupId::new(live.home.repo.clock.now());
    let login = Login {
        database: "shop",
        ..Login::default()
    };
    live.executor = in_container(&live.container, &id, &login).await;
    live.psql("postgres", "DROP DATABASE shop");
    there_and_back_on(shop_on(live)).await;
}

/// The server is killed as soon as the journal says that names are exchanged, and comes back.
#[tokio::test]
async fn bar_23_a_server_that_dies_in_the_swap() {
    struct Kill<'a>(&'a Live);
    impl EventSink for Kill<'_> {
        fn emit(&self, event: BackupEvent) {
            if matches!(
                event,
                BackupEvent::RestoreStep {
                    step: RestoreStep::Swapping,
                    ..
                }
            ) {
                // Somewhere in the exchange, which takes some tenths of a second.
                let id = self.0.container.id().to_owned();
                let wait = std::time::Duration::from_millis(rand::random_range(0..500));
                std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    testkit::process::docker(&["kill", &id])
                });
            }
        }
    }
    let (live, path) = with_shop(15).await;
    let newer = sum(&live);
    for _ in 0..5 {
        let plan = live.plan(&swap(&path, "shop")).await.unwrap();
        let cancel = CancellationToken::new();
        let kill = Kill(&live);
        let done = backup::restore(&live.home.repo, &live.executor, &plan, &kill, &cancel).await;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        live.container.engine("start").unwrap();
        let now = sum(&live);
        assert!(now == newer || now == "500|500", "{now} after {done:?}");
        let unfinished = unfinished_restores(&live.home.repo.state_dir).unwrap();
        assert_eq!(unfinished.is_empty(), done.is_ok(), "{done:?}");
        let repo = &live.home.repo;
        for journal in unfinished {
            let (state, _) = backup::resume(repo, &live.executor, &journal.id, &live.home.events)
                .await
                .unwrap_or_else(|error| panic!("{}", words(&error)));
            assert_eq!(state.step, RestoreStep::Swapped);
        }
        assert_eq!(sum(&live), "500|500");
        let last = journal(&live);
        backup::rollback(repo, &live.executor, &last.id, &live.home.events)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        assert_eq!(sum(&live), newer);
    }
}

#[tokio::test]
async fn bar_34_swap_and_back_on_17() {
    there_and_back(17).await;
}

#[tokio::test]
async fn bar_34_swap_and_back_on_18() {
    there_and_back(18).await;
}

/// Stops a restore where a step begins, as a kill would: the future is dropped.
struct StopAt {
    step: RestoreStep,
    there: tokio::sync::Notify,
}

impl EventSink for StopAt {
    fn emit(&self, event: BackupEvent) {
        if matches!(event, BackupEvent::RestoreStep { step, .. } if step == self.step) {
            self.there.notify_one();
        }
    }
}

async fn stopped_at(live: &Live, path: &Path, step: RestoreStep) -> RestoreJournal {
    let plan = live.plan(&swap(path, "shop")).await.unwrap();
    let stop = StopAt {
        step,
        there: tokio::sync::Notify::new(),
    };
    let cancel = CancellationToken::new();
    tokio::select! {
        biased;
        () = stop.there.notified() => {}
        done = backup::restore(&live.home.repo, &live.executor, &plan, &stop, &cancel) => {
            panic!("it did not stop at {step:?}: {done:?}");
        }
    }
    let left = unfinished_restores(&live.home.repo.state_dir).unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    left.into_iter().next().unwrap()
}

/// Puts somebody else's database in the place of another.
fn replace(live: &Live, name: &str) {
    live.psql(
        "postgres",
        &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
    );
    live.psql("postgres", &format!("CREATE DATABASE \"{name}\""));
    live.psql(name, "CREATE TABLE precious (n int)");
}

fn precious(live: &Live, name: &str) {
    live.psql(name, "SELECT * FROM precious");
}

#[tokio::test]
async fn bar_34_databases_of_others_are_left_alone() {
    let (live, path) = with_shop(15).await;
    let newer = sum(&live);
    let repo = &live.home.repo;
    // In the place of the staging database, before and after its oid was written.
    let journal = stopped_at(&live, &path, RestoreStep::Filling).await;
    replace(&live, &journal.staging);
    let (state, _) = backup::resume(repo, &live.executor, &journal.id, &live.home.events)
        .await
        .unwrap();
    assert_eq!(state.step, RestoreStep::Undone);
    precious(&live, &journal.staging);
    let journal = stopped_at(&live, &path, RestoreStep::StagingCreated).await;
    replace(&live, &journal.staging);
    match backup::resume(repo, &live.executor, &journal.id, &live.home.events).await {
        Err(BackupError::RestoreNeedsAttention { left, .. }) => {
            assert!(left.contains("left alone"), "{left}");
        }
        other => panic!("{other:?}"),
    }
    precious(&live, &journal.staging);
    // An empty one under the random name, whose oid was not written in time, is ours.
    live.psql(
        "postgres",
        &format!("DROP DATABASE \"{}\"", journal.staging),
    );
    live.psql(
        "postgres",
        &format!("CREATE DATABASE \"{}\" TEMPLATE template0", journal.staging),
    );
    let (state, _) = backup::resume(repo, &live.executor, &journal.id, &live.home.events)
        .await
        .unwrap();
    assert_eq!(state.step, RestoreStep::Undone);
    assert_eq!(oid(&live, &journal.staging), "");
    assert_eq!(sum(&live), newer);

    // In the place of the live one while the names are exchanged.
    let journal = stopped_at(&live, &path, RestoreStep::Swapping).await;
    let (state, _) = backup::rollback(repo, &live.executor, &journal.id, &live.home.events)
        .await
        .unwrap();
    assert!(
        matches!(state.step, RestoreStep::Undone | RestoreStep::RolledBack),
        "{state:?}"
    );
    assert_eq!(sum(&live), newer);
    let plan = live.plan(&swap(&path, "shop")).await.unwrap();
    live.psql("postgres", "ALTER DATABASE shop RENAME TO hidden");
    replace(&live, "shop");
    match live.apply(&plan).await {
        Err(BackupError::RestoreFailed { .. }) => {}
        other => panic!("{other:?}"),
    }
    precious(&live, "shop");
    live.psql("postgres", "DROP DATABASE shop");
    live.psql("postgres", "ALTER DATABASE hidden RENAME TO shop");

    // In the place of the old one that is kept.
    let done = live
        .restore(&swap(&path, "shop"))
        .await
        .unwrap()
        .swap
        .unwrap();
    let kept = done.kept.unwrap().name;
    replace(&live, &kept);
    match backup::rollback(repo, &live.executor, &done.restore, &live.home.events).await {
        Err(BackupError::RestoreNeedsAttention { left, .. }) => {
            assert!(left.contains("nothing was changed"), "{left}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(sum(&live), "500|500");
    backup::drop_kept(repo, &live.executor, &done.restore, &live.home.events)
        .await
        .unwrap();
    precious(&live, &kept);
}

#[tokio::test]
async fn bar_35_a_copy_that_differs_never_becomes_the_live_one() {
    struct Spoil<'a>(&'a Live);
    impl EventSink for Spoil<'_> {
        fn emit(&self, event: BackupEvent) {
            if matches!(
                event,
                BackupEvent::RestoreStep {
                    step: RestoreStep::Comparing,
                    ..
                }
            ) {
                let staging = journal(self.0).staging;
                self.0.psql(
                    &staging,
                    "UPDATE t SET v = 'x' WHERE id = 200; DELETE FROM t WHERE id = 300",
                );
            }
        }
    }
    let (live, path) = with_shop(17).await;
    let (newer, before) = (sum(&live), live.databases());
    let plan = live.plan(&swap(&path, "shop")).await.unwrap();
    let cancel = CancellationToken::new();
    let spoil = Spoil(&live);
    match backup::restore(&live.home.repo, &live.executor, &plan, &spoil, &cancel).await {
        Err(error @ BackupError::RestoreFailed { .. }) => {
            let text = words(&error);
            assert!(text.contains("t") && text.contains("499"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((sum(&live), live.databases()), (newer, before));
    assert_eq!(journal(&live).step, RestoreStep::Undone);
}

#[tokio::test]
async fn bar_34_refusals_of_a_swap_leave_everything_alone() {
    let container = testkit::PgContainer::builder(15)
        .args(&["-c", "max_prepared_transactions=2"])
        .start()
        .unwrap();
    let live = Live::of(container, 15).await;
    live.psql(
        "postgres",
        "CREATE ROLE boss LOGIN CREATEDB; CREATE DATABASE shop OWNER boss; CREATE DATABASE other",
    );
    live.psql(
        "shop",
        "CREATE TABLE t AS SELECT 1 AS id; ALTER TABLE t OWNER TO boss",
    );
    let path = live.dump("shop", "shop.dump", &["-Fc"]);
    let all = || {
        live.container
            .exec(&["pg_dumpall", "-s", "-U", "postgres"])
            .unwrap()
    };
    let strip = |text: String| -> String {
        text.lines()
            .filter(|line| !line.contains("restrict "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = strip(all());
    let refused = |result: Result<_, BackupError>, word: &str| match result {
        Err(BackupError::RestoreRefused { problem, remedy }) => {
            assert!(
                format!("{problem}; {remedy}").contains(word),
                "{problem}; {remedy}"
            );
        }
        Err(error) => panic!("{}", words(&error)),
        Ok(()) => panic!("not refused: {word}"),
    };
    let plan = async |executor: &Arc<dyn PgExecutor>, name: &str| {
        backup::plan_restore(&live.home.repo, executor, &swap(&path, name))
            .await
            .map(drop)
    };
    let id = BackupId::new(live.home.repo.clock.now());
    let login = Login {
        user: "boss",
        ..Login::default()
    };
    let boss = in_container(&live.container, &id, &login).await;
    plan(&boss, "shop").await.unwrap();
    refused(plan(&boss, "other").await, "belongs to");
    refused(plan(&live.executor, "template1").await, "template");
    // A superuser's session cannot be ended by an ordinary role.
    let sleep = "exec psql -U postgres -d shop -XAtqc 'select pg_sleep(600)'";
    testkit::process::docker(&["exec", "-d", live.container.id(), "sh", "-c", sleep]).unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND query ~ '600'";
    while live.psql("postgres", there) != "1" {}
    refused(plan(&boss, "shop").await, "may not end");
    plan(&live.executor, "shop").await.unwrap();
    live.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'",
    );
    live.psql("shop", "BEGIN; SELECT 1; PREPARE TRANSACTION 'held'");
    refused(plan(&live.executor, "shop").await, "prepared");
    live.psql("shop", "ROLLBACK PREPARED 'held'");
    assert_eq!(strip(all()), before);
    assert!(
        replacing_restores(&live.home.repo.state_dir)
            .unwrap()
            .is_empty()
    );

    // The ordinary role that owns the database may replace it, and a name that is free.
    let restore = async |name: &str| {
        let plan = backup::plan_restore(&live.home.repo, &boss, &swap(&path, name))
            .await
            .unwrap();
        let cancel = CancellationToken::new();
        backup::restore(&live.home.repo, &boss, &plan, &live.home.events, &cancel)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)))
            .swap
            .unwrap()
    };
    assert!(restore("shop").await.kept.is_some());
    let free = restore("free").await;
    assert_eq!(free.kept, None);
    assert_eq!(live.psql("free", "SELECT count(*) FROM t"), "1");
    backup::rollback(&live.home.repo, &boss, &free.restore, &live.home.events)
        .await
        .unwrap();
    assert_eq!(oid(&live, "free"), "");
}

#[tokio::test]
async fn a_plain_dump_gets_the_properties_of_the_database_that_it_replaces() {
    let (live, _) = with_shop(15).await;
    let path = live.dump("shop", "shop.sql", &["-Fp"]);
    let before = properties(&live, "shop");
    live.psql("shop", "DELETE FROM t");
    let plan = live.plan(&swap(&path, "shop")).await.unwrap();
    assert!(
        plan.warnings
            .iter()
            .any(|text| text.contains("properties of the live")),
        "{:?}",
        plan.warnings
    );
    live.apply(&plan)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(properties(&live, "shop"), before);
    assert_eq!(sum(&live), "401|9999");
}
