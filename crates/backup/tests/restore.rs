//! Restore on real servers: from files that the server's own pg_dump wrote.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::Path;

use backup::{BackupError, EngineChoice, RestorePlace};
use support::live::{Live, file_as, words};

const SCHEMA: &str = r#"
CREATE ROLE app NOLOGIN;
CREATE ROLE "odd ""role" NOLOGIN;
CREATE DATABASE src OWNER app ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
COMMENT ON DATABASE src IS 'it''s the \source';
ALTER DATABASE src SET search_path TO "$user", s, public;
ALTER DATABASE src SET my.setting TO 'a b;c';
ALTER DATABASE src SET default_transaction_read_only TO off;
ALTER ROLE app IN DATABASE src SET work_mem TO '5MB';
ALTER DATABASE src CONNECTION LIMIT 7;
REVOKE CONNECT ON DATABASE src FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE src TO "odd ""role" WITH GRANT OPTION;
"#;

const TABLES: &str = r#"
CREATE SCHEMA s AUTHORIZATION app;
CREATE TABLE s.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, w text GENERATED ALWAYS AS (upper(v)) STORED);
INSERT INTO s.t (v) SELECT md5(g::text) || E'\n\t\\.' FROM generate_series(1, 2000) AS g;
ALTER TABLE s.t OWNER TO app;
GRANT SELECT (v) ON s.t TO "odd ""role";
CREATE TABLE s.part (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (0) TO (100);
CREATE TABLE s.part_2 PARTITION OF s.part DEFAULT;
INSERT INTO s.part SELECT g, g::text FROM generate_series(1, 300) AS g;
CREATE TABLE s.parent (a int); CREATE TABLE s.child (b int) INHERITS (s.parent);
INSERT INTO s.parent VALUES (1), (2); INSERT INTO s.child VALUES (3, 4);
CREATE TABLE s."odd :name; \ ""t" (v text); INSERT INTO s."odd :name; \ ""t" VALUES ('\.'), (NULL), (E'a\nb');
CREATE TABLE s.no_columns (); INSERT INTO s.no_columns DEFAULT VALUES;
CREATE TYPE s.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN s.posint AS int CHECK (VALUE > 0);
CREATE MATERIALIZED VIEW s.m AS SELECT count(*) AS n FROM s.t;
CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'no'; END $f$;
CREATE TRIGGER tr BEFORE INSERT ON s.no_columns FOR EACH ROW EXECUTE FUNCTION s.f();
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON s.t TO app USING (v <> 'x');
ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES TO "odd ""role";
SELECT lo_from_bytea(0, convert_to(repeat('x', 50000), 'UTF8'));
SELECT lo_from_bytea(4000000000, 'abc');
CREATE INDEX ON s.t (lower(v));
"#;

/// Settings, comment, limit and privileges of a database, without its name.
const PROPERTIES: &str = "
SELECT d.encoding, d.datcollate, d.datctype, pg_get_userbyid(d.datdba), d.datconnlimit,
  (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(d.datacl) AS x),
  shobj_description(d.oid, 'pg_database'),
  (SELECT string_agg(coalesce(r.rolname, '-') || ':' || s.setconfig::text, ' ' ORDER BY r.rolname)
     FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = s.setrole WHERE s.setdatabase = d.oid)
FROM pg_database AS d WHERE datname = ";

fn properties(live: &Live, database: &str) -> String {
    live.psql("postgres", &format!("{PROPERTIES} '{database}'"))
}

/// The whole catalogue as pg_dump sees it, without the random key.
fn schema(live: &Live, database: &str) -> String {
    let dump = live
        .container
        .exec(&["pg_dump", "-U", "postgres", "-s", database])
        .unwrap();
    dump.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Rows of every table and large object, hashed.
fn rows(live: &Live, database: &str) -> String {
    let tables = live.psql(
        database,
        "SELECT format('SELECT %L, count(*), md5(string_agg(x::text, E''\\n'' ORDER BY x::text COLLATE \"C\")) FROM ONLY %I.%I AS x;', c.relname, n.nspname, c.relname)
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 's' AND c.relkind IN ('r', 'm') ORDER BY 1",
    );
    let large = "SELECT loid, md5(string_agg(data, '' ORDER BY pageno)) FROM pg_largeobject GROUP BY loid ORDER BY 1;
                 SELECT last_value FROM s.t_id_seq;";
    live.psql(database, &format!("{tables}\n{large}"))
}

async fn with_source(major: u32) -> Live {
    let live = Live::start(major).await;
    live.psql("postgres", SCHEMA);
    live.psql("src", TABLES);
    live
}

async fn equal_after_restore(major: u32) {
    let live = with_source(major).await;
    let sources = [
        ("custom", live.dump("src", "custom", &["-Fc"]), None),
        (
            "directory",
            live.dump("src", "directory", &["-Fd"]),
            Some(2),
        ),
        ("plain", live.dump("src", "plain.sql", &["-Fp"]), None),
    ];
    for (name, path, jobs) in sources {
        let copy = format!("copy_{name}");
        let mut request = file_as(&path, &copy);
        request.jobs = jobs;
        let plan = live.plan(&request).await.unwrap();
        assert!(plan.steps.len() >= 4, "{:?}", plan.steps);
        let report = live
            .apply(&plan)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        assert_eq!(report.rows, 2000 + 300 + 3 + 3 + 1, "{name}");
        assert_eq!(schema(&live, &copy), schema(&live, "src"), "{name}");
        assert_eq!(rows(&live, &copy), rows(&live, "src"), "{name}");
        if name != "plain" {
            assert_eq!(properties(&live, &copy), properties(&live, "src"), "{name}");
        }
        let analyzed = "SELECT count(*) FROM pg_stats WHERE schemaname = 's'";
        assert_ne!(live.psql(&copy, analyzed), "0", "{name}");
    }
}

#[tokio::test]
async fn bar_31_equal_after_restore_13() {
    equal_after_restore(13).await;
}

#[tokio::test]
async fn bar_31_equal_after_restore_15() {
    equal_after_restore(15).await;
}

#[tokio::test]
async fn bar_31_equal_after_restore_17() {
    equal_after_restore(17).await;
}

#[tokio::test]
async fn bar_31_equal_after_restore_18() {
    equal_after_restore(18).await;
}

fn refusal(result: Result<impl Sized, BackupError>) -> (String, String) {
    match result {
        Err(BackupError::RestoreRefused { problem, remedy }) => (problem, remedy),
        Err(other) => panic!("another error: {}", words(&other)),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn refusals_before_anything_is_touched() {
    let live = with_source(15).await;
    let path = live.dump("src", "custom", &["-Fc"]);
    let before = live.databases();

    let (problem, remedy) = refusal(live.plan(&file_as(&path, "src")).await);
    assert!(
        problem.contains("exists already") && remedy.contains("--as"),
        "{problem}"
    );
    let long = "x".repeat(64);
    refusal(live.plan(&file_as(&path, &long)).await);
    let mut in_place = file_as(&path, "");
    in_place.place = RestorePlace::InPlace {
        name: "nowhere".to_owned(),
    };
    let (problem, _) = refusal(live.plan(&in_place).await);
    assert!(problem.contains("does not exist"), "{problem}");

    // Roles are missing on another server.
    let other = Live::start(15).await;
    let (problem, remedy) = refusal(other.plan(&file_as(&path, "copy")).await);
    assert!(
        problem.contains("\"app\"") && problem.contains("odd \\\"role"),
        "{problem}"
    );
    assert!(remedy.contains("--owner none"), "{remedy}");
    let mut without = file_as(&path, "copy");
    without.keep_owner = false;
    // The policy needs its role even then.
    refusal(other.plan(&without).await);
    other.psql("postgres", "CREATE ROLE app");
    let report = other.restore(&without).await.unwrap();
    assert_eq!(report.rows, 2307);
    let owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 's'";
    assert_eq!(other.psql("copy", owner), "postgres");

    // Damage.
    let bytes = std::fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(bytes.len() / 40) {
        let damaged = live.home.dir.path().join("cut");
        std::fs::write(&damaged, &bytes[..cut]).unwrap();
        refusal(live.plan(&file_as(&damaged, "copy")).await);
    }
    assert_eq!(live.databases(), before);
}

#[tokio::test]
async fn bar_33_a_newer_dump_is_refused() {
    let newer = with_source(17).await;
    let older = Live::start(15).await;
    older.psql("postgres", "CREATE ROLE app; CREATE ROLE \"odd \"\"role\"");
    for (name, options) in [("custom", &["-Fc"]), ("plain", &["-Fp"])] {
        let path = newer.dump("src", name, options);
        let (problem, remedy) = refusal(older.plan(&file_as(&path, "copy")).await);
        assert!(
            problem.contains("17") && problem.contains("15"),
            "{problem}"
        );
        assert!(remedy.contains("17"), "{remedy}");
    }
    // The other direction is the way of an upgrade.
    let old = older.dump("postgres", "old", &["-Fc"]);
    newer.restore(&file_as(&old, "upgraded")).await.unwrap();
}

#[tokio::test]
async fn bar_35_a_failing_statement_leaves_nothing() {
    let live = with_source(15).await;
    // A constraint that the rows break, so that the restore fails after they came.
    live.psql(
        "src",
        "CREATE FUNCTION s.fails(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN IF current_database() <> 'src' THEN RAISE EXCEPTION 'broken on purpose'; END IF; RETURN $1; END $$;
         CREATE INDEX broken ON s.t (s.fails(v));",
    );
    let before = (live.databases(), rows(&live, "src"));
    for (name, options) in [
        ("custom", &["-Fc"][..]),
        ("dir", &["-Fd"]),
        ("plain", &["-Fp"]),
    ] {
        let path = live.dump("src", name, options);
        match live.restore(&file_as(&path, "copy")).await {
            Err(error @ BackupError::RestoreFailed { .. }) => {
                let text = words(&error);
                assert!(text.contains("broken on purpose"), "{text}");
                assert!(text.contains("nothing on the target was changed"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((live.databases(), rows(&live, "src")), before, "{name}");
    }
}

/// pg_restore waits for no disk while it fills a new database; the transaction that names it does,
/// also where the server's own setting is not to wait.
#[tokio::test]
async fn a_new_database_is_on_the_disk_when_it_has_its_name() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE DATABASE src; ALTER SYSTEM SET synchronous_commit = off;
         ALTER SYSTEM SET wal_writer_delay = '10s';
         ALTER SYSTEM SET wal_writer_flush_after = '1GB'; SELECT pg_reload_conf();",
    );
    live.psql(
        "src",
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS n;
         CREATE MATERIALIZED VIEW m AS SELECT current_setting('synchronous_commit') AS waits",
    );
    let path = live.dump("src", "custom", &["-Fc"]);
    // The name is given by psql, and over a session.
    for (name, engine) in [
        ("copy", EngineChoice::Stock),
        ("over", EngineChoice::Parallel),
    ] {
        let mut request = file_as(&path, name);
        request.engine = engine;
        live.restore(&request).await.unwrap();
        // What came after the name is next to nothing.
        let behind = "SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() < 65536";
        assert_eq!(live.psql("postgres", behind), "t", "{name}");
        assert_eq!(live.psql(name, "SELECT waits FROM m"), "off");
    }

    live.psql(
        "postgres",
        "ALTER SYSTEM RESET synchronous_commit; SELECT pg_reload_conf();",
    );
    let mut request = file_as(&path, "");
    request.place = RestorePlace::InPlace {
        name: "src".to_owned(),
    };
    let plan = live.plan(&request).await.unwrap();
    live.apply(&plan).await.unwrap();
    assert_eq!(live.psql("src", "SELECT waits FROM m"), "on");
}

#[tokio::test]
async fn in_place_rolls_back_or_replaces() {
    let live = with_source(15).await;
    let path = live.dump("src", "custom", &["-Fc"]);
    let original = (schema(&live, "src"), rows(&live, "src"));
    live.psql("src", "DELETE FROM s.t; INSERT INTO s.parent VALUES (99)");
    let mut request = file_as(&path, "");
    request.place = RestorePlace::InPlace {
        name: "src".to_owned(),
    };
    let plan = live.plan(&request).await.unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|step| step.contains("ONE transaction")),
        "{:?}",
        plan.steps
    );
    live.apply(&plan).await.unwrap();
    assert_eq!((schema(&live, "src"), rows(&live, "src")), original);

    // What hangs on a table of the archive makes it fail, and then nothing has changed.
    live.psql(
        "src",
        "DELETE FROM s.t; CREATE VIEW s.hanging AS SELECT id FROM s.t",
    );
    let before = (schema(&live, "src"), rows(&live, "src"));
    match live.apply(&plan).await {
        Err(BackupError::RestoreFailed { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!((schema(&live, "src"), rows(&live, "src")), before);
}

#[tokio::test]
async fn bar_37_hostile_plain_dumps_run_nothing() {
    let live = with_source(15).await;
    let good = std::fs::read_to_string(live.dump("src", "plain.sql", &["-Fp"])).unwrap();
    let before = live.databases();
    let marker = "/tmp/pgstow-was-here";
    let key = good
        .lines()
        .find_map(|line| line.strip_prefix("\\restrict "))
        .unwrap()
        .to_owned();
    let attacks = [
        format!("\\! touch {marker}\n"),
        format!("SELECT 1 \\! touch {marker}\n;\n"),
        format!("\\unrestrict {key}\n\\! touch {marker}\n"),
        format!("\\unrestrict wrong\n\\! touch {marker}\n"),
        format!("\\copy s.t from program 'touch {marker}'\n"),
        format!("COPY s.parent FROM PROGRAM 'touch {marker}; echo 1';\n"),
        format!("\\echo `touch {marker}`\n"),
        format!("\\o |touch {marker}\n"),
        format!("-- x\r\\! touch {marker}\n"),
        format!("SELECT E'\\\\'\n\\! touch {marker}\n"),
        "\\connect postgres\nDROP DATABASE src;\n".to_owned(),
        "\\i /etc/passwd\n".to_owned(),
    ];
    for attack in &attacks {
        for at in [
            "SET statement_timeout = 0;\n",
            "--\n-- PostgreSQL database dump complete",
        ] {
            let script = good.replacen(at, &format!("{attack}{at}"), 1);
            assert_ne!(script, good);
            let path = live.home.dir.path().join("hostile.sql");
            std::fs::write(&path, script).unwrap();
            refusal(live.plan(&file_as(&path, "copy")).await);
        }
    }
    live.container.exec(&["test", "!", "-e", marker]).unwrap();
    assert!(!Path::new(marker).exists());
    assert_eq!(live.databases(), before);
    // Cut inside the rows of a COPY: psql alone would restore it with exit status 0.
    let cut = good.find("\\.\n").unwrap();
    let path = live.home.dir.path().join("cut.sql");
    std::fs::write(&path, &good[..cut]).unwrap();
    refusal(live.plan(&file_as(&path, "copy")).await);
}

#[tokio::test]
async fn bar_36_names_are_data() {
    let live = Live::start(17).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT generate_series(1, 5) AS n",
    );
    let custom = live.dump("postgres", "custom", &["-Fc"]);
    let plain = live.dump("postgres", "plain.sql", &["-Fp"]);
    let names = [
        "-Fc",
        "--help",
        "host=evil port=1",
        "dbname=postgres",
        "postgres://u:p@evil/x",
        "a'b\"c; $(x)",
        "`id`",
        "$(touch /tmp/x)",
        "a b",
        " leading",
        "trailing ",
        "new\nline",
        "tab\there",
        "../../etc",
        "a/b",
        "back\\slash",
        ":'v0'",
        ":\"name\"",
        "%s%n",
        "ünïcödé-名前",
        "🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘xyz",
        "template",
        "\\! id",
        "{a,b}",
    ];
    for (number, name) in names.iter().enumerate() {
        let path = if number % 4 == 3 { &plain } else { &custom };
        let mut request = file_as(path, name);
        if number % 4 < 2 {
            // The name is given over a session.
            request.engine = EngineChoice::Parallel;
        }
        let report = live
            .restore(&request)
            .await
            .unwrap_or_else(|error| panic!("{name:?}: {}", words(&error)));
        assert_eq!(report.rows, 5, "{name:?}");
    }
    let mut expected: Vec<_> = names.iter().map(|name| name.replace('\n', "\\n")).collect();
    expected.extend(["postgres", "template0", "template1"].map(str::to_owned));
    expected.sort();
    let found = live.psql(
        "postgres",
        "SELECT replace(datname, E'\\n', '\\n') FROM pg_database",
    );
    let mut found: Vec<_> = found.split('\n').map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(names.len(), 24);
    assert_eq!(names[20].len(), 63);
}
