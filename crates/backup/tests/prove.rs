//! Backups proven in throw-away servers: real sources, real containers.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup::compare::CatalogueState;
use backup::{
    BackupError, BackupId, BackupOptions, Clock, DumpFormat, Manifest, Proof, ProofResult,
    ProveOptions, ProveServer, VerifyLevel, prove, sandbox_needs, verify,
};
use dbexec::runtime::{EndpointInput, connect_runtime};
use dbexec::{Sandbox, SandboxPlace, SandboxSpec};
use sha2::{Digest, Sha256};
use support::live::{Live, words};
use testkit::process::docker;
use testkit::schema::load_bar31;
use tokio_util::sync::CancellationToken;

async fn back_up(live: &Live, options: BackupOptions) -> Manifest {
    let id = BackupId::new(live.home.clock.now());
    let cancel = CancellationToken::new();
    let (repo, events) = (&live.home.repo, &live.home.events);
    backup::back_up(repo, &live.executor, id, &options, events, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)))
        .manifest
}

async fn sandbox(manifest: &Manifest, image: &str, run_id: &str) -> Sandbox {
    let runtime = connect_runtime(&EndpointInput::default()).await.unwrap();
    let needs = sandbox_needs(manifest);
    let spec = SandboxSpec {
        place: SandboxPlace::Image {
            runtime: Arc::new(runtime),
            image: image.to_owned(),
        },
        major: needs.major,
        run_id: run_id.to_owned(),
        settings: needs.settings,
        env: Vec::new(),
        superuser: needs.superuser,
        memory_bytes: 512 << 20,
        cpus: 2.0,
        disk_bytes: needs.disk_bytes,
        start_timeout: Duration::from_secs(60),
    };
    Sandbox::start(&spec, &CancellationToken::new())
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)))
}

/// Proves a backup in a container of the image that its source ran in; nothing is left of it.
async fn proven(
    live: &Live,
    manifest: &Manifest,
    options: &ProveOptions,
) -> Result<Proof, BackupError> {
    let image = &manifest.target.container.as_ref().unwrap().image_digest;
    proven_in(live, manifest, options, image).await
}

async fn proven_in(
    live: &Live,
    manifest: &Manifest,
    options: &ProveOptions,
    image: &str,
) -> Result<Proof, BackupError> {
    let run_id = format!("prove-{}", live.container.id());
    let sandbox = sandbox(manifest, image, &run_id).await;
    let proof = {
        let server = ProveServer::from(&sandbox);
        let cancel = CancellationToken::new();
        let (repo, events) = (&live.home.repo, &live.home.events);
        prove(repo, manifest, &server, options, events, &cancel).await
    };
    sandbox.remove().await.unwrap();
    let filter = format!("label=pgstow.sandbox={run_id}");
    assert_eq!(docker(&["ps", "-aq", "--filter", &filter]).unwrap(), "");
    proof
}

fn proof_files(live: &Live, manifest: &Manifest) -> Vec<PathBuf> {
    let dir = live.home.backups().join(manifest.id.as_str());
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("proof-")
        })
        .collect()
}

