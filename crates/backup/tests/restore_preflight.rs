//! Refusals of a restore before anything is touched: each leaves the target as it was, to the
//! last byte of its catalogue.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;

use backup::{
    BackupError, BackupId, BackupOptions, Clock, DumpFormat, RestorePlace, RestoreRequest,
    RestoreSource, RolesPolicy,
};
use dbexec::PgExecutor;
use support::live::{Live, file_as, words};
use support::real::{Login, in_container};
use testkit::PgContainer;
use tokio_util::sync::CancellationToken;

/// The whole cluster's catalogue: roles, settings and every database's objects.
fn catalogue(live: &Live) -> String {
    let dump = live
        .container
        .exec(&["pg_dumpall", "-s", "-U", "postgres"])
        .unwrap();
    let random = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    dump.lines().filter(random).collect::<Vec<_>>().join("\n")
}

/// Plans with an executor; it has to be refused and to leave everything as it was.
async fn refused_by(
    live: &Live,
    executor: &Arc<dyn PgExecutor>,
    request: &RestoreRequest,
) -> (String, String) {
    let before = catalogue(live);
    assert!(before.contains("CREATE ROLE"), "{before}");
    let result = backup::plan_restore(&live.home.repo, executor, request).await;
    let refusal = match result {
        Err(BackupError::RestoreRefused { problem, remedy }) => (problem, remedy),
        Err(other) => panic!("another error: {}", words(&other)),
        Ok(plan) => panic!("it was not refused: {:?}", plan.steps),
    };
    assert_eq!(catalogue(live), before);
    assert_eq!(live.container.pgstow_sessions().unwrap(), 0);
    refusal
}

async fn refused(live: &Live, request: &RestoreRequest) -> (String, String) {
    refused_by(live, &live.executor, request).await
}

async fn as_user(live: &Live, user: &str) -> Arc<dyn PgExecutor> {
    let login = Login {
        user,
        ..Login::default()
    };
    in_container(
        &live.container,
        &BackupId::new(live.home.clock.now()),
        &login,
    )
    .await
}

async fn back_up(live: &Live, format: DumpFormat) -> BackupId {
    let options = BackupOptions {
        format,
        ..BackupOptions::default()
    };
    let id = BackupId::new(live.home.clock.now());
    let cancel = CancellationToken::new();
    let (repo, events) = (&live.home.repo, &live.home.events);
    backup::back_up(repo, &live.executor, id.clone(), &options, events, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    id
}

fn backup_as(id: &BackupId, database: &str, name: &str) -> RestoreRequest {
    let mut request = file_as(std::path::Path::new(""), name);
    request.source = RestoreSource::Backup(id.to_string());
    request.database = Some(database.to_owned());
    request
}

/// Files of an extension that consists of SQL.
fn install(live: &Live, name: &str, version: &str, script: &str) {
    let major = live.psql(
        "postgres",
        "select current_setting('server_version_num')::int / 10000",
    );
    let dir = format!("/usr/share/postgresql/{major}/extension");
    let control = format!("default_version = '{version}'\nrelocatable = false\n");
    for (file, text) in [
        (format!("{dir}/{name}.control"), control.as_str()),
        (format!("{dir}/{name}--{version}.sql"), script),
    ] {
        live.container
            .exec(&["sh", "-c", "printf '%s' \"$2\" > \"$1\"", "-", &file, text])
            .unwrap();
    }
}

#[tokio::test]
async fn missing_roles() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE ROLE \"odd \"\"role\"; CREATE TABLE t (a int); ALTER TABLE t OWNER TO \"odd \"\"role\"",
    );
    let file = live.dump("postgres", "custom", &["-Fc"]);
    let id = back_up(&live, DumpFormat::Custom).await;
    let mut other = Live::start(15).await;
    other.home.repo = live.home.repo.clone();
    let (problem, remedy) = refused(&other, &file_as(&file, "copy")).await;
    assert!(problem.contains("no roles \"odd \\\"role\""), "{problem}");
    assert!(remedy.contains("--owner none"), "{remedy}");
    let (_, remedy) = refused(&other, &backup_as(&id, "postgres", "copy")).await;
    assert!(remedy.contains("--roles create"), "{remedy}");
    // A file has no globals to create them from.
    let mut request = file_as(&file, "copy");
    request.roles = RolesPolicy::Create;
    let (problem, _) = refused(&other, &request).await;
    assert!(problem.contains("holds no globals"), "{problem}");
}

