//! What a restore does about messages of pg_restore, extensions and objects that reach out to
//! other servers.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use backup::{
    BackupError, BackupId, BackupOptions, Clock, DumpFormat, RestorePlace, RestoreRequest,
    RestoreSource,
};
use support::live::{Live, file_as, with_programs, words};
use support::real::{Login, in_container};
use tokio_util::sync::CancellationToken;

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
    let mut request = file_as(Path::new(""), name);
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

/// Nothing of a restore is left in the container.
fn nothing_beside(live: &Live) {
    let left = live
        .container
        .exec(&["sh", "-c", "ls -d /tmp/*pgstow* 2> /dev/null || true"])
        .unwrap();
    assert_eq!(left, "");
}

#[tokio::test]
async fn harmless_messages_are_listed_and_the_restore_stands() {
    for major in [13, 18] {
        let live = Live::start(major).await;
        live.psql(
            "postgres",
            "CREATE ROLE maker LOGIN CREATEDB;
             CREATE TABLE t AS SELECT g FROM generate_series(1, 100) AS g; CREATE INDEX ON t (g);
             CREATE TABLE u (a int PRIMARY KEY)",
        );
        // Makes the schema that every database has.
        for (name, options, jobs) in [
            ("custom", &["-Fc", "-n", "public"], None),
            ("directory", &["-Fd", "-n", "public"], Some(3)),
        ] {
            let mut request = file_as(&live.dump("postgres", name, options), name);
            request.jobs = jobs;
            let report = live.restore(&request).await;
            let report = report.unwrap_or_else(|error| panic!("{}", words(&error)));
            assert_eq!((report.tables, report.rows), (2, 100));
            assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
            assert!(
                report.warnings[0].contains("schema \"public\" already exists")
                    && report.warnings[0].contains("harmless: every new database"),
                "{:?}",
                report.warnings
            );
        }
        // Before 15 the schema belongs to the superuser, whose comment on it is the standard one.
        let login = Login {
            user: "maker",
            ..Login::default()
        };
        let id = BackupId::new(live.home.clock.now());
        let maker = in_container(&live.container, &id, &login).await;
        let path = live.dump("postgres", "again", &["-Fc", "-n", "public"]);
        let mut request = file_as(&path, "as_maker");
        request.keep_owner = false;
        let (repo, events) = (&live.home.repo, &live.home.events);
        let plan = backup::plan_restore(repo, &maker, &request).await.unwrap();
        let cancel = CancellationToken::new();
        let report = backup::restore(repo, &maker, &plan, events, &cancel)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        let comment = report
            .warnings
            .iter()
            .any(|warning| warning.contains("must be owner of schema public"));
        assert_eq!(comment, major == 13, "{:?}", report.warnings);
        nothing_beside(&live);
    }
}

