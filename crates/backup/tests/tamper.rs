//! Tampering with stored backups: single bits, cuts, and valid archives that hold something else.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::manifest::StoredFile;
use backup::{BackupId, BackupOptions, Clock, DumpFormat, Manifest, VerifyLevel, VerifyReport};
use dbexec::PgExecutor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use support::Home;
use support::real::{Login, in_container};
use testkit::{PgContainer, process::docker};
use tokio_util::sync::CancellationToken;

const ROWS: &str = "
create table item (id serial primary key, name text, price numeric);
insert into item (name, price) select md5(g::text) || E'\\t\\\\ä', g * 1.5 from generate_series(1, 100) g;
create table empty (x int);
create table other as select g as x, repeat('y', g) as y from generate_series(1, 60) g;
create view cheap as select * from item where price < 10;
select lo_from_bytea(4711, decode(repeat('00ff', 50), 'hex'));
";

/// Random flips, and as many cuts, for each format.
#[expect(
    clippy::disallowed_methods,
    reason = "a knob of the tests: cargo xtask tamper asks for more"
)]
fn how_many() -> usize {
    std::env::var("PGSTOW_TEST_TAMPER")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300)
}

fn server() -> PgContainer {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", ROWS).unwrap();
    container
}

async fn back_up(home: &Home, container: &PgContainer, format: DumpFormat) -> Manifest {
    let id = BackupId::new(home.clock.now());
    let executor: Arc<dyn PgExecutor> = in_container(container, &id, &Login::default()).await;
    let options = BackupOptions {
        databases: vec!["shop".to_owned()],
        format,
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    };
    let cancel = CancellationToken::new();
    backup::back_up(&home.repo, &executor, id, &options, &home.events, &cancel)
        .await
        .unwrap()
        .manifest
}

async fn verify(home: &Home, manifest: &Manifest) -> VerifyReport {
    backup::verify(
        &home.repo,
        &manifest.id,
        VerifyLevel::Read,
        &backup::event::NoEvents,
        &CancellationToken::new(),
    )
    .await
    .unwrap()
}

fn dir(home: &Home, manifest: &Manifest) -> PathBuf {
    home.backups().join(manifest.id.as_str())
}

fn stored(dir: &Path, name: &str) -> StoredFile {
    let bytes = fs::read(dir.join(name)).unwrap();
    StoredFile {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(&bytes)),
    }
}

/// Writes manifest and list of hashes anew, so that the hashes fit what is there now: whoever can
/// do that is caught by the attestation alone.
fn reseal(home: &Home, manifest: &mut Manifest) {
    let dir = dir(home, manifest);
    let archive = &mut manifest.databases[0].archive;
    let mut names: Vec<String> = archive.files.iter().map(|file| file.name.clone()).collect();
    if let Some((folder, _)) = names[0].clone().split_once('/') {
        names = fs::read_dir(dir.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|leaf| format!("{folder}/{leaf}"))
            .collect();
        names.sort();
    }
    archive.files = names.iter().map(|name| stored(&dir, name)).collect();
    home.store_manifest(manifest, manifest);
}

/// Puts another dump in the place of a backup's archive and reseals it.
fn replace(home: &Home, container: &PgContainer, manifest: &mut Manifest, compression: &str) {
    let archive = &manifest.databases[0].archive;
    let format = match archive.format {
        DumpFormat::Custom => "-Fc",
        DumpFormat::Directory => "-Fd",
        DumpFormat::Plain => "-Fp",
    };
    let script = "rm -rf /tmp/other && PGTZ=UTC pg_dump -U postgres -d shop \"$1\" -Z \"$2\" \
                  -f /tmp/other";
    container
        .exec(&["sh", "-c", script, "sh", format, compression])
        .unwrap();
    let first = &archive.files[0].name;
    let to = dir(home, manifest).join(first.split('/').next().unwrap());
    if archive.format == DumpFormat::Directory {
        fs::remove_dir_all(&to).unwrap();
    }
    let from = format!("{}:/tmp/other", container.id());
    docker(&["cp", &from, to.to_str().unwrap()]).unwrap();
    if archive.format == DumpFormat::Plain {
        let text = fs::read(&to).unwrap();
        fs::write(&to, zstd::encode_all(text.as_slice(), 2).unwrap()).unwrap();
    }
    private(&to);
    reseal(home, manifest);
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            private(&entry.unwrap().path());
        }
    } else {
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

/// Every format with every compression: first whole, although another pg_dump wrote it, then with
/// one bit or the end changed.
#[tokio::test(flavor = "multi_thread")]
async fn bar_44_random_flips_and_cuts_are_found_and_named() {
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let container = server();
    let zipped: &[&str] = &["0", "gzip:1", "lz4:1", "zstd:2"];
    let formats = [
        (DumpFormat::Custom, zipped),
        (DumpFormat::Directory, zipped),
        (DumpFormat::Plain, &["0"]),
    ];
    let mut tried = 0;
    for (format, compressions) in formats {
        let home = Home::new();
        let mut manifest = back_up(&home, &container, format).await;
        for compression in compressions {
            replace(&home, &container, &mut manifest, compression);
            let report = verify(&home, &manifest).await;
            assert!(report.ok, "{format:?} {compression}: {:?}", report.problems);
            let files = &manifest.databases[0].archive.files;
            let files: Vec<_> = files.iter().filter(|file| file.bytes > 0).collect();
            let root = dir(&home, &manifest);
            for number in 0..how_many().div_ceil(compressions.len()) * 2 {
                let file = files[random.random_range(0..files.len())];
                let path = root.join(&file.name);
                let good = fs::read(&path).unwrap();
                let at = random.random_range(0..good.len());
                let bit = random.random_range(0..8);
                let (bad, what) = if number % 2 == 0 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    (bad, format!("bit {bit} of byte {at}"))
                } else {
                    (good[..at].to_vec(), format!("cut at {at}"))
                };
                fs::write(&path, bad).unwrap();
                let report = verify(&home, &manifest).await;
                fs::write(&path, good).unwrap();
                let named = report
                    .problems
                    .iter()
                    .any(|problem| problem.object.contains(&file.name));
                assert!(
                    !report.ok && named,
                    "seed {seed}: {format:?} {compression}: {what} of {}: {:?}",
                    file.name,
                    report.problems
                );
                tried += 1;
            }
            eprintln!("{format:?} {compression}: {tried} changes found so far");
        }
        assert!(verify(&home, &manifest).await.ok);
    }
    assert!(tried >= 6 * how_many(), "{tried}");
}

