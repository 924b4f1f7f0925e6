//! Restores whose rows go over several sessions of pgstow's own, on real servers: equal to the
//! source by what the servers and stock pg_dump say, and nothing left where something fails.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use backup::{BackupError, EngineChoice, RestoreReport, RestoreRequest};
use support::live::{Live, file_as, words};
use testkit::schema::{fingerprint, load_bar31, schema_dump};
use tokio_util::sync::CancellationToken;

/// A big table with a row longer than a piece, tables that are filled whole, many small ones.
const TABLES: &str = r"
CREATE SCHEMA par;
CREATE TABLE par.big (id int, v text, w text, g int GENERATED ALWAYS AS (id + 1) STORED);
INSERT INTO par.big SELECT i, md5(i::text), repeat(E'words\t\\.\n' || i, 12) FROM generate_series(1, 150000) AS i;
INSERT INTO par.big VALUES (0, NULL, repeat(E'long\\\n', 700000)), (-1, '\N', '');
ALTER TABLE par.big ADD PRIMARY KEY (id);
CREATE INDEX ON par.big (v);
CREATE TABLE par.whole AS SELECT i AS id, repeat('x', 100) AS v FROM generate_series(1, 30000) AS i;
CREATE TABLE par.of_big (id int REFERENCES par.big, q bigserial);
INSERT INTO par.of_big SELECT i FROM generate_series(1, 1000) AS i;
CREATE TABLE par.no_columns (); INSERT INTO par.no_columns DEFAULT VALUES;
";
const SMALL: &str = "
DO $$ BEGIN FOR i IN %FROM% .. %TO% LOOP
  EXECUTE format('CREATE TABLE par.small_%s (a int, b text)', i);
  IF i % 3 > 0 THEN EXECUTE format('INSERT INTO par.small_%s SELECT g, g::text FROM generate_series(1, %s) AS g', i, i % 7); END IF;
END LOOP; END $$;
";
const OBJECTS: &str = "
SELECT count(lo_from_bytea(500000 + g, convert_to(repeat(g::text, g % 200), 'UTF8'))) FROM generate_series(1, 5000) AS g;
SELECT lo_from_bytea(4000000001, decode(repeat('00ff5c0a27', 600000), 'hex')), lo_create(4000000002);
ALTER LARGE OBJECT 500007 OWNER TO stow_reader;
GRANT SELECT ON LARGE OBJECT 500008 TO stow_reader;
COMMENT ON LARGE OBJECT 500009 IS 'it''s';
";
/// Owners, privileges, comments and contents of the large objects.
const ABOUT_OBJECTS: &str = "
SELECT count(*), md5(string_agg(format('%s %s %s %s', m.oid, pg_get_userbyid(m.lomowner), m.lomacl,
  obj_description(m.oid, 'pg_largeobject')), E'\\n' ORDER BY m.oid)) FROM pg_largeobject_metadata AS m;
SELECT count(*), md5(string_agg(format('%s %s', m.oid, md5(lo_get(m.oid))), E'\\n' ORDER BY m.oid)) FROM pg_largeobject_metadata AS m;
";

async fn with_source(major: u32) -> Live {
    let live = Live::start(major).await;
    load_bar31(&live.container, "src").unwrap();
    live.psql("src", TABLES);
    for from in (1..=2000).step_by(500) {
        let sql = SMALL
            .replace("%FROM%", &from.to_string())
            .replace("%TO%", &(from + 499).to_string());
        live.psql("src", &sql);
    }
    live.psql("src", OBJECTS);
    live
}

fn parallel(path: &Path, name: &str) -> RestoreRequest {
    RestoreRequest {
        engine: EngineChoice::Parallel,
        jobs: Some(3),
        ..file_as(path, name)
    }
}

async fn restored(live: &Live, request: &RestoreRequest) -> RestoreReport {
    let report = live.restore(request).await;
    report.unwrap_or_else(|error| panic!("{}", words(&error)))
}

fn said(live: &Live, text: &str) -> bool {
    live.home.events.text().contains(text)
}

const OURS: &str = "sessions of pgstow's own, through";