/// Programs of major 18 on the search path of this host, run in a container.
fn programs_of_18(dir: &Path) {
    for program in ["psql", "pg_restore", "pg_dump", "pg_dumpall"] {
        let script = format!(
            "#!/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             exec docker run --rm -i --label pgstow.test.program=1 -e PGHOST -e PGPORT -e PGUSER \
             -e PGPASSWORD -e PGDATABASE -e PGAPPNAME -e PGOPTIONS -e PGTZ -e LC_ALL \
             --entrypoint {program} {} \"$@\"\n",
            testkit::images::postgres(18)
        );
        let path = dir.join(program);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn programs_of_18_fill_a_server_15() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS g",
    );
    let path = live.dump("postgres", "custom", &["-Fc"]);
    let dir = tempfile::tempdir().unwrap();
    programs_of_18(dir.path());
    let executor = with_programs(&live.container, dir.path()).await;
    let (repo, events) = (&live.home.repo, &live.home.events);
    let cancel = CancellationToken::new();
    // As a stream, which is all that the containers of these programs see.
    let mut request = file_as(&path, "copy");
    request.jobs = Some(1);
    let plan = backup::plan_restore(repo, &executor, &request).await;
    let plan = plan.unwrap_or_else(|error| panic!("{}", words(&error)));
    assert!(
        plan.steps.iter().any(|step| step.contains("pg_restore 18")),
        "{:?}",
        plan.steps
    );
    let report = backup::restore(repo, &executor, &plan, events, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(report.rows, 100);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(
        report.warnings[0].contains("transaction_timeout")
            && report.warnings[0].contains("harmless"),
        "{:?}",
        report.warnings
    );
    // In one transaction the same message would be the end.
    let mut in_place = file_as(&path, "");
    in_place.place = RestorePlace::InPlace {
        name: "postgres".to_owned(),
    };
    match backup::plan_restore(repo, &executor, &in_place).await {
        Err(BackupError::RestoreRefused { problem, .. }) => {
            assert!(problem.contains("transaction_timeout"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_fatal_message_ends_the_restore_at_once() {
    let live = Live::start(15).await;
    // The second index takes a minute, and pg_restore would go on to it.
    live.psql("postgres", "CREATE DATABASE src");
    live.psql(
        "src",
        "CREATE TABLE t AS SELECT 1 AS a;
         CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN IF current_database() <> 'src' THEN RAISE EXCEPTION 'broken on purpose' USING DETAIL = 'the detail'; END IF; RETURN $1; END $$;
         CREATE FUNCTION sleeps(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN IF current_database() <> 'src' THEN PERFORM pg_sleep(60); END IF; RETURN $1; END $$;
         CREATE INDEX a_broken ON t (public.fails(a)); CREATE INDEX b_slow ON t (public.sleeps(a));",
    );
    let before = live.databases();
    let path = live.dump("src", "custom", &["-Fc"]);
    let plan = live.plan(&file_as(&path, "copy")).await.unwrap();
    let started = Instant::now();
    match live.apply(&plan).await {
        Err(error @ BackupError::RestoreFailed { .. }) => {
            let text = words(&error);
            assert!(
                text.contains("broken on purpose")
                    && text.contains("the detail")
                    && text.contains("a_broken"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(live.databases(), before);
    assert_eq!(live.container.pgstow_sessions().unwrap(), 0);
    let slow = "select count(*) from pg_stat_activity where query like '%b_slow%' and pid <> pg_backend_pid()";
    assert_eq!(live.psql("postgres", slow), "0");
}

#[tokio::test]
async fn extensions_come_back_in_the_version_of_the_source() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE ROLE owner; CREATE DATABASE src; CREATE DATABASE gone",
    );
    install(
        &live,
        "base",
        "1.0",
        "CREATE FUNCTION base() RETURNS int LANGUAGE sql AS 'select 10';",
    );
    install(
        &live,
        "owns",
        "1.0",
        "CREATE SCHEMA owned; CREATE TABLE owned.config (a int);
         SELECT pg_catalog.pg_extension_config_dump('owned.config', '');",
    );
    install(
        &live,
        "last",
        "1.0",
        "CREATE FUNCTION last() RETURNS int LANGUAGE sql AS 'select 10';",
    );
    live.psql(
        "src",
        "CREATE SCHEMA \"Odd :'s\" AUTHORIZATION owner; COMMENT ON SCHEMA \"Odd :'s\" IS 'kept';
         CREATE EXTENSION base SCHEMA \"Odd :'s\"; CREATE EXTENSION owns; CREATE EXTENSION pg_trgm;
         INSERT INTO owned.config VALUES (7);
         CREATE TABLE \"Odd :'s\".t AS SELECT \"Odd :'s\".base() AS a",
    );
    live.psql("gone", "CREATE EXTENSION last");
    let custom = back_up(&live, DumpFormat::Custom).await;
    let directory = back_up(&live, DumpFormat::Directory).await;
    // The target has moved on: 1.0 can still be made, of `last` it cannot.
    install(
        &live,
        "base",
        "1.1",
        "CREATE FUNCTION base() RETURNS int LANGUAGE sql AS 'select 11';",
    );
    install(
        &live,
        "last",
        "1.1",
        "CREATE FUNCTION last() RETURNS int LANGUAGE sql AS 'select 11';",
    );
    let dir = "/usr/share/postgresql/15/extension";
    live.container
        .exec(&["rm", &format!("{dir}/last--1.0.sql")])
        .unwrap();
    for (id, name) in [(custom, "custom"), (directory, "directory")] {
        let plan = live.plan(&backup_as(&id, "src", name)).await.unwrap();
        assert!(
            plan.steps.iter().any(|step| step.contains("base 1.0")),
            "{:?}",
            plan.steps
        );
        let report = live
            .apply(&plan)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        assert_eq!(report.warnings, Vec::<String>::new());
        let seen = "SELECT string_agg(extname || ' ' || extversion || ' ' || extnamespace::regnamespace, ',' ORDER BY extname) FROM pg_extension;
                    SELECT nspowner::regrole, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'Odd :''s';
                    SELECT \"Odd :'s\".base(), a FROM \"Odd :'s\".t; SELECT * FROM owned.config";
        assert_eq!(live.psql(name, seen), live.psql("src", seen), "{name}");
        assert!(live.psql(name, seen).contains("base 1.0"));

        let plan = live.plan(&backup_as(&id, "gone", "other")).await.unwrap();
        assert!(
            plan.warnings
                .iter()
                .any(|warning| warning.contains("was 1.0") && warning.contains("makes 1.1")),
            "{:?}",
            plan.warnings
        );
        live.apply(&plan).await.unwrap();
        assert_eq!(live.psql("other", "SELECT last()"), "11");
        live.psql("postgres", "DROP DATABASE other");
        nothing_beside(&live);
    }
}

/// As TimescaleDB's: what is restored between the two calls sees a setting of the database.
const TIMESCALEDB: &str = "
CREATE FUNCTION timescaledb_pre_restore() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET timescaledb.restoring = on', current_database()); RETURN true; END $$;
CREATE FUNCTION timescaledb_post_restore() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE format('ALTER DATABASE %I RESET timescaledb.restoring', current_database());
  INSERT INTO ts.restored VALUES ((SELECT count(*) FROM public.t)); RETURN true; END $$;
CREATE TABLE restored (rows int);
";

#[tokio::test]
async fn timescaledb_is_told_before_and_after_the_rows() {
    let live = Live::start(17).await;
    install(&live, "timescaledb", "2.0", TIMESCALEDB);
    live.psql("postgres", "CREATE DATABASE src");
    live.psql(
        "src",
        "CREATE SCHEMA ts; CREATE EXTENSION timescaledb SCHEMA ts;
         CREATE FUNCTION public.seen() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(current_setting('timescaledb.restoring', true), 'no') $$;
         CREATE TABLE t (a int, seen text GENERATED ALWAYS AS (public.seen()) STORED);
         INSERT INTO t SELECT generate_series(1, 50)",
    );
    assert_eq!(live.psql("src", "SELECT DISTINCT seen FROM t"), "no");
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let id = back_up(&live, format).await;
        let mut request = backup_as(&id, "src", "copy");
        request.jobs = Some(4);
        let plan = live.plan(&request).await.unwrap();
        assert!(
            plan.steps
                .iter()
                .any(|step| step.contains("timescaledb_pre_restore()"))
                && !plan.steps.iter().any(|step| step.contains("jobs")),
            "{:?}",
            plan.steps
        );
        live.apply(&plan)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        assert_eq!(live.psql("copy", "SELECT DISTINCT seen FROM t"), "on");
        assert_eq!(live.psql("copy", "SELECT rows FROM ts.restored"), "50");
        let settings = "SELECT count(*) FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase WHERE datname = 'copy' AND setconfig <> '{}'";
        assert_eq!(live.psql("postgres", settings), "0");
        live.psql("postgres", "DROP DATABASE copy");
    }
}

#[tokio::test]
async fn nothing_logs_in_at_other_servers() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE far_rows AS SELECT 1 AS a; CREATE DATABASE src",
    );
    live.psql(
        "src",
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'postgres');
         CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
         CREATE FOREIGN TABLE far (a int) SERVER far OPTIONS (table_name 'far_rows');
         CREATE VIEW between AS SELECT a FROM far;
         CREATE MATERIALIZED VIEW m AS SELECT a FROM between;
         CREATE MATERIALIZED VIEW near AS SELECT 1 AS a;
         CREATE TABLE part (a int) PARTITION BY RANGE (a);
         CREATE TABLE part_near PARTITION OF part FOR VALUES FROM (0) TO (100);
         CREATE FOREIGN TABLE part_far PARTITION OF part FOR VALUES FROM (100) TO (200)
           SERVER far OPTIONS (table_name 'far_rows');
         INSERT INTO part SELECT generate_series(1, 50); CREATE TABLE t AS SELECT generate_series(1, 5) AS a",
    );
    let id = back_up(&live, DumpFormat::Custom).await;
    // Whoever asks it now gets an error.
    live.psql("postgres", "DROP TABLE far_rows");
    let plan = live.plan(&backup_as(&id, "src", "copy")).await.unwrap();
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("public.m") && warning.contains("REFRESH")),
        "{:?}",
        plan.warnings
    );
    assert!(
        plan.steps.iter().any(|step| step.contains("never read")),
        "{:?}",
        plan.steps
    );
    let report = live
        .apply(&plan)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(report.rows, 55);
    let filled = "SELECT relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY 1";
    assert_eq!(live.psql("copy", filled), "m|f\nnear|t");
    // Everything else was looked at by ANALYZE.
    let analyzed =
        "SELECT string_agg(DISTINCT tablename, ' ') FROM pg_stats WHERE schemaname = 'public'";
    assert_eq!(live.psql("copy", analyzed), "near part_near t");
    nothing_beside(&live);
}
