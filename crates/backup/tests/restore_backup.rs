//! Restore and export of backups from the repository, on real servers.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;

use backup::{
    BackupError, BackupEvent, BackupId, BackupOptions, Clock, DumpFormat, EngineChoice, EventSink,
    ExportRequest, Manifest, RestoreContents, RestorePlace, RestoreRequest, RestoreSource,
    RolesPolicy,
};
use support::live::{Live, words};
use tokio_util::sync::CancellationToken;

const SETUP: &str = r#"
CREATE ROLE "Team" NOLOGIN;
CREATE ROLE app LOGIN PASSWORD 'canary-7f3a' IN ROLE "Team", pg_monitor;
CREATE ROLE boss SUPERUSER NOLOGIN;
CREATE ROLE other NOLOGIN;
CREATE DATABASE "sh'op" OWNER app ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
ALTER DATABASE "sh'op" SET search_path TO "$user", 'odd, name', public;
ALTER DATABASE "sh'op" SET default_transaction_read_only TO on;
ALTER ROLE app IN DATABASE "sh'op" SET work_mem TO '5MB';
REVOKE CONNECT ON DATABASE "sh'op" FROM PUBLIC;
GRANT CONNECT ON DATABASE "sh'op" TO boss WITH GRANT OPTION;
SET ROLE boss; GRANT CONNECT ON DATABASE "sh'op" TO "Team"; RESET ROLE;
COMMENT ON DATABASE "sh'op" IS 'it''s';
CREATE DATABASE second;
"#;

const TABLES: &str = r#"
SET default_transaction_read_only = off;
BEGIN; SET TRANSACTION READ WRITE;
CREATE TABLE "tëst" (id int PRIMARY KEY, v text);
INSERT INTO "tëst" SELECT g, 'é' || g FROM generate_series(1, 1000) AS g;
ALTER TABLE "tëst" OWNER TO app;
COMMIT;
"#;

const PROPERTIES: &str = "
SELECT pg_encoding_to_char(d.encoding), d.datcollate, pg_get_userbyid(d.datdba), d.datconnlimit,
  (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(d.datacl) AS x),
  shobj_description(d.oid, 'pg_database'),
  (SELECT string_agg(coalesce(r.rolname, '-') || ':' || s.setconfig::text, ' ' ORDER BY r.rolname)
     FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = s.setrole WHERE s.setdatabase = d.oid)
FROM pg_database AS d WHERE datname = ";

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

fn latest(database: Option<&str>, name: &str) -> RestoreRequest {
    RestoreRequest {
        source: RestoreSource::Backup("latest".to_owned()),
        database: database.map(str::to_owned),
        place: RestorePlace::NewDatabase {
            name: name.to_owned(),
        },
        roles: RolesPolicy::Skip,
        keep_owner: true,
        engine: EngineChoice::Auto,
        jobs: None,
        contents: RestoreContents::default(),
    }
}

/// The other server with the first one's repository.
async fn elsewhere(from: &Live, major: u32) -> Live {
    let mut other = Live::start(major).await;
    other.home.repo = from.home.repo.clone();
    other
}

fn problem(result: Result<impl Sized, BackupError>) -> String {
    match result {
        Err(BackupError::RestoreRefused { problem, .. }) => problem,
        Err(other) => panic!("another error: {}", words(&other)),
        Ok(_) => panic!("it was not refused"),
    }
}

/// The catalogue may find a damage before the restore does.
fn damaged(result: Result<impl Sized, BackupError>) {
    match result {
        Err(BackupError::RestoreRefused { .. } | BackupError::Manifest { .. }) => {}
        Err(other) => panic!("another error: {}", words(&other)),
        Ok(_) => panic!("it was not refused"),
    }
}