#[tokio::test]
async fn missing_extensions_and_versions() {
    let live = Live::start(17).await;
    install(&live, "rare", "3.1", "CREATE TABLE rare_things (a int);");
    install(&live, "timescaledb", "2.0", "CREATE TABLE chunks (a int);");
    live.psql("postgres", "CREATE DATABASE src; CREATE DATABASE time");
    live.psql("src", "CREATE EXTENSION rare; CREATE TABLE t (a int)");
    live.psql("time", "CREATE EXTENSION timescaledb");
    let id = back_up(&live, DumpFormat::Custom).await;
    let mut other = Live::start(17).await;
    other.home.repo = live.home.repo.clone();
    let (problem, remedy) = refused(&other, &backup_as(&id, "src", "copy")).await;
    assert!(problem.contains("no extensions \"rare 3.1\""), "{problem}");
    assert!(remedy.contains("install"), "{remedy}");
    // Rows of TimescaleDB are read by the version that wrote them.
    install(&other, "timescaledb", "2.1", "CREATE TABLE chunks (a int);");
    let (problem, remedy) = refused(&other, &backup_as(&id, "time", "copy")).await;
    assert!(
        problem.contains("timescaledb 2.0") && problem.contains("has 2.1"),
        "{problem}"
    );
    assert!(remedy.contains("timescaledb 2.0"), "{remedy}");
    let mut in_place = backup_as(&id, "time", "copy");
    in_place.place = RestorePlace::InPlace {
        name: "time".to_owned(),
    };
    let (problem, _) = refused(&live, &in_place).await;
    assert!(problem.contains("one transaction"), "{problem}");
}

#[tokio::test]
async fn missing_rights() {
    let live = Live::start(17).await;
    install(&live, "rare", "3.1", "CREATE TABLE rare_things (a int);");
    live.psql(
        "postgres",
        "CREATE ROLE maker LOGIN CREATEDB; CREATE ROLE nobody LOGIN; CREATE ROLE team;
         GRANT team TO maker WITH SET FALSE;
         CREATE DATABASE plain OWNER maker; CREATE DATABASE owned OWNER maker;
         CREATE DATABASE trigger OWNER maker; CREATE DATABASE extended OWNER maker;
         CREATE DATABASE far OWNER maker",
    );
    live.psql(
        "plain",
        "CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO maker",
    );
    live.psql(
        "owned",
        "CREATE TABLE t (a int); ALTER TABLE t OWNER TO team",
    );
    live.psql(
        "trigger",
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
    );
    live.psql("extended", "CREATE EXTENSION rare; CREATE EXTENSION citext");
    live.psql("far", "CREATE FOREIGN DATA WRAPPER w");
    let dump = |database: &str| live.dump(database, database, &["-Fc"]);
    let maker = as_user(&live, "maker").await;
    let nobody = as_user(&live, "nobody").await;

    let request = file_as(&dump("plain"), "copy");
    let (problem, remedy) = refused_by(&live, &nobody, &request).await;
    assert!(problem.contains("may not create databases"), "{problem}");
    assert!(remedy.contains("CREATEDB"), "{remedy}");
    // Nothing is in the way of what it owns.
    let plan = backup::plan_restore(&live.home.repo, &maker, &request).await;
    let cancel = CancellationToken::new();
    let (repo, events) = (&live.home.repo, &live.home.events);
    backup::restore(repo, &maker, &plan.unwrap(), events, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    let owner = "SELECT tableowner FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(live.psql("copy", owner), "maker");

    let mut request = file_as(&dump("owned"), "copy2");
    let (problem, remedy) = refused_by(&live, &maker, &request).await;
    assert!(
        problem.contains("may not give objects to") && problem.contains("\"team\""),
        "{problem}"
    );
    assert!(
        remedy.contains("GRANT \"team\" TO \"maker\"") && remedy.contains("--owner none"),
        "{remedy}"
    );
    request.keep_owner = false;
    backup::plan_restore(repo, &maker, &request).await.unwrap();

    request = file_as(&dump("trigger"), "copy2");
    request.keep_owner = false;
    let (problem, remedy) = refused_by(&live, &maker, &request).await;
    assert!(problem.contains("event trigger"), "{problem}");
    assert!(remedy.contains("superuser"), "{remedy}");
    request = file_as(&dump("far"), "copy2");
    request.keep_owner = false;
    let (problem, _) = refused_by(&live, &maker, &request).await;
    assert!(problem.contains("foreign data wrapper"), "{problem}");
    request = file_as(&dump("extended"), "copy2");
    request.keep_owner = false;
    let (problem, _) = refused_by(&live, &maker, &request).await;
    assert!(
        problem.contains("create the extensions \"rare\"") && !problem.contains("citext"),
        "{problem}"
    );
}

#[tokio::test]
async fn bar_33_newer_majors() {
    let newer = Live::start(17).await;
    newer.psql("postgres", "CREATE TABLE t (a int)");
    let older = Live::start(15).await;
    for (name, options) in [
        ("custom", &["-Fc"]),
        ("directory", &["-Fd"]),
        ("plain", &["-Fp"]),
    ] {
        let path = newer.dump("postgres", name, options);
        let (problem, remedy) = refused(&older, &file_as(&path, "copy")).await;
        assert!(
            problem.contains("PostgreSQL 17") && problem.contains("target is 15"),
            "{problem}"
        );
        assert!(remedy.contains("17"), "{remedy}");
    }
}

#[tokio::test]
async fn connections_and_locks_that_are_short() {
    let container = PgContainer::builder(15)
        .args(&["-c", "max_connections=6"])
        .args(&["-c", "max_locks_per_transaction=10"])
        .args(&["-c", "max_prepared_transactions=0"])
        .start()
        .unwrap();
    let live = Live::of(container, 15).await;
    let tables: String = (0..40)
        .map(|n| format!("CREATE TABLE t{n} (a int);"))
        .collect();
    live.psql("postgres", "CREATE DATABASE src");
    live.psql("src", &tables);
    let file = live.dump("src", "custom", &["-Fc"]);
    let mut in_place = file_as(&file, "");
    in_place.place = RestorePlace::InPlace {
        name: "src".to_owned(),
    };
    let (problem, remedy) = refused(&live, &in_place).await;
    assert!(
        problem.contains("80 locks") && problem.contains("for 60"),
        "{problem}"
    );
    assert!(remedy.contains("max_locks_per_transaction"), "{remedy}");

    // Two more sessions than the restore would leave.
    for _ in 0..4 {
        let argv = ["psql", "-U", "postgres", "-c", "select pg_sleep(300)"];
        testkit::process::docker(&[&["exec", "-d", live.container.id()][..], &argv].concat())
            .unwrap();
    }
    let sessions = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()";
    while live.psql("postgres", sessions) != "4" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (problem, remedy) = refused(&live, &file_as(&file, "copy")).await;
    assert!(problem.contains("connections left"), "{problem}");
    assert!(remedy.contains("max_connections"), "{remedy}");
}

#[tokio::test]
async fn too_little_room() {
    let container = PgContainer::builder(15)
        .option(&["--tmpfs", "/small:size=160m,mode=1777"])
        .env("PGDATA", "/small/data")
        .start()
        .unwrap();
    let small = Live::of(container, 15).await;
    let mut live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT g, repeat(md5(g::text), 8) AS v FROM generate_series(1, 60000) AS g",
    );
    let custom = back_up(&live, DumpFormat::Custom).await;
    let directory = back_up(&live, DumpFormat::Directory).await;
    let file = live.dump("postgres", "custom", &["-Fc"]);
    live.container = small.container;
    live.executor = small.executor;
    // 10 MB are left.
    let fill = "free=$(df -Pk /small | awk 'NR == 2 { print $4 }'); \
                dd if=/dev/zero of=/small/ballast bs=1024 count=$((free - 10240)) 2> /dev/null";
    live.container.exec(&["sh", "-c", fill]).unwrap();
    for (request, words) in [
        (backup_as(&custom, "postgres", "copy"), "the database had"),
        (
            backup_as(&directory, "postgres", "copy"),
            "next to the server",
        ),
        (file_as(&file, "copy"), "its rows have"),
    ] {
        let (problem, remedy) = refused(&live, &request).await;
        assert!(problem.contains(words), "{problem}");
        assert!(
            problem.contains("are free in /small/data") && problem.contains("MB"),
            "{problem}"
        );
        assert!(remedy.contains("room"), "{remedy}");
    }
    // With room it is no refusal.
    live.container.exec(&["rm", "/small/ballast"]).unwrap();
    let request = backup_as(&custom, "postgres", "copy");
    live.plan(&request).await.unwrap();
}

