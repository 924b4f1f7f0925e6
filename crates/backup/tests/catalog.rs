//! The catalogue and `verify` over what is stored: flipped bits, swapped files, newer formats.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::{Arc, Mutex};

use backup::{BackupError, BackupOptions, DumpFormat, Manifest, VerifyLevel, VerifyReport};
use support::fake::Script;
use support::hooked::{Hook, Hooked};
use support::{FakeExecutor, Home};
use tokio_util::sync::CancellationToken;

async fn verify(home: &Home, manifest: &Manifest) -> VerifyReport {
    backup::verify(
        &home.repo,
        &manifest.id,
        VerifyLevel::Hash,
        &home.events,
        &CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// Two backups of small databases.
async fn two_backups(format: DumpFormat) -> (Home, Manifest, Manifest) {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        databases: vec![
            ("shop".to_owned(), vec![b'x'; 300]),
            ("b".to_owned(), vec![1; 20]),
        ],
        ..Script::default()
    });
    let options = BackupOptions {
        format,
        ..BackupOptions::default()
    };
    let older = home
        .run_with(&home.repo, &fake, &options)
        .await
        .unwrap()
        .manifest;
    fake.change(|script| script.databases[0].1 = vec![b'y'; 300]);
    let newer = home
        .run_with(&home.repo, &fake, &options)
        .await
        .unwrap()
        .manifest;
    (home, older, newer)
}