async fn backup_and_restore(major: u32, format: DumpFormat) {
    let live = Live::start(major).await;
    live.psql("postgres", SETUP);
    live.psql("sh'op", TABLES);
    back_up(&live, format).await;

    let text = problem(live.plan(&latest(None, "copy")).await);
    assert!(
        text.contains("\"sh'op\"") && text.contains("\"second\""),
        "{text}"
    );
    problem(live.plan(&latest(Some("none"), "copy")).await);

    let report = live.restore(&latest(Some("sh'op"), "copy")).await;
    let report = report.unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!((report.tables, report.rows), (1, 1000));
    let properties = |name: &str| {
        live.psql(
            "postgres",
            &format!("{PROPERTIES} '{}'", name.replace('\'', "''")),
        )
    };
    assert_eq!(properties("copy"), properties("sh'op"));
    let rows = "SELECT md5(string_agg(x::text, ',' ORDER BY id)) FROM \"tëst\" AS x";
    assert_eq!(live.psql("copy", rows), live.psql("sh'op", rows));

    // Another server lacks the roles.
    let other = elsewhere(&live, major).await;
    let text = problem(other.plan(&latest(Some("sh'op"), "copy")).await);
    assert!(
        text.contains("\"app\"") && text.contains("\"Team\""),
        "{text}"
    );
    let mut create = latest(Some("sh'op"), "copy");
    create.roles = RolesPolicy::Create;
    let plan = other.plan(&create).await.unwrap();
    let shown = format!("{plan:?} {}", serde_json::to_string(&plan).unwrap());
    assert!(
        !shown.contains("SCRAM") && !shown.contains("canary"),
        "{shown}"
    );
    assert!(
        plan.warnings
            .iter()
            .any(|w| w.contains("boss") && w.contains("SUPERUSER")),
        "{:?}",
        plan.warnings
    );
    assert!(
        plan.warnings.iter().any(|w| w.contains("pg_monitor")),
        "{:?}",
        plan.warnings
    );
    other
        .apply(&plan)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    let roles = "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE \"C\"";
    assert_eq!(
        other.psql("postgres", roles),
        "Team|f|f\napp|f|t\nboss|t|f\npostgres|t|t",
        "only the needed roles, and not \"other\""
    );
    let member = "SELECT pg_has_role('app', 'Team', 'member')";
    assert_eq!(other.psql("postgres", member), "t");
    assert_eq!(
        other.psql("postgres", &format!("{PROPERTIES} 'copy'")),
        properties("sh'op")
    );
}

#[tokio::test]
async fn bar_32_properties_survive_custom_13() {
    backup_and_restore(13, DumpFormat::Custom).await;
}

#[tokio::test]
async fn bar_32_properties_survive_directory_15() {
    backup_and_restore(15, DumpFormat::Directory).await;
}

#[tokio::test]
async fn bar_32_properties_survive_plain_17() {
    backup_and_restore(17, DumpFormat::Plain).await;
}

#[tokio::test]
async fn bar_32_properties_survive_custom_18() {
    backup_and_restore(18, DumpFormat::Custom).await;
}

/// Writes the manifest anew, with another number of rows; all hashes fit.
fn with_rows(live: &Live, mut manifest: Manifest, rows: u64) {
    let attestation = manifest.databases[0].attestation.as_mut().unwrap();
    let big = attestation.tables.iter_mut().find(|t| t.name == "big");
    big.unwrap().rows = rows;
    live.home.store_manifest(&manifest, &manifest);
}

