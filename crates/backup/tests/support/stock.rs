//! Archives of the engine beside those of pg_dump, judged by stock pg_restore in the container.

use std::path::PathBuf;

use backup::attest::Attestation;
use backup::{BackupId, BackupOptions, BackupReport, Clock, DumpFormat, EngineChoice, VerifyLevel};
use testkit::{PgContainer, process::docker, schema};
use tokio_util::sync::CancellationToken;

use super::Home;
use super::real::{Login, in_container};

/// Writes the scripts of two archives without their random keys; says where they differ.
const SAME_SCRIPT: &str = r#"
set -euo pipefail
export LC_ALL=C
for name in "$1" "$2"; do
  pg_restore -f - "$name" | grep -av -e '^.restrict ' -e '^.unrestrict ' > "$name.sql"
done
cmp "$1.sql" "$2.sql" || { diff -a "$1.sql" "$2.sql" || true; } | cut -c 1-300 | head -n 60
rm "$1.sql" "$2.sql"
"#;

/// A backup of the database `shop` by two movers, read again.
pub fn options(format: DumpFormat, engine: EngineChoice) -> BackupOptions {
    BackupOptions {
        databases: vec!["shop".to_owned()],
        format,
        engine,
        jobs: Some(2),
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    }
}

/// Takes it.
pub async fn back_up(
    home: &Home,
    container: &PgContainer,
    options: &BackupOptions,
) -> BackupReport {
    let id = BackupId::new(home.clock.now());
    let executor = in_container(container, &id, &Login::default()).await;
    let cancel = CancellationToken::new();
    backup::back_up(&home.repo, &executor, id, options, &home.events, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{error:?}\n{}", home.events.text()))
}

/// What the only database was attested to hold, without what no two runs share.
pub fn attestation(report: &BackupReport) -> Attestation {
    let mut attestation = report.manifest.databases[0].attestation.clone().unwrap();
    attestation.seconds = 0.0;
    attestation
}

fn archive_of(home: &Home, report: &BackupReport) -> PathBuf {
    let dir = home.backups().join(report.manifest.id.as_str());
    let name = &report.manifest.databases[0].archive.files[0].name;
    dir.join(name.split('/').next().unwrap())
}

/// Puts the archive of the only database into the container; its path there.
pub fn put_archive(
    container: &PgContainer,
    home: &Home,
    report: &BackupReport,
    name: &str,
) -> String {
    let inside = format!("/tmp/{name}");
    container.exec(&["rm", "-rf", &inside]).unwrap();
    let to = format!("{}:{inside}", container.id());
    docker(&["cp", archive_of(home, report).to_str().unwrap(), &to]).unwrap();
    inside
}

/// What stock pg_restore makes of two archives is the same text, the order of all rows included.
pub fn assert_same_script(container: &PgContainer, ours: &str, stock: &str, what: &str) {
    let argv = ["bash", "-c", SAME_SCRIPT, "same", ours, stock];
    let differences = container.exec(&argv).unwrap();
    assert!(differences.is_empty(), "{what}:\n{differences}");
}

/// Restores with stock pg_restore into a new database and compares rows, large objects and
/// sequences with the source.
pub fn restores(container: &PgContainer, inside: &str, jobs: Option<&str>, into: &str) {
    let create = format!("create database {into} template template0");
    container.psql("postgres", &create).unwrap();
    let mut argv = vec!["pg_restore", "-U", "postgres", "-d", into, "-e"];
    argv.extend(jobs);
    argv.push(inside);
    container.exec(&argv).unwrap();
    assert_eq!(
        schema::fingerprint(container, into).unwrap(),
        schema::fingerprint(container, "shop").unwrap(),
        "{into}"
    );
}