/// Every byte of every stored file, one bit each, is found and named; the other backup is not
/// affected.
#[tokio::test(flavor = "multi_thread")]
async fn bar_44_any_flipped_bit_is_found_and_named() {
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        let (home, older, newer) = two_backups(format).await;
        let dir = home.backups().join(newer.id.as_str());
        let files: Vec<_> = home
            .files()
            .into_iter()
            .filter(|path| path.contains(newer.id.as_str()))
            .collect();
        assert!(files.len() >= 5, "{files:?}");
        let mut flips = 0;
        for path in files {
            let name = path
                .strip_prefix(&format!("{}/", dir.display()))
                .unwrap()
                .to_owned();
            let good = std::fs::read(&path).unwrap();
            let stride = (good.len() / 120).max(1);
            for at in (0..good.len()).step_by(stride) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                std::fs::write(&path, &bad).unwrap();
                let report = verify(&home, &newer).await;
                assert!(!report.ok, "{name}: byte {at}");
                let named = report.problems.iter().any(|problem| {
                    problem.object.contains(&name) || problem.problem.contains(&name)
                });
                assert!(named, "{name}: byte {at}: {:?}", report.problems);
                flips += 1;
            }
            // The list of backups sees what manifest and list of hashes can tell.
            if name == "manifest.json" || name == "SHA256SUMS" {
                let mut bad = good.clone();
                bad[good.len() / 2] ^= 1;
                std::fs::write(&path, &bad).unwrap();
                let catalog = home.repo.catalog().await.unwrap();
                assert_eq!(catalog.backups.len(), 1, "{name}");
                assert_eq!(catalog.damaged[0].id, newer.id);
                assert!(matches!(
                    home.repo.find(newer.id.as_str()).await.unwrap_err(),
                    BackupError::Manifest { .. }
                ));
                assert_eq!(home.repo.find("latest").await.unwrap().id, older.id);
            }
            std::fs::write(&path, &good).unwrap();
        }
        assert!(flips > 300, "{flips}");
        assert!(verify(&home, &older).await.ok);
        assert!(verify(&home, &newer).await.ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_44_cut_missing_and_foreign_files_are_found() {
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    let dir = home.backups().join(newer.id.as_str());
    let name = &newer.databases[0].archive.files[0].name;
    let good = std::fs::read(dir.join(name)).unwrap();
    for cut in [0, 1, good.len() - 1] {
        std::fs::write(dir.join(name), &good[..cut]).unwrap();
        let report = verify(&home, &newer).await;
        assert!(
            report.problems.iter().any(|p| p.object.contains(name)),
            "{report:?}"
        );
        let catalog = home.repo.catalog().await.unwrap();
        assert!(catalog.damaged[0].problem.contains("bytes instead of"));
        assert_eq!(catalog.backups, std::slice::from_ref(&older));
    }
    std::fs::remove_file(dir.join(name)).unwrap();
    assert!(!verify(&home, &newer).await.ok);
    let catalog = home.repo.catalog().await.unwrap();
    assert!(catalog.damaged[0].problem.contains("missing"));
    std::os::unix::fs::symlink("/etc/passwd", dir.join(name)).unwrap();
    let report = verify(&home, &newer).await;
    assert!(
        report.problems.iter().any(|p| p.problem.contains("link")),
        "{report:?}"
    );
    let catalog = home.repo.catalog().await.unwrap();
    assert!(
        catalog.damaged[0].problem.contains("link"),
        "{:?}",
        catalog.damaged
    );
    std::fs::remove_file(dir.join(name)).unwrap();
    std::fs::write(dir.join(name), &good).unwrap();
    assert!(verify(&home, &newer).await.ok);
    std::fs::write(dir.join("extra.dump"), b"1").unwrap();
    let report = verify(&home, &newer).await;
    assert_eq!(report.problems[0].object, "extra.dump");
}

/// Files of two backups swapped, one by one and all together.
#[tokio::test(flavor = "multi_thread")]
async fn bar_45_swapped_files_and_manifests_are_found() {
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    let (a, b) = (
        home.backups().join(older.id.as_str()),
        home.backups().join(newer.id.as_str()),
    );
    let swap = |name: &str| {
        let (x, y) = (a.join(name), b.join(name));
        let keep = std::fs::read(&x).unwrap();
        std::fs::copy(&y, &x).unwrap();
        std::fs::write(&y, keep).unwrap();
    };
    let archive = older.databases[0].archive.files[0].name.clone();
    assert_eq!(archive, newer.databases[0].archive.files[0].name);
    for names in [
        vec![archive.as_str()],
        vec!["manifest.json"],
        vec!["SHA256SUMS"],
        vec!["manifest.json", "SHA256SUMS"],
        vec!["manifest.json", "SHA256SUMS", archive.as_str()],
    ] {
        names.iter().for_each(|name| swap(name));
        for manifest in [&older, &newer] {
            assert!(!verify(&home, manifest).await.ok, "{names:?}");
        }
        // Swapped archives have the same size here: only reading them tells.
        if names.contains(&"manifest.json") || names.contains(&"SHA256SUMS") {
            let catalog = home.repo.catalog().await.unwrap();
            assert!(catalog.backups.is_empty(), "{names:?}");
            assert_eq!(catalog.damaged.len(), 2, "{names:?}");
        }
        names.iter().for_each(|name| swap(name));
    }
    assert_eq!(home.repo.catalog().await.unwrap().backups.len(), 2);
    // The whole directory under another name.
    let other = format!("{}-zzzzzz", &newer.id.as_str()[..16]);
    std::fs::rename(&b, home.backups().join(&other)).unwrap();
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups.len(), 1);
    assert!(
        catalog.damaged[0].problem.contains("belongs to backup"),
        "{:?}",
        catalog.damaged
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_named_and_hides_nothing_else() {
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    let path = home.backups().join(newer.id.as_str()).join("manifest.json");
    std::fs::write(
        &path,
        r#"{"format_version": 3, "everything": "else differs"}"#,
    )
    .unwrap();
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups, [older]);
    let problem = &catalog.damaged[0].problem;
    assert!(
        problem.contains("format 3") && problem.contains("newer pgstow"),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_manifests_lead_nowhere() {
    let (home, _, newer) = two_backups(DumpFormat::Custom).await;
    let path = home.backups().join(newer.id.as_str()).join("manifest.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let name = &newer.databases[0].archive.files[0].name;
    for evil in ["../../etc/passwd", "/etc/passwd", ".hidden", "a//b", ""] {
        std::fs::write(&path, good.replace(name.as_str(), evil)).unwrap();
        assert!(!verify(&home, &newer).await.ok, "{evil}");
        assert_eq!(
            home.repo.catalog().await.unwrap().damaged.len(),
            1,
            "{evil}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_found_by_id_prefix_and_latest() {
    let home = Home::new();
    let none = home.repo.find("latest").await.unwrap_err();
    assert_eq!(none.code(), backup::codes::BACKUP_NOT_FOUND);
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    assert_eq!(home.repo.find("latest").await.unwrap(), newer);
    assert_eq!(home.repo.find(older.id.as_str()).await.unwrap(), older);
    let ambiguous = home.repo.find("20260101T").await.unwrap_err();
    assert!(matches!(ambiguous, BackupError::Ambiguous { ref ids, .. } if ids.len() == 2));
    for wrong in ["2027", "", "latest "] {
        let error = home.repo.find(wrong).await.unwrap_err();
        assert_eq!(error.code(), backup::codes::BACKUP_NOT_FOUND, "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safety_backup_is_never_latest() {
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    let options = BackupOptions {
        tags: [("safety".to_owned(), older.id.to_string())].into(),
        ..BackupOptions::default()
    };
    let fake = FakeExecutor::new(Script::default());
    let safety = home.run_with(&home.repo, &fake, &options).await.unwrap();
    assert!(safety.manifest.is_safety());
    assert_eq!(home.repo.find("latest").await.unwrap(), newer);
    // Also not when nothing else is whole.
    for manifest in [&older, &newer] {
        let dir = home.backups().join(manifest.id.as_str());
        std::fs::remove_file(dir.join(&manifest.databases[0].archive.files[0].name)).unwrap();
    }
    let error = home.repo.find("latest").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BackupError::NotFound { .. }), "{text}");
    assert!(
        text.contains("1 safety backups") && text.contains(newer.id.as_str()),
        "{text}"
    );
    let id = safety.manifest.id.as_str();
    assert_eq!(home.repo.find(id).await.unwrap(), safety.manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_43_order_is_by_sequence_when_the_clock_goes_back() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    home.clock.set("2026-06-01T00:00:00Z");
    let first = home.run(&fake).await.unwrap().manifest;
    home.clock.set("2026-01-01T00:00:00Z");
    let second = home.run(&fake).await.unwrap().manifest;
    assert!(second.id < first.id);
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups, [second.clone(), first]);
    assert_eq!(home.repo.find("latest").await.unwrap(), second);
    // Also when the state directory is lost.
    std::fs::remove_dir_all(home.dir.path().join("state")).unwrap();
    let third = home.run(&fake).await.unwrap().manifest;
    assert_eq!(third.sequence, 3);
    assert_eq!(home.repo.find("latest").await.unwrap(), third);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_no_record_knows_are_shown_apart() {
    let (home, _, newer) = two_backups(DumpFormat::Custom).await;
    std::fs::remove_file(home.backups().join(newer.id.as_str()).join("manifest.json")).unwrap();
    std::fs::remove_dir_all(home.dir.path().join("state")).unwrap();
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups.len(), 1);
    assert_eq!(catalog.runs.len(), 1);
    assert_eq!(catalog.runs[0].id, newer.id);
    assert_eq!(
        catalog.runs[0].started_at.as_second() / 60,
        newer.started_at.as_second() / 60
    );
}

/// Keeps which files were opened.
#[derive(Debug, Clone, Default)]
struct Opened(Arc<Mutex<Vec<String>>>);

impl Hook for Opened {
    fn opened(&self, file: &str) {
        self.0.lock().unwrap().push(file.to_owned());
    }
}

/// A manifest of many tables is megabytes of text, and a store may be far away.
#[tokio::test(flavor = "multi_thread")]
async fn one_backup_is_found_without_reading_the_others() {
    let (home, older, newer) = two_backups(DumpFormat::Custom).await;
    let opened = Opened::default();
    let repo = home.with_store(Arc::new(Hooked {
        inner: Arc::clone(&home.repo.store),
        hook: opened.clone(),
    }));
    // The lists of hashes are opened with what is read to its end; of the others the beginning is.
    let whole = || {
        let mut files = opened.0.lock().unwrap();
        files.retain(|file| file.ends_with("SHA256SUMS"));
        std::mem::take(&mut *files)
    };
    let sums = |manifest: &Manifest| format!("{}/SHA256SUMS", manifest.id);
    assert_eq!(repo.find("latest").await.unwrap(), newer);
    assert_eq!(whole(), [sums(&newer)]);
    assert_eq!(repo.find(older.id.as_str()).await.unwrap(), older);
    assert_eq!(whole(), [sums(&older)]);
    let fake = FakeExecutor::new(Script::default());
    let options = BackupOptions::default();
    let newest = home.run_with(&repo, &fake, &options).await.unwrap();
    assert_eq!(newest.manifest.sequence, 3);
    assert_eq!(whole(), [sums(&newer)]);
    // A damaged one is passed over.
    let dir = home.backups().join(newest.manifest.id.as_str());
    let path = dir.join("manifest.json");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(repo.find("latest").await.unwrap(), newer);
}

/// The order of fields in a manifest is nobody's promise.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_is_found_wherever_it_stands() {
    let (home, mut older, newer) = two_backups(DumpFormat::Custom).await;
    older.sequence = 7;
    older.recipe = vec!["#".repeat(20_000)];
    // By name: the recipe before the sequence.
    let text = serde_json::to_value(&older).unwrap();
    let fields: std::collections::BTreeMap<_, _> = text.as_object().unwrap().iter().collect();
    home.store_manifest(&older, &fields);
    let path = home.backups().join(older.id.as_str()).join("manifest.json");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.find("\"sequence\"").unwrap() > 20_000);
    assert_eq!(home.repo.find("latest").await.unwrap(), older);
    assert_eq!(home.repo.catalog().await.unwrap().backups, [older, newer]);
}

/// Listing hundreds of backups reads two small files of each.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_backups_are_listed_quickly() {
    let (home, older, _) = two_backups(DumpFormat::Custom).await;
    let from = home.backups().join(older.id.as_str());
    let good = std::fs::read_to_string(from.join("manifest.json")).unwrap();
    let sums = std::fs::read_to_string(from.join("SHA256SUMS")).unwrap();
    let hash_of = |text: &str| {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(text.as_bytes()))
    };
    for number in 0..400 {
        let id = format!("20250101T{number:06}Z-aaaaaa");
        let to = home.backups().join(&id);
        support::copy_tree(&from, &to);
        let text = good.replace(older.id.as_str(), &id);
        let listed = sums.replace(&hash_of(&good), &hash_of(&text));
        std::fs::write(to.join("manifest.json"), text).unwrap();
        std::fs::write(to.join("SHA256SUMS"), listed).unwrap();
    }
    let begun = std::time::Instant::now();
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups.len(), 402, "{:?}", catalog.damaged.first());
    assert!(begun.elapsed().as_secs_f64() < 3.0, "{:?}", begun.elapsed());
}