#[tokio::test]
async fn an_attested_backup_is_decoded_once_and_compared_with_its_manifest() {
    const ABOUT: &str = "SELECT count(*), md5(string_agg(id || v, ',' ORDER BY id)) FROM big";
    const FROZEN: &str = "SELECT relallvisible > relpages / 2 FROM pg_class WHERE relname = 'big'";
    let live = Live::start(17).await;
    live.psql(
        "postgres",
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 10) AS v FROM generate_series(1, 40000) AS g; \
         ALTER TABLE big ADD PRIMARY KEY (id); CREATE TABLE nothing (a int); \
         SELECT count(lo_from_bytea(0, '\\x00ff')) FROM generate_series(1, 3)",
    );
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let id = back_up(&live, format).await;
        let before = live.databases();
        let request = |jobs, name| RestoreRequest {
            source: RestoreSource::Backup(id.to_string()),
            engine: EngineChoice::Parallel,
            jobs: Some(jobs),
            ..latest(None, name)
        };
        for (jobs, frozen) in [(1, "t"), (2, "f")] {
            let plan = live.plan(&request(jobs, "copy")).await.unwrap();
            let first = &plan.steps[0];
            assert!(first.contains("those of the manifest"), "{first}");
            let report = live.apply(&plan).await.unwrap();
            assert_eq!((report.tables, report.rows), (2, 40_000));
            assert_eq!(live.psql("copy", ABOUT), live.psql("postgres", ABOUT));
            assert_eq!(live.psql("copy", FROZEN), frozen);
            live.psql("postgres", "DROP DATABASE copy");
        }
        let mut stock = request(2, "copy");
        stock.engine = EngineChoice::Stock;
        let plan = live.plan(&stock).await.unwrap();
        assert!(plan.steps[0].contains("is whole"), "{}", plan.steps[0]);

        let manifest = live.home.repo.find(id.as_str()).await.unwrap();
        with_rows(&live, manifest.clone(), 40_001);
        let error = live.restore(&request(2, "copy")).await.unwrap_err();
        let text = words(&error);
        assert!(matches!(error, BackupError::RestoreFailed { .. }), "{text}");
        assert!(text.contains("40001") && text.contains("40000"), "{text}");
        assert_eq!(live.databases(), before);
        with_rows(&live, manifest.clone(), 40_000);

        for file in &manifest.databases[0].archive.files {
            let path = live.home.backups().join(id.as_str()).join(&file.name);
            let bytes = std::fs::read(&path).unwrap();
            let mut flipped = bytes.clone();
            *flipped.last_mut().unwrap() ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let text = problem(live.plan(&request(2, "copy")).await);
            assert!(text.contains("hash"), "{text}");
            std::fs::remove_file(&path).unwrap();
            damaged(live.plan(&request(2, "copy")).await);
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn bar_44_flipped_and_cut_files_are_never_restored() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 500) AS g",
    );
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let id = back_up(&live, format).await;
        let before = live.databases();
        let manifest = live.home.repo.find(id.as_str()).await.unwrap();
        let request = RestoreRequest {
            source: RestoreSource::Backup(id.to_string()),
            ..latest(None, "copy")
        };
        for file in &manifest.databases[0].archive.files {
            let path = live.home.backups().join(id.as_str()).join(&file.name);
            let bytes = std::fs::read(&path).unwrap();
            for at in (0..bytes.len()).step_by(bytes.len().div_ceil(7)) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                std::fs::write(&path, &flipped).unwrap();
                let text = problem(live.plan(&request).await);
                assert!(text.contains("hash") || text.contains("damaged"), "{text}");
                std::fs::write(&path, &bytes[..at]).unwrap();
                damaged(live.plan(&request).await);
            }
            std::fs::remove_file(&path).unwrap();
            damaged(live.plan(&request).await);
            std::fs::write(&path, &bytes).unwrap();
        }
        // Changed between plan and apply.
        let plan = live.plan(&request).await.unwrap();
        let files = &manifest.databases[0].archive.files;
        let file = files.iter().max_by_key(|file| file.bytes).unwrap();
        let path = live.home.backups().join(id.as_str()).join(&file.name);
        let bytes = std::fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let error = live.apply(&plan).await.unwrap_err();
        assert!(
            matches!(error, BackupError::RestoreFailed { .. }),
            "{error:?}"
        );
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(live.databases(), before);
    }
}

/// Cancels as soon as rows are being restored.
struct CancelOn(&'static str, CancellationToken);

impl EventSink for CancelOn {
    fn emit(&self, event: BackupEvent) {
        if let BackupEvent::PhaseStarted { phase, .. } = event
            && phase == self.0
        {
            self.1.cancel();
        }
    }
}

#[tokio::test]
async fn bar_08_a_cancelled_restore_leaves_nothing() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 50000) AS g",
    );
    back_up(&live, DumpFormat::Custom).await;
    let other = elsewhere(&live, 15).await;
    let before = other.databases();
    for phase in ["restore", "analyze"] {
        let plan = other.plan(&latest(None, "copy")).await.unwrap();
        let cancel = CancellationToken::new();
        let sink = CancelOn(phase, cancel.clone());
        let repo = &other.home.repo;
        let error = backup::restore(repo, &other.executor, &plan, &sink, &cancel).await;
        let error = error.unwrap_err();
        assert!(
            matches!(error, BackupError::Interrupted { .. }),
            "{error:?}"
        );
        assert_eq!(other.databases(), before, "{phase}");
        let sessions = other.container.pgstow_sessions().unwrap();
        assert_eq!(sessions, 0);
    }
}