/// A server that finds no room in /dev/shm for the statistics of new tables crashes.
#[tokio::test]
async fn bar_28_too_little_shared_memory_for_statistics_is_refused() {
    let container = PgContainer::builder(17)
        .option(&["--shm-size", "2m"])
        .start()
        .unwrap();
    let small = Live::of(container, 17).await;
    let mut live = Live::start(17).await;
    // A transaction keeps the locks of all that it makes.
    for thousand in 0..4 {
        let make = format!(
            "do $$ begin for i in 1..1000 loop \
             execute format('create table t%s (id int primary key)', {thousand} * 1000 + i); \
             end loop; end $$"
        );
        live.psql("postgres", &make);
    }
    let file = live.dump("postgres", "custom", &["-Fc"]);
    // Where there is room it is no refusal.
    live.plan(&file_as(&file, "copy")).await.unwrap();
    live.container = small.container;
    live.executor = small.executor;
    let (problem, remedy) = refused(&live, &file_as(&file, "copy")).await;
    assert!(problem.contains("statistics"), "{problem}");
    assert!(
        problem.contains("1.0 MB are free in its /dev/shm"),
        "{problem}"
    );
    assert!(remedy.contains("--shm-size=128m"), "{remedy}");
    // A part of it fits.
    let mut part = file_as(&file, "copy");
    part.contents.tables = vec!["public.t1".to_owned()];
    live.plan(&part).await.unwrap();
}
