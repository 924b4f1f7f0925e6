//! Backups of real servers in containers.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup::{
    BackupError, BackupId, BackupOptions, BackupReport, Clock, DumpFormat, Manifest, VerifyLevel,
    VerifyReport,
};
use dbexec::PgExecutor;
use support::Home;
use support::real::{Login, in_container, on_host};
use testkit::PgContainer;
use tokio_util::sync::CancellationToken;

const ROWS: &str = "
create table item (id int primary key, name text, price numeric);
insert into item select g, 'item ' || g || E'\\t\\\\ä', g * 1.5 from generate_series(1, 20000) g;
create table empty ();
create view cheap as select * from item where price < 10;
select lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex')) from generate_series(1, 3);
comment on database shop is 'the ''shop''';
alter database shop set work_mem = '5MB';
";

async fn run(
    home: &Home,
    id: BackupId,
    executor: &Arc<dyn PgExecutor>,
    options: &BackupOptions,
    cancel: &CancellationToken,
) -> Result<BackupReport, BackupError> {
    backup::back_up(&home.repo, executor, id, options, &home.events, cancel).await
}

async fn back_up(
    home: &Home,
    container: &PgContainer,
    login: &Login<'_>,
    options: &BackupOptions,
) -> Result<BackupReport, BackupError> {
    let id = BackupId::new(home.clock.now());
    let executor = in_container(container, &id, login).await;
    run(home, id, &executor, options, &CancellationToken::new()).await
}

fn options(format: DumpFormat) -> BackupOptions {
    BackupOptions {
        format,
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    }
}

async fn verify(home: &Home, manifest: &Manifest) -> VerifyReport {
    let cancel = CancellationToken::new();
    let level = VerifyLevel::Read;
    backup::verify(&home.repo, &manifest.id, level, &home.events, &cancel)
        .await
        .unwrap()
}

fn sha256sum(home: &Home, manifest: &Manifest) {
    let dir = home.backups().join(manifest.id.as_str());
    let script = "cd \"$1\" && sha256sum --strict -c SHA256SUMS";
    testkit::process::run("sh", &["-c", script, "sh", dir.to_str().unwrap()]).unwrap();
}

/// Every format of a major: published, readable by the built-in reader, hashes as sha256sum sees them, rows back by the recipe's own commands.
async fn every_format(major: u32) {
    let container = PgContainer::start(major).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", ROWS).unwrap();
    let home = Home::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let report = back_up(&home, &container, &Login::default(), &options(format))
            .await
            .unwrap_or_else(|error| panic!("major {major}, {format:?}: {error:?}"));
        let manifest = &report.manifest;
        let names: Vec<_> = manifest.databases.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["postgres", "shop", "template1"], "major {major}");
        assert_eq!(manifest.verified, VerifyLevel::Read);
        assert!(manifest.globals.with_passwords && manifest.globals.file.is_some());
        let shop = &manifest.databases[1];
        assert_eq!(shop.comment.as_deref(), Some("the 'shop'"));
        assert_eq!(shop.settings[0].name, "work_mem");
        assert!(shop.size_bytes > 1 << 20);
        assert!(shop.extensions.contains_key("plpgsql"));
        assert_eq!(
            shop.collation_version.is_none(),
            shop.collate == "C" || major < 15
        );
        let expected = match (format, major) {
            (DumpFormat::Plain, _) => "zstd:2",
            (_, 16..) => "zstd:1-3",
            _ => "gzip:1",
        };
        assert_eq!(shop.archive.compression, expected);
        sha256sum(&home, manifest);
        let built_in = verify(&home, manifest).await;
        assert!(
            built_in.ok,
            "major {major}, {format:?}: {:?}",
            built_in.problems
        );
        assert_eq!(built_in.reader.as_deref(), Some("built-in"));
        by_hand(&home, &container, manifest, format);
    }
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups.len(), 3);
    assert!(catalog.damaged.is_empty() && catalog.runs.is_empty());
}