#[tokio::test]
async fn exports_are_whole_and_never_overwrite() {
    let live = Live::start(17).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 500) AS g",
    );
    let cancel = CancellationToken::new();
    let dir = live.home.dir.path().to_owned();
    for (number, (stored, wanted)) in [
        (DumpFormat::Custom, None),
        (DumpFormat::Directory, None),
        (DumpFormat::Plain, None),
        (DumpFormat::Custom, Some(DumpFormat::Plain)),
        (DumpFormat::Directory, Some(DumpFormat::Plain)),
    ]
    .into_iter()
    .enumerate()
    {
        let id = back_up(&live, stored).await;
        let request = ExportRequest {
            backup: id.to_string(),
            database: None,
            format: wanted,
            output: dir.join(format!("out-{number}")),
        };
        let export = async |request: &ExportRequest| {
            let (repo, executor) = (&live.home.repo, Arc::clone(&live.executor));
            backup::export(repo, request, Some(&executor), &live.home.events, &cancel).await
        };
        let report = export(&request)
            .await
            .unwrap_or_else(|error| panic!("{}", words(&error)));
        assert!(!report.files.is_empty());
        match wanted.unwrap_or(stored) {
            DumpFormat::Custom => {
                let file = std::fs::File::open(&request.output).unwrap();
                assert_eq!(
                    archive::check_custom(file, &archive::CheckOptions::default())
                        .unwrap()
                        .rows(),
                    500
                );
            }
            DumpFormat::Plain => {
                let file = std::fs::File::open(&request.output).unwrap();
                let summary = archive::check_plain(file).unwrap();
                assert_eq!(summary.tables[0].rows, Some(500));
            }
            DumpFormat::Directory => {
                let toc = std::fs::File::open(request.output.join("toc.dat")).unwrap();
                let open = |name: &str| {
                    let file = std::fs::File::open(request.output.join(name))?;
                    Ok(Box::new(file) as Box<dyn std::io::Read>)
                };
                assert_eq!(
                    archive::check_directory(toc, open, &archive::CheckOptions::default())
                        .unwrap()
                        .rows(),
                    500
                );
            }
        }
        // A second export to the same place is refused and changes nothing.
        assert!(matches!(
            export(&request).await,
            Err(BackupError::Preflight { .. })
        ));
        // A damaged source leaves nothing behind.
        let manifest = live.home.repo.find(id.as_str()).await.unwrap();
        let file = manifest.databases[0].archive.files.last().unwrap();
        let path = live.home.backups().join(id.as_str()).join(&file.name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = ExportRequest {
            output: dir.join(format!("damaged-{number}")),
            ..request.clone()
        };
        if !(stored == DumpFormat::Directory && wanted == Some(DumpFormat::Plain)) {
            export(&damaged).await.unwrap_err();
            assert!(!damaged.output.exists());
        }
        let left: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".partial"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let request = ExportRequest {
        backup: "latest".to_owned(),
        database: None,
        format: Some(DumpFormat::Custom),
        output: dir.join("impossible"),
    };
    let result = backup::export(&live.home.repo, &request, None, &live.home.events, &cancel).await;
    assert!(matches!(result, Err(BackupError::Preflight { .. })));
}

#[tokio::test]
async fn programs_of_this_host_restore_in_place_with_jobs() {
    // The host has the programs of 15, which are not older than either server.
    for major in [13, 15] {
        let live = Live::over_network(major).await;
        live.psql(
            "postgres",
            "CREATE TABLE a AS SELECT g, md5(g::text) FROM generate_series(1, 700) AS g;
             CREATE TABLE b AS SELECT * FROM a; CREATE INDEX ON b (g);",
        );
        for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
            let id = back_up(&live, format).await;
            let mut request = latest(None, "copy");
            request.source = RestoreSource::Backup(id.to_string());
            request.jobs = Some(3);
            let plan = live.plan(&request).await.unwrap();
            let jobs = plan.steps.iter().any(|step| step.contains("in 3 jobs"));
            assert_eq!(jobs, format != DumpFormat::Plain, "{:?}", plan.steps);
            let report = live.apply(&plan).await;
            let report = report.unwrap_or_else(|error| panic!("{}", words(&error)));
            assert_eq!((report.tables, report.rows), (2, 1400));
            live.psql("postgres", "DROP DATABASE copy");
        }
    }
}

#[tokio::test]
async fn bar_42_restore_waits_for_no_other_run_but_says_who_works() {
    let live = Live::start(15).await;
    live.psql(
        "postgres",
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS n",
    );
    back_up(&live, DumpFormat::Custom).await;
    let plan = live.plan(&latest(None, "copy")).await.unwrap();
    let locks = live.home.repo.state_dir.join("locks");
    let held: Vec<_> = std::fs::read_dir(locks)
        .unwrap()
        .map(|entry| std::fs::File::open(entry.unwrap().path()).unwrap())
        .collect();
    held.iter().for_each(|file| file.lock().unwrap());
    let error = live.apply(&plan).await.unwrap_err();
    assert!(matches!(error, BackupError::Locked { .. }), "{error:?}");
    assert!(!live.databases().contains(&"copy".to_owned()));
    drop(held);
    live.apply(&plan).await.unwrap();
}