async fn equal(major: u32, options: &[&str]) {
    let live = with_source(major).await;
    let path = live.dump("src", "archive", options);
    let report = restored(&live, &parallel(&path, "copy")).await;
    assert!(said(&live, OURS), "{}", live.home.events.text());
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(
        schema_dump(&live.container, "copy").unwrap(),
        schema_dump(&live.container, "src").unwrap()
    );
    assert_eq!(
        fingerprint(&live.container, "copy").unwrap(),
        fingerprint(&live.container, "src").unwrap()
    );
    let objects = live.psql("src", ABOUT_OBJECTS);
    assert!(objects.starts_with("500"), "{objects}");
    assert_eq!(live.psql("copy", ABOUT_OBJECTS), objects);
    let values = "SELECT nextval('par.of_big_q_seq')";
    assert_eq!(live.psql("copy", values), "1001");
    no_sessions(&live);
}

/// None of ours is left.
fn no_sessions(live: &Live) {
    assert_eq!(sessions(live), "0");
}

fn sessions(live: &Live) -> String {
    live.psql(
        "postgres",
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgstow-%'",
    )
}

#[tokio::test]
async fn bar_31_parallel_restore_13() {
    equal(13, &["-Fc"]).await;
}

#[tokio::test]
async fn bar_31_parallel_restore_15() {
    equal(15, &["-Fd", "-Z1"]).await;
}

#[tokio::test]
async fn bar_31_parallel_restore_17() {
    equal(17, &["-Fc", "-Z", "zstd:1"]).await;
}

#[tokio::test]
async fn bar_31_parallel_restore_18() {
    equal(18, &["-Fd", "-Z", "lz4"]).await;
}