/// Restores `shop` by the commands of the manifest's recipe, as a person would.
fn by_hand(home: &Home, container: &PgContainer, manifest: &Manifest, format: DumpFormat) {
    let from = manifest
        .recipe
        .iter()
        .position(|line| line == "# Database \"shop\" into a new one.");
    let lines = &manifest.recipe[from.unwrap()..];
    let dir = home.backups().join(manifest.id.as_str());
    let commands: Vec<_> = lines
        .iter()
        .skip(1)
        .take_while(|line| !line.starts_with("# Database"))
        .filter(|line| line.contains("docker "))
        .collect();
    assert_eq!(commands.len(), 2, "{lines:?}");
    for command in commands {
        let script = format!("cd \"$1\" && {command}");
        testkit::process::run("sh", &["-c", &script, "sh", dir.to_str().unwrap()])
            .unwrap_or_else(|error| panic!("{format:?}: {command}: {error}"));
    }
    let count = "select count(*), sum(hashtext(item::text)),
        (select count(*) from pg_largeobject_metadata) from item";
    assert_eq!(
        container.psql("shop_restored", count).unwrap(),
        container.psql("shop", count).unwrap()
    );
    container
        .psql("postgres", "drop database shop_restored")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_major_13_in_every_format() {
    every_format(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_major_15_in_every_format() {
    every_format(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_major_17_in_every_format() {
    every_format(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_major_18_in_every_format() {
    every_format(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_with_programs_of_this_host() {
    let container = PgContainer::start(15).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", ROWS).unwrap();
    let home = Home::new();
    let scratch = tempfile::tempdir().unwrap();
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let id = BackupId::new(home.clock.now());
        let executor = on_host(&container, &id, &Login::default(), scratch.path()).await;
        let report = run(
            &home,
            id,
            &executor,
            &options(format),
            &CancellationToken::new(),
        )
        .await
        .unwrap_or_else(|error| panic!("{format:?}: {error:?}"));
        sha256sum(&home, &report.manifest);
        let verified = verify(&home, &report.manifest).await;
        assert!(verified.ok, "{:?}", verified.problems);
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_10_a_container_killed_in_mid_dump() {
    let home = Home::new();
    for verb in ["kill", "stop"] {
        let container = PgContainer::start(17).unwrap();
        container.psql("postgres", "create database shop").unwrap();
        container.psql("shop", ROWS).unwrap();
        let earlier = back_up(
            &home,
            &container,
            &Login::default(),
            &options(DumpFormat::Custom),
        )
        .await
        .unwrap();
        let files = home.files();
        lock_item(&container);
        let id = BackupId::new(home.clock.now());
        let executor = in_container(&container, &id, &Login::default()).await;
        let only_shop = BackupOptions {
            databases: vec!["shop".to_owned()],
            ..options(DumpFormat::Custom)
        };
        let cancel = CancellationToken::new();
        let (result, ()) = tokio::join!(run(&home, id, &executor, &only_shop, &cancel), async {
            wait_for_dump(&container).await;
            container.engine(verb).unwrap();
        });
        let error = result.expect_err(verb);
        let text = format!("{error:?}");
        assert!(text.contains("dumping database"), "{verb}: {text}");
        assert_eq!(home.files(), files, "{verb}");
        let catalog = home.repo.catalog().await.unwrap();
        assert_eq!(catalog.backups[0].id, earlier.manifest.id);
        assert_eq!(catalog.runs[0].sequence, earlier.manifest.sequence + 1);
    }
}

/// A session that holds `item` for as long as the server lives.
fn lock_item(container: &PgContainer) {
    let sql = "begin; lock table item in access exclusive mode; select pg_sleep(600)";
    let name = container.name().to_owned();
    testkit::process::docker(&[
        "exec", "-d", &name, "psql", "-U", "postgres", "-d", "shop", "-c", sql,
    ])
    .unwrap();
    let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted
        and relation = 'item'::regclass";
    let begun = Instant::now();
    while container.psql("shop", held).unwrap().trim() != "1" {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the lock was not taken"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until pg_dump waits for the lock.
async fn wait_for_dump(container: &PgContainer) {
    let waiting = "select count(*) from pg_stat_activity
        where application_name like 'pgstow-%' and wait_event_type = 'Lock'";
    let begun = Instant::now();
    while container.psql("shop", waiting).unwrap().trim() != "1" {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the dump did not begin"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_08_27_locks_interrupts_and_what_stays_behind() {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", ROWS).unwrap();
    lock_item(&container);
    let home = Home::new();
    // The lock wait ends by itself, with the server's words.
    let begun = Instant::now();
    let impatient = Login {
        lock_wait: Duration::from_secs(1),
        ..Login::default()
    };
    let error = back_up(&home, &container, &impatient, &options(DumpFormat::Custom))
        .await
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20));
    let record = home.repo.catalog().await.unwrap().runs[0].clone();
    let text = record.error.unwrap();
    assert!(
        text.contains("locked by another session for more than 1 s"),
        "{error:?} {text}"
    );
    // An interrupt ends the program and its session.
    let id = BackupId::new(home.clock.now());
    let executor = in_container(&container, &id, &Login::default()).await;
    let cancel = CancellationToken::new();
    let only_shop = BackupOptions {
        databases: vec!["shop".to_owned()],
        ..options(DumpFormat::Custom)
    };
    let (result, cancelled) = tokio::join!(run(&home, id, &executor, &only_shop, &cancel), async {
        wait_for_dump(&container).await;
        cancel.cancel();
        Instant::now()
    });
    assert!(matches!(
        result.unwrap_err(),
        BackupError::Interrupted { .. }
    ));
    assert!(cancelled.elapsed() < Duration::from_secs(5));
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    assert!(home.files().is_empty());

    // A run whose process is gone leaves its pg_dump waiting; the next run ends it.
    let id = BackupId::new(home.clock.now());
    let executor = in_container(&container, &id, &Login::default()).await;
    let (record_of, repo) = (id.clone(), home.repo.clone());
    let orphan = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let cancel = CancellationToken::new();
        runtime.spawn(async move {
            let _ = backup::back_up(
                &repo,
                &executor,
                id,
                &only_shop,
                &backup::event::NoEvents,
                &cancel,
            )
            .await;
        });
        std::thread::sleep(Duration::from_secs(3));
        // Waits for the threads that run the tasks: until then the lock is held.
        runtime.shutdown_timeout(Duration::from_secs(30));
    });
    orphan.join().unwrap();
    let record = home.repo.catalog().await.unwrap().runs[0].clone();
    assert_eq!(record.id, record_of);
    assert_eq!(
        record.state,
        backup::RunState::Failed,
        "it holds no lock any more"
    );
    back_up(&home, &container, &impatient, &options(DumpFormat::Custom))
        .await
        .unwrap_err();
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    assert!(home.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_26_a_role_that_may_not_read_everything() {
    let container = PgContainer::start(17).unwrap();
    container
        .psql(
            "postgres",
            "create role saver login; create schema s; create table s.secret (a int);
             create table s.guarded (a int); alter table s.guarded enable row level security;
             create sequence s.numbers; select lo_create(4711);
             create schema \"evil\"\"; $(x)\"; create table \"evil\"\"; $(x)\".\"t\n\" (a int)",
        )
        .unwrap();
    let home = Home::new();
    let login = Login {
        user: "saver",
        ..Login::default()
    };
    let granted = |grants: &[String]| container.psql("postgres", &grants.join(";\n")).unwrap();
    let mut rounds = 0;
    let report = loop {
        match back_up(&home, &container, &login, &options(DumpFormat::Custom)).await {
            Ok(report) => break report,
            Err(BackupError::RightsMissing {
                grants, missing, ..
            }) => {
                assert!(missing.iter().any(|m| m == "table s.secret"), "{missing:?}");
                assert!(
                    missing.iter().any(|m| m == "large object 4711"),
                    "{missing:?}"
                );
                // The GRANTs are what a person would paste.
                granted(&grants);
            }
            Err(error) => panic!("{error:?}"),
        }
        rounds += 1;
        assert!(rounds < 3);
    };
    assert_eq!(rounds, 1);
    assert!(!report.manifest.globals.with_passwords);
    assert!(report.manifest.warnings[0].contains("password verifiers"));
    assert!(home.repo.catalog().await.unwrap().backups.len() == 1);
    // Rows that are left out need no right to see past row-level security.
    container
        .psql("postgres", "alter role saver nobypassrls")
        .unwrap();
    let without = BackupOptions {
        exclude_table_data: vec!["s.guard*".to_owned()],
        ..options(DumpFormat::Custom)
    };
    back_up(&home, &container, &login, &without).await.unwrap();
    let error = back_up(&home, &container, &login, &options(DumpFormat::Custom)).await;
    assert!(matches!(error, Err(BackupError::RightsMissing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_36_names_of_real_databases_are_data() {
    let container = PgContainer::start(17).unwrap();
    let long = "ä".repeat(31);
    let names = [
        "-Fc",
        "host=evil port=1",
        "a'b\"c; $(x)",
        "line\nbreak",
        "../../etc",
        "postgres://h/d",
        long.as_str(),
        " ",
        "`id`",
        "back\\slash",
        "--version",
    ];
    for name in names {
        let quoted = name.replace('"', "\"\"");
        container
            .psql("postgres", &format!("create database \"{quoted}\""))
            .unwrap();
        let text = name.replace('\'', "''");
        let sql = format!(
            "create table who as select E'{}'::text as n",
            text.replace('\\', "\\\\")
        );
        container.psql_in(name, &sql);
    }
    let home = Home::new();
    let login = Login {
        database: "-Fc",
        ..Login::default()
    };
    let wanted = BackupOptions {
        databases: names.map(str::to_owned).to_vec(),
        ..options(DumpFormat::Custom)
    };
    let report = back_up(&home, &container, &login, &wanted).await.unwrap();
    let stored: Vec<_> = report
        .manifest
        .databases
        .iter()
        .map(|d| d.name.as_str())
        .collect();
    assert_eq!(stored, names);
    // Each archive holds the table of its own database: its TOC names it.
    for database in &report.manifest.databases {
        let path = home
            .backups()
            .join(report.manifest.id.as_str())
            .join(&database.archive.files[0].name);
        let toc = archive::read_toc(std::fs::File::open(path).unwrap()).unwrap();
        assert_eq!(toc.header.database, database.name);
    }
}

trait PsqlIn {
    fn psql_in(&self, database: &str, sql: &str);
}

impl PsqlIn for PgContainer {
    /// `PGDATABASE` would be read as a connection string where it looks like one.
    fn psql_in(&self, database: &str, sql: &str) {
        let conninfo = dbexec::executor::conninfo_dbname(database);
        self.exec(&["psql", "-U", "postgres", "-X", "-d", &conninfo, "-c", sql])
            .unwrap();
    }
}
