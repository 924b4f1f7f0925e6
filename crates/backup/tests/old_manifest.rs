//! Backups whose manifest has format 1: their rows and large objects were hashed by SHA-256, and they
//! are verified, compared and restored as before.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::fs::File;
use std::path::PathBuf;

use archive::{ArchiveSummary, CheckOptions, Fingerprints, ItemHash, check_custom};
use backup::compare::{Expected, compare, observe};
use backup::diff::{contents, diff};
use backup::event::NoEvents;
use backup::{
    BackupOptions, DumpFormat, EngineChoice, Manifest, RestoreSource, VerifyLevel, VerifyReport,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::live::{Live, file_as, words};
use support::stock;
use tokio_util::sync::CancellationToken;

/// A table of its own, one whose columns a restore turns round, and large objects.
const ROWS: &str = "
create table item as select g as id, md5(g::text) as name from generate_series(1, 500) g;
create table parent (a int, b text);
create table child (c int) inherits (parent);
insert into child select g, 'b' || g, g * 2 from generate_series(1, 50) g;
alter table parent add column d text default 'd';
select lo_from_bytea(4711, decode(repeat('00ff', 500), 'hex')), lo_from_bytea(4712, 'abc');
";

fn file_of(live: &Live, manifest: &Manifest, name: &str) -> PathBuf {
    live.home.backups().join(manifest.id.as_str()).join(name)
}

/// What our reader finds in the archive.
fn found(live: &Live, manifest: &Manifest, hash: ItemHash) -> ArchiveSummary {
    let name = &manifest.databases[0].archive.files[0].name;
    let options = CheckOptions {
        fingerprints: Fingerprints::All,
        hash,
        ..CheckOptions::default()
    };
    check_custom(File::open(file_of(live, manifest, name)).unwrap(), &options).unwrap()
}

/// Sum of the first halves of the SHA-256 of each line that COPY writes.
fn summed(live: &Live, table: &str) -> String {
    let rows = live.psql("shop", &format!("copy {table} to stdout"));
    let sum = rows.lines().fold(0_u128, |sum, row| {
        let digest = Sha256::digest(row);
        sum.wrapping_add(u128::from_be_bytes(digest[..16].try_into().unwrap()))
    });
    format!("{sum:032x}")
}

/// The manifest as an older program wrote it.
fn old(live: &Live, manifest: &Manifest) -> Value {
    let found = found(live, manifest, ItemHash::Sha256);
    let mut old = serde_json::to_value(manifest).unwrap();
    old["format_version"] = 1.into();
    let attestation = &mut old["databases"][0]["attestation"];
    let named = attestation.as_object_mut().unwrap().remove("row_hash");
    assert_eq!(named, Some("xxh3_128".into()));
    for table in attestation["tables"].as_array_mut().unwrap() {
        let oid = table["oid"].as_u64().unwrap();
        let mut same = found.tables.iter().filter(|t| u64::from(t.oid) == oid);
        let print = same.next().unwrap().fingerprint.unwrap().to_string();
        let empty = table["rows"] == 0;
        assert_eq!(table["fingerprint"] == print.as_str(), empty, "{table}");
        table["fingerprint"] = print.into();
    }
    let print = found.large_object_fingerprint.unwrap().to_string();
    assert_ne!(attestation["large_objects"]["fingerprint"], print.as_str());
    attestation["large_objects"]["fingerprint"] = print.into();
    old
}

async fn verify(live: &Live, manifest: &Manifest) -> VerifyReport {
    let cancel = CancellationToken::new();
    let level = VerifyLevel::Read;
    let report = backup::verify(&live.home.repo, &manifest.id, level, &NoEvents, &cancel);
    report.await.unwrap()
}

/// One digit of a fingerprint changed.
fn change(print: &mut Value) {
    let text = print.as_str().unwrap();
    let first = if text.starts_with('0') { "1" } else { "0" };
    *print = format!("{first}{}", &text[1..]).into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_format_1_is_verified_and_compared_by_sha_256() {
    let live = Live::start(17).await;
    live.psql("postgres", "create database shop");
    live.psql("shop", ROWS);
    let options = BackupOptions {
        verify: VerifyLevel::None,
        ..stock::options(DumpFormat::Custom, EngineChoice::Stock)
    };
    let newer = stock::back_up(&live.home, &live.container, &options).await;
    let older = stock::back_up(&live.home, &live.container, &options).await;
    let (newer, older) = (newer.manifest, older.manifest);
    let text = old(&live, &older);
    live.home.store_manifest(&older, &text);

    // It is read as what it was, and its fingerprints are those of another program.
    let read = live.home.repo.find(older.id.as_str()).await.unwrap();
    let attestation = read.databases[0].attestation.as_ref().unwrap();
    assert_eq!(read.format_version, 1);
    assert_eq!(attestation.row_hash, ItemHash::Sha256);
    let item = attestation.tables.iter().find(|t| t.name == "item");
    let print = item.unwrap().fingerprint.unwrap();
    assert_eq!(print.to_string(), summed(&live, "item"));
    assert_eq!(newer.format_version, 2);
    for manifest in [&older, &newer] {
        let report = verify(&live, manifest).await;
        assert!(report.ok, "{:?}", report.problems);
    }

    // A copy is compared with it, rows and large objects by their contents.
    let request = backup::RestoreRequest {
        source: RestoreSource::Backup(older.id.to_string()),
        ..file_as(std::path::Path::new(""), "copy")
    };
    let plan = live.plan(&request).await;
    let plan = plan.unwrap_or_else(|error| panic!("{}", words(&error)));
    let restored = live.apply(&plan).await;
    restored.unwrap_or_else(|error| panic!("{}", words(&error)));
    let expected = Expected::of_plan(&plan).await.unwrap();
    let cancel = CancellationToken::new();
    let wanted = expected.wanted();
    let result = || async {
        let observed = observe(&live.executor, "copy", &wanted, &NoEvents, &cancel);
        compare(&expected, &observed.await.unwrap())
    };
    let equal = result().await;
    assert!(equal.is_equal(), "{:#?}", equal.differences);
    assert_eq!((equal.fingerprints, equal.tables_total), (3, 3));
    assert_eq!(equal.not_compared, Vec::<String>::new());
    live.psql(
        "copy",
        "update item set name = 'x' where id = 7; update child set c = 0 where a = 3; \
         select lo_put(4712, 1, 'x')",
    );
    let changed: Vec<_> = result().await.differences.into_iter().collect();
    let changed: Vec<_> = changed.iter().map(|d| d.object.as_str()).collect();
    assert_eq!(
        changed,
        ["table public.child", "table public.item", "large objects"]
    );

    // Beside a newer backup only its counts say anything.
    let of = async |manifest: &Manifest| {
        let database = &manifest.databases[0];
        let found = contents(&live.home.repo, manifest, database, &NoEvents, &cancel);
        found.await.unwrap()
    };
    let between = diff(&of(&read).await, &of(&newer).await);
    assert!(between.rows.is_empty(), "{:?}", between.rows);
    assert_eq!((between.not_compared, between.hashed_differently), (2, 2));

    // One digit changed, of rows, of columns and of large objects.
    for (number, table) in text["databases"][0]["attestation"]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, table)| table["rows"] != 0)
    {
        let mut wrong = text.clone();
        change(&mut wrong["databases"][0]["attestation"]["tables"][number]["fingerprint"]);
        live.home.store_manifest(&older, &wrong);
        let report = verify(&live, &older).await;
        let told = format!("table public.{} has", table["name"].as_str().unwrap());
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        let problem = &report.problems[0].problem;
        assert!(
            problem.starts_with(&told) && problem.ends_with("not the same ones"),
            "{problem}"
        );
    }
    let mut wrong = text.clone();
    change(&mut wrong["databases"][0]["attestation"]["large_objects"]["fingerprint"]);
    live.home.store_manifest(&older, &wrong);
    let problems = verify(&live, &older).await.problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .problem
            .contains("large objects are not the same")
    );

    // A hash that this program does not know is not passed over.
    let mut unknown = text.clone();
    unknown["databases"][0]["attestation"]["row_hash"] = "xxh4".into();
    live.home.store_manifest(&older, &unknown);
    let problems = verify(&live, &older).await.problems;
    let told = problems.iter().any(|p| p.problem.contains("newer pgstow"));
    assert!(told, "{problems:?}");
}