/// Everything that a database can hold, with every other database of the server.
async fn a_whole_server_is_proven(major: u32, format: DumpFormat) {
    let live = Live::start(major).await;
    load_bar31(&live.container, "the source").unwrap();
    live.psql("postgres", "create table in_postgres as select 1 as one");
    let options = BackupOptions {
        format,
        ..BackupOptions::default()
    };
    let manifest = back_up(&live, options).await;
    let options = ProveOptions {
        checks: vec![
            "select count(*) > 0 from pg_class".to_owned(),
            "select current_database() = 'the source' -- the only one of a user's".to_owned(),
        ],
        ..ProveOptions::default()
    };
    let proof = proven(&live, &manifest, &options)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(
        proof.result,
        ProofResult::Passed,
        "{:#?} {:#?}",
        proof.problems(),
        proof.warnings
    );
    assert_eq!(proof.databases.len(), manifest.databases.len());
    let (equal, total) = proof.tables();
    assert!(equal == total && total > 10, "{equal} of {total}");
    for database in &proof.databases {
        assert!(database.attested, "{database:?}");
        if format != DumpFormat::Plain {
            assert_eq!(database.comparison.catalogue, CatalogueState::Full);
        }
        assert!(database.amcheck.is_some(), "{database:?}");
    }
    let source = proof.databases.iter().find(|d| d.name == "the source");
    let source = source.unwrap();
    assert!(source.amcheck.as_ref().unwrap().indexes > 3);
    if format != DumpFormat::Plain {
        assert!(source.comparison.fingerprints > 10, "{source:?}");
        assert!(source.comparison.sequences_total > 0);
        assert!(source.comparison.large_objects.unwrap() > 0);
    }
    assert_eq!(proof.checks.len(), 2);
    assert!(proof.place.contains("sha256:"), "{}", proof.place);

    // It is recorded, and the record is part of what is verified.
    assert_eq!(proof_files(&live, &manifest).len(), 1);
    let (_, recorded) = live.home.repo.proof(&manifest.id).await.unwrap().unwrap();
    assert_eq!(recorded, proof);
    let cancel = CancellationToken::new();
    let report = verify(
        &live.home.repo,
        &manifest.id,
        VerifyLevel::Read,
        &live.home.events,
        &cancel,
    );
    let report = report.await.unwrap();
    assert!(report.ok, "{:?}", report.problems);
    // No lock of the throw-away server's is left.
    let locks = std::fs::read_dir(live.home.repo.state_dir.join("locks")).unwrap();
    assert_eq!(locks.count(), 2, "the source's and the repository's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_is_proven_13() {
    a_whole_server_is_proven(13, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_is_proven_15() {
    a_whole_server_is_proven(15, DumpFormat::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_is_proven_17() {
    a_whole_server_is_proven(17, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_is_proven_18() {
    a_whole_server_is_proven(18, DumpFormat::Directory).await;
}

const SHOP: &str = "
create table orders (id int primary key, note text);
insert into orders select g, 'order ' || g from generate_series(1, 1000) g;
create table customers as select g as id from generate_series(1, 100) g;
create sequence numbers; select setval('numbers', 41);";

/// Puts the archive of one backup into another and makes manifest and hashes agree with it, as
/// somebody would who wants it not to be seen.
fn put_archive(live: &Live, from: &Manifest, into: &mut Manifest, database: &str) {
    let at = |manifest: &Manifest| {
        let found = manifest.databases.iter().position(|d| d.name == database);
        found.unwrap()
    };
    let dir = |manifest: &Manifest| live.home.backups().join(manifest.id.as_str());
    let source = &from.databases[at(from)].archive.files[0];
    let bytes = std::fs::read(dir(from).join(&source.name)).unwrap();
    let target = at(into);
    let name = into.databases[target].archive.files[0].name.clone();
    std::fs::write(dir(into).join(name), &bytes).unwrap();
    let file = &mut into.databases[target].archive.files[0];
    file.bytes = bytes.len() as u64;
    file.sha256 = hex::encode(Sha256::digest(&bytes));
    let manifest = serde_json::to_vec_pretty(&*into).unwrap();
    std::fs::write(dir(into).join("manifest.json"), &manifest).unwrap();
    let mut sums = String::new();
    for file in into.files() {
        sums.push_str(&format!("{}  {}\n", file.sha256, file.name));
    }
    let own = hex::encode(Sha256::digest(&manifest));
    sums.push_str(&format!("{own}  manifest.json\n"));
    std::fs::write(dir(into).join("SHA256SUMS"), sums).unwrap();
}

/// An archive that was replaced by a valid one with other contents restores without any error;
/// the comparison with the attestation names what differs.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_but_valid_archive_is_found_by_its_differences() {
    let live = Live::start(17).await;
    live.psql("postgres", "create database shop");
    live.psql("shop", SHOP);
    let mut manifest = back_up(&live, BackupOptions::default()).await;
    live.psql(
        "shop",
        "delete from orders where id > 990; update customers set id = -7 where id = 7;
         select nextval('numbers'); create index added on customers (id)",
    );
    let other = back_up(&live, BackupOptions::default()).await;
    put_archive(&live, &other, &mut manifest, "shop");
    let cancel = CancellationToken::new();
    let report = verify(
        &live.home.repo,
        &manifest.id,
        VerifyLevel::Hash,
        &live.home.events,
        &cancel,
    );
    assert!(report.await.unwrap().ok, "the hashes were made to agree");

    let proof = proven(&live, &manifest, &ProveOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(proof.result, ProofResult::Failed);
    let shop = proof.databases.iter().find(|d| d.name == "shop").unwrap();
    let found: Vec<_> = shop
        .comparison
        .differences
        .iter()
        .map(|d| (d.object.as_str(), d.expected.as_str(), d.found.as_str()))
        .collect();
    let of = |object: &str| found.iter().find(|(found, ..)| *found == object);
    assert_eq!(
        of("table public.orders"),
        Some(&("table public.orders", "1000 rows", "990 rows"))
    );
    assert!(of("table public.customers").is_some_and(|d| d.2.starts_with("as many rows")));
    assert_eq!(
        of("sequence public.numbers"),
        Some(&("sequence public.numbers", "value 41", "value 42"))
    );
    assert!(of("the catalogue of the archive").is_some(), "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
    let (equal, total) = proof.tables();
    assert_eq!((equal, total), (0, 2));
    // A failed proof is recorded too.
    let catalog = live.home.repo.catalog().await.unwrap();
    let listed = catalog.proof(&manifest.id).unwrap();
    assert_eq!(listed.result, ProofResult::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_the_user_pass_fail_and_cannot_write() {
    let live = Live::start(15).await;
    live.psql("postgres", "create database shop");
    live.psql("shop", SHOP);
    let manifest = back_up(&live, BackupOptions::default()).await;
    let checks = [
        ("select count(*) = 1000 from orders;", None),
        ("select count(*) from orders", Some("1000")),
        ("select true from orders limit 2", Some("2 rows")),
        ("select true, true", Some("true, true")),
        ("select none", Some("none")),
        ("select null::boolean", Some("null")),
        (
            "select true) x; drop table orders; select (true",
            Some("ERROR"),
        ),
        (
            "with gone as (delete from orders returning 1) select true",
            Some("WITH clause"),
        ),
        ("select nextval('numbers') > 0", Some("read-only")),
        ("select '\\! touch /tmp/x' like '_!%:x'", Some("false")),
        ("select count(*) = 1000 from orders", None),
    ];
    let options = ProveOptions {
        checks: checks.iter().map(|(sql, _)| (*sql).to_owned()).collect(),
        check_database: Some("shop".to_owned()),
        ..ProveOptions::default()
    };
    let proof = proven(&live, &manifest, &options)
        .await
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(proof.result, ProofResult::Failed);
    assert!(proof.databases.iter().all(|database| database.passed()));
    for (check, (sql, problem)) in proof.checks.iter().zip(checks) {
        assert_eq!(check.sql, sql);
        assert_eq!(check.passed, problem.is_none(), "{check:?}");
        if let Some(problem) = problem {
            assert!(
                check.problem.as_ref().unwrap().contains(problem),
                "{check:?}"
            );
        }
    }
    let wrong = ProveOptions {
        check_database: Some("none".to_owned()),
        ..options
    };
    let error = proven(&live, &manifest, &wrong).await.unwrap_err();
    assert!(matches!(error, BackupError::RestoreRefused { .. }));
}

/// What the throw-away server lacks says nothing of the backup, and nothing is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_place_lacks_is_no_failed_proof() {
    let live = Live::start(17).await;
    live.psql("postgres", "create database shop");
    live.psql("shop", SHOP);
    // An extension that is made by hand here and is nowhere else.
    let made = "echo \"default_version = '1'\" > $(pg_config --sharedir)/extension/own.control && \
                echo 'create function own() returns int language sql as $$ select 1 $$;' \
                > $(pg_config --sharedir)/extension/own--1.sql";
    let share = live.container.exec(&["sh", "-c", made]);
    if share.is_err() {
        let dir = "/usr/share/postgresql/17/extension";
        let made = format!(
            "echo \"default_version = '1'\" > {dir}/own.control && \
             echo 'create function own() returns int language sql as $$ select 1 $$;' \
             > {dir}/own--1.sql"
        );
        docker(&["exec", "-u", "root", live.container.id(), "sh", "-c", &made]).unwrap();
    }
    live.psql("shop", "create extension own");
    let manifest = back_up(&live, BackupOptions::default()).await;
    let error = proven(&live, &manifest, &ProveOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "SANDBOX_UNAVAILABLE", "{}", words(&error));
    assert!(words(&error).contains("\"own"), "{}", words(&error));
    assert!(proof_files(&live, &manifest).is_empty());
}