/// Valid archives with fitting hashes that hold something else than was attested.
#[tokio::test(flavor = "multi_thread")]
async fn bar_45_a_valid_archive_with_other_contents_is_found_and_named() {
    let container = server();
    let changes = [
        (
            "delete from item where id <= 10",
            "table public.item has 90 rows, 100 were attested",
            true,
        ),
        (
            "update other set y = 'z' where x = 7",
            "table public.other has 60 rows as attested, but not the same ones",
            false,
        ),
        (
            "select setval('item_id_seq', 4000)",
            "sequence public.item_id_seq is at 4000, 100 was attested",
            false,
        ),
        (
            "select lo_put(4711, 3, 'x')",
            "the large objects are not the same ones as attested",
            false,
        ),
        (
            "select lo_from_bytea(4712, 'more')",
            "there are 2 large objects of 104 bytes, 1 of 100 bytes were attested",
            false,
        ),
        (
            "create or replace view cheap as select * from item where price < 11",
            "the definitions of its objects are not those that were attested",
            false,
        ),
        (
            "create table made as select 1 as x",
            "table public.made has 1 rows and was not attested",
            true,
        ),
    ];
    let home = Home::new();
    let mut backups = Vec::new();
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        backups.push(back_up(&home, &container, format).await);
    }
    for (sql, words, in_scripts) in changes {
        container.psql("shop", sql).unwrap();
        for manifest in &backups {
            let mut manifest = manifest.clone();
            let format = manifest.databases[0].archive.format;
            replace(&home, &container, &mut manifest, "0");
            let report = verify(&home, &manifest).await;
            let found = report
                .problems
                .iter()
                .any(|problem| problem.problem == words);
            let expected = format != DumpFormat::Plain || in_scripts;
            assert_eq!(found, expected, "{format:?}: {sql}: {:?}", report.problems);
        }
    }
}

/// Archives of two backups exchanged, with and without hashes that fit, and an older manifest.
#[tokio::test(flavor = "multi_thread")]
async fn bar_45_exchanged_archives_and_an_older_manifest_are_found_and_named() {
    let container = server();
    let home = Home::new();
    let mut older = back_up(&home, &container, DumpFormat::Custom).await;
    container.psql("shop", "delete from other").unwrap();
    let mut newer = back_up(&home, &container, DumpFormat::Custom).await;
    let name = older.databases[0].archive.files[0].name.clone();
    let (first, second) = (
        dir(&home, &older).join(&name),
        dir(&home, &newer).join(&name),
    );
    let (one, two) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    fs::write(&first, &two).unwrap();
    fs::write(&second, &one).unwrap();
    for manifest in [&older, &newer] {
        let report = verify(&home, manifest).await;
        assert!(
            report
                .problems
                .iter()
                .any(|problem| problem.object.contains(&name)),
            "{:?}",
            report.problems
        );
    }
    // Hashes that fit: only the rows tell.
    reseal(&home, &mut older);
    reseal(&home, &mut newer);
    for (manifest, words) in [
        (&older, "table public.other has 0 rows, 60 were attested"),
        (&newer, "table public.other has 60 rows, 0 were attested"),
    ] {
        let report = verify(&home, manifest).await;
        assert!(
            report
                .problems
                .iter()
                .any(|problem| problem.problem == words),
            "{:?}",
            report.problems
        );
    }
    fs::write(&first, &one).unwrap();
    fs::write(&second, &two).unwrap();
    reseal(&home, &mut older);
    reseal(&home, &mut newer);
    assert!(verify(&home, &older).await.ok && verify(&home, &newer).await.ok);
    // The older manifest with its list of hashes in the place of the newer one.
    for name in ["manifest.json", "SHA256SUMS"] {
        fs::copy(dir(&home, &older).join(name), dir(&home, &newer).join(name)).unwrap();
    }
    let report = verify(&home, &newer).await;
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.object == "manifest.json"),
        "{:?}",
        report.problems
    );
    assert!(verify(&home, &older).await.ok);
}