/// A table whose rows are taken slowly: the source's own were there before its check was slow.
async fn slow(major: u32, every: u32) -> Live {
    let live = Live::start(major).await;
    live.psql("postgres", "CREATE DATABASE src");
    live.psql(
        "src",
        "CREATE SCHEMA s;
         CREATE FUNCTION s.ok(i int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE s.slow (id int NOT NULL CHECK (s.ok(id)), pad text);
         INSERT INTO s.slow SELECT i, repeat('pad' || i, 150) FROM generate_series(100001, 140000) AS i",
    );
    live.psql(
        "src",
        &format!(
            "CREATE OR REPLACE FUNCTION s.ok(i int) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN IF i % {every} = 0 THEN PERFORM pg_sleep(0.002); END IF; RETURN true; END'"
        ),
    );
    live
}

/// Waits until sessions of ours are in the middle of a COPY; how many.
async fn copying(live: &Live) -> u32 {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgstow-%-fill-%' \
                AND query LIKE 'COPY %' AND state = 'active'";
    for _ in 0..600 {
        let number: u32 = live.psql("postgres", text).parse().unwrap();
        if number > 1 {
            return number;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no session was seen in the middle of a COPY");
}

/// Restores beside something that disturbs it in the middle.
async fn disturbed(
    live: &Live,
    path: &Path,
    cancel: &CancellationToken,
    disturb: impl AsyncFnOnce(),
) -> (BackupError, Duration) {
    let before = live.databases();
    let plan = live.plan(&parallel(path, "copy")).await.unwrap();
    let home = &live.home;
    let restore = backup::restore(&home.repo, &live.executor, &plan, &home.events, cancel);
    let disturbing = async {
        copying(live).await;
        disturb().await;
        Instant::now()
    };
    let (result, since) = tokio::join!(restore, disturbing);
    let took = since.elapsed();
    assert!(said(live, OURS));
    assert_eq!(live.databases(), before, "the half-filled database is gone");
    no_sessions(live);
    (result.unwrap_err(), took)
}

#[tokio::test]
async fn a_session_that_is_terminated_fails_the_restore() {
    let live = slow(15, 1).await;
    let path = live.dump("src", "archive", &["-Fc", "-Z0"]);
    let cancel = CancellationToken::new();
    let terminate = async || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name LIKE 'pgstow-%-fill-%' LIMIT 1";
        assert_eq!(live.psql("postgres", sql), "t");
    };
    let (error, took) = disturbed(&live, &path, &cancel, terminate).await;
    let text = words(&error);
    assert!(matches!(error, BackupError::RestoreFailed { .. }), "{text}");
    assert!(text.contains("table s.slow"), "{text}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_cancelled_restore_leaves_no_session() {
    let live = slow(17, 1).await;
    let path = live.dump("src", "archive", &["-Fc", "-Z0"]);
    let cancel = CancellationToken::new();
    let (error, took) = disturbed(&live, &path, &cancel, async || cancel.cancel()).await;
    let text = words(&error);
    assert!(matches!(error, BackupError::Interrupted { .. }), "{text}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_source_that_changes_in_the_middle_fails_the_restore() {
    use std::os::unix::fs::FileExt;
    let live = slow(18, 5).await;
    let path = live.dump("src", "archive", &["-Fc", "-Z0"]);
    let cancel = CancellationToken::new();
    let change = async || {
        // In the last rows, where no reader has been: a valid archive with another row.
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).rposition(|six| six == b"139990").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"239990", at as u64).unwrap();
    };
    let (error, _) = disturbed(&live, &path, &cancel, change).await;
    let text = words(&error);
    assert!(
        text.contains("changed between its check and the restore"),
        "{text}"
    );
}

#[tokio::test]
async fn a_row_that_is_refused_names_its_table() {
    let live = Live::start(15).await;
    live.psql("postgres", "CREATE DATABASE src");
    live.psql(
        "src",
        "CREATE TABLE public.fine AS SELECT generate_series(1, 1000) AS a;
         CREATE TABLE public.narrow (id int CHECK (id > 0), v text);
         INSERT INTO public.narrow SELECT i, repeat('y', 150) FROM generate_series(1000001, 1100000) AS i",
    );
    let path = live.dump("src", "archive", &["-Fc", "-Z0"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(8)
        .rposition(|eight| eight == b"1099990\t")
        .unwrap();
    bytes[at] = b'-';
    std::fs::write(&path, bytes).unwrap();
    let before = live.databases();
    let error = live.restore(&parallel(&path, "copy")).await.unwrap_err();
    let text = words(&error);
    assert!(
        text.contains("table public.narrow") && text.contains("narrow_id_check"),
        "{text}"
    );
    assert_eq!(live.databases(), before);
    no_sessions(&live);
}

/// Large tables are analyzed while pg_restore makes indexes; what those bring comes afterwards.
#[tokio::test]
async fn statistics_of_tables_expressions_and_column_groups() {
    let live = Live::start(17).await;
    live.psql("postgres", "CREATE DATABASE src");
    live.psql("src", TABLES);
    live.psql(
        "src",
        "CREATE INDEX big_lower ON par.big (lower(v));
         CREATE STATISTICS par.both ON id, v FROM par.big;",
    );
    let path = live.dump("src", "archive", &["-Fc"]);
    let mut request = parallel(&path, "copy");
    request.jobs = Some(2);
    restored(&live, &request).await;
    let known = "SELECT string_agg(DISTINCT tablename, ' ' ORDER BY tablename)
                 FROM pg_stats WHERE schemaname = 'par'";
    assert_eq!(live.psql("copy", known), "big big_lower of_big whole");
    let groups = "SELECT count(*) FROM pg_statistic_ext_data";
    assert_eq!(live.psql("copy", groups), "1");
    no_sessions(&live);
}

#[tokio::test]
async fn a_part_and_other_engines() {
    let live = Live::start(17).await;
    load_bar31(&live.container, "src").unwrap();
    live.psql("src", TABLES);
    let path = live.dump("src", "archive", &["-Fc"]);
    // A part: the other tables are not there.
    let mut part = parallel(&path, "part");
    part.contents.tables = vec!["par.big".to_owned(), "par.whole".to_owned()];
    let report = restored(&live, &part).await;
    assert_eq!(report.rows, 150_002 + 30_000);
    assert!(said(&live, OURS));
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'par'";
    assert_eq!(live.psql("part", tables), "2");
    // Without the rows there is nothing to move.
    let mut bare = parallel(&path, "bare");
    bare.contents.sections = vec![backup::RestoreSection::PreData];
    restored(&live, &bare).await;
    let rows = "SELECT (SELECT count(*) FROM par.big) + (SELECT count(*) FROM par.whole)";
    assert_eq!(live.psql("bare", rows), "0");
    // Whoever wants pg_restore alone gets it, and in a container sessions are chosen by themselves.
    let mut live = live;
    for (engine, ours) in [(EngineChoice::Stock, false), (EngineChoice::Auto, true)] {
        live.home.events = support::Events::default();
        let mut request = parallel(&path, &format!("copy_{engine:?}").to_lowercase());
        request.engine = engine;
        restored(&live, &request).await;
        assert_eq!(said(&live, OURS), ours, "{engine:?}");
    }
    assert_eq!(
        fingerprint(&live.container, "copy_auto").unwrap(),
        fingerprint(&live.container, "copy_stock").unwrap()
    );
    // What cannot be done is refused before anything is made.
    let plain = live.dump("src", "plain.sql", &["-Fp"]);
    let refused = live.plan(&parallel(&plain, "never")).await.unwrap_err();
    assert!(
        matches!(&refused, BackupError::RestoreRefused { problem, .. } if problem.contains("plain dump")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn many_small_tables_go_over_sessions() {
    let live = Live::start(17).await;
    live.psql("postgres", "CREATE DATABASE src");
    live.psql("src", "CREATE SCHEMA par");
    for from in [1, 501, 1001] {
        let sql = SMALL
            .replace("%FROM%", &from.to_string())
            .replace("%TO%", &(from + 499).to_string())
            .replace("(a int, b text)", "(a int PRIMARY KEY, b text)");
        live.psql("src", &sql);
    }
    let path = live.dump("src", "archive", &["-Fc"]);
    let report = restored(&live, &file_as(&path, "copy")).await;
    assert!(said(&live, OURS), "{}", live.home.events.text());
    assert_eq!(report.tables, 1500);
    assert_eq!(
        schema_dump(&live.container, "copy").unwrap(),
        schema_dump(&live.container, "src").unwrap()
    );
    assert_eq!(
        fingerprint(&live.container, "copy").unwrap(),
        fingerprint(&live.container, "src").unwrap()
    );
    no_sessions(&live);
}

#[tokio::test]
async fn a_name_that_is_taken_meanwhile_stays_with_whom_it_is() {
    let live = slow(17, 40).await;
    let path = live.dump("src", "archive", &["-Fc", "-Z0"]);
    let mut wanted = live.databases();
    let plan = live.plan(&parallel(&path, "copy")).await.unwrap();
    let (home, cancel) = (&live.home, CancellationToken::new());
    let restore = backup::restore(&home.repo, &live.executor, &plan, &home.events, &cancel);
    let taking = async {
        copying(&live).await;
        live.psql("postgres", "CREATE DATABASE copy");
    };
    let (result, ()) = tokio::join!(restore, taking);
    let error = result.unwrap_err();
    let text = words(&error);
    assert!(matches!(error, BackupError::RestoreFailed { .. }), "{text}");
    assert!(text.contains("already exists"), "{text}");
    wanted.push("copy".to_owned());
    wanted.sort();
    let mut found = live.databases();
    found.sort();
    assert_eq!(found, wanted);
    let theirs = "SELECT count(*) FROM pg_namespace WHERE nspname = 's'";
    assert_eq!(live.psql("copy", theirs), "0");
    no_sessions(&live);
}

#[tokio::test]
async fn rows_that_nobody_sent_are_counted() {
    let live = Live::start(17).await;
    live.psql("postgres", "CREATE DATABASE src");
    // An index whose function writes into a table that is empty in the archive.
    live.psql(
        "src",
        "CREATE SCHEMA s;
         CREATE TABLE s.empty (id int);
         CREATE TABLE s.full AS SELECT i AS id FROM generate_series(1, 3) AS i;
         CREATE FUNCTION s.writes(i int) RETURNS int LANGUAGE plpgsql VOLATILE AS
           'BEGIN INSERT INTO s.empty VALUES (i); RETURN i; END';
         CREATE FUNCTION s.hides(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN RETURN s.writes(i); END';
         CREATE INDEX ON s.full (s.hides(id));
         TRUNCATE s.empty",
    );
    let path = live.dump("src", "archive", &["-Fc"]);
    let before = live.databases();
    let error = live.restore(&parallel(&path, "copy")).await.unwrap_err();
    let text = words(&error);
    assert!(said(&live, OURS));
    assert!(
        text.contains("table s.empty has 3 rows, and the archive holds 0"),
        "{text}"
    );
    assert_eq!(live.databases(), before);
    no_sessions(&live);
}
