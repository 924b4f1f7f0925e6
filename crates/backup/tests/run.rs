//! Runs against a scripted executor: what is published, and what never is.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use backup::{
    BackupError, BackupEvent, BackupId, BackupOptions, Clock, DumpFormat, RunState, VerifyLevel,
};
use dbexec::{PgExecutor, PgProgram};
use storage::faulty::{Fault, FaultKind, FaultyStore, StepFaults};
use storage::{LocalStore, Step};
use support::fake::{End, Script};
use support::{FakeExecutor, Home, formats};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_publishes_a_backup_that_verifies_in_every_format() {
    for options in formats() {
        let home = Home::new();
        let fake = FakeExecutor::new(Script::default());
        let report = home.run_with(&home.repo, &fake, &options).await.unwrap();
        let catalog = home.repo.catalog().await.unwrap();
        assert_eq!(catalog.backups, std::slice::from_ref(&report.manifest));
        assert!(catalog.runs.is_empty() && catalog.damaged.is_empty());
        assert_eq!(report.manifest.databases[0].archive.format, options.format);
        assert_eq!(report.manifest.databases[0].name, "shop");
        assert!(
            report.manifest.recipe.len() > 4,
            "{:?}",
            report.manifest.recipe
        );
        assert!(fake.scratch_is_empty());
        for level in [VerifyLevel::Hash, VerifyLevel::Read] {
            let verified = backup::verify(
                &home.repo,
                &report.manifest.id,
                level,
                &home.events,
                &CancellationToken::new(),
            )
            .await
            .unwrap();
            assert!(verified.ok, "{:?}", verified.problems);
            let stored = home.files().len() as u64;
            assert_eq!(verified.files, stored, "{:?}", options.format);
        }
        // sha256sum itself agrees.
        let dir = home.backups().join(report.manifest.id.as_str());
        let sums = std::fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count() as u64, home.files().len() as u64 - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_40_no_password_in_anything_that_is_stored() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    home.run(&fake).await.unwrap();
    let mut texts = vec![home.events.text()];
    for path in home.files() {
        texts.push(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
    }
    for (_, args, _) in fake.started.lock().unwrap().iter() {
        texts.push(args.join(" "));
    }
    assert!(texts.iter().all(|text| !text.contains("canary-password")));
}

/// Every way in which pg_dump can fail: no backup, no file, a record, earlier backups intact.
#[tokio::test(flavor = "multi_thread")]
async fn bar_07_10_13_14_failed_dumps_are_never_backups() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let earlier = home.run(&fake).await.unwrap();
    let files = home.files();
    let ends = [End::Code(1), End::Signal(9), End::ExitUnknown, End::Stalled];
    let mut failed = 0;
    for end in ends {
        for stop in [Some(0), Some(3), Some(5), Some(50_000), None] {
            fake.change(|script| {
                script.dump_ends = end;
                script.dump_stops_at = stop;
                script.stderr = vec!["server closed the connection unexpectedly".to_owned()];
            });
            let error = home.run(&fake).await.unwrap_err();
            failed += 1;
            if end == End::Signal(9) && stop.is_none() {
                let text = format!("{error:?}");
                assert!(text.contains("Signal(9)"), "{text}");
            }
            assert_eq!(home.files(), files, "{end:?} after {stop:?}");
        }
    }
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups, [earlier.manifest]);
    assert_eq!(catalog.runs.len(), failed);
    assert!(catalog.runs.iter().all(|run| run.state == RunState::Failed));
    let text = catalog.runs[0].error.clone().unwrap();
    assert!(text.contains("dumping database \"shop\""), "{text}");
}

/// A clean end with exit status 0 in the middle of an archive: found by reading it.
#[tokio::test(flavor = "multi_thread")]
async fn bar_13_a_cut_with_a_clean_end_is_refused() {
    let whole = support::fake::custom_archive(&[b'x'; 100_000]).len();
    for stop in [0, 1, 4, 5, 6, 50_000, whole - 1] {
        let home = Home::new();
        let fake = FakeExecutor::new(Script {
            dump_stops_at: Some(stop),
            ..Script::default()
        });
        let options = BackupOptions {
            verify: VerifyLevel::Read,
            ..BackupOptions::default()
        };
        let error = home
            .run_with(&home.repo, &fake, &options)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                BackupError::VerifyFailed { .. } | BackupError::ArchiveIncomplete { .. }
            ),
            "cut at {stop}: {error}"
        );
        assert!(home.files().is_empty(), "cut at {stop}");
    }
    // A script shows its cut without being read back.
    let home = Home::new();
    for stop in [0, 1, 20, 60, 100] {
        let fake = FakeExecutor::new(Script {
            dump_stops_at: Some(stop),
            ..Script::default()
        });
        let options = BackupOptions {
            format: DumpFormat::Plain,
            verify: VerifyLevel::None,
            ..BackupOptions::default()
        };
        let error = home
            .run_with(&home.repo, &fake, &options)
            .await
            .unwrap_err();
        assert!(
            matches!(error, BackupError::ArchiveIncomplete { .. }),
            "{stop}: {error}"
        );
    }
    assert!(home.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_16_text_instead_of_an_archive_is_refused() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        first_bytes: Some(b"OCI runtime exec failed: pg_dump not found".to_vec()),
        ..Script::default()
    });
    let options = BackupOptions {
        verify: VerifyLevel::None,
        ..BackupOptions::default()
    };
    let error = home
        .run_with(&home.repo, &fake, &options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("OCI runtime"), "{error}");
    assert!(home.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_18_another_server_is_refused() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    fake.change(|script| script.system_identifier = "7000000000000000002".to_owned());
    let error = home.run(&fake).await.unwrap_err();
    assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
    let dumps = |fake: &FakeExecutor| {
        let started = fake.started.lock().unwrap();
        started
            .iter()
            .filter(|(p, ..)| *p == PgProgram::PgDump)
            .count()
    };
    assert_eq!(dumps(&fake), 0, "refused before anything is dumped");

    // It takes the other's place during the dump.
    let fake = FakeExecutor::new(Script {
        identifier_after_dump: Some("7000000000000000002".to_owned()),
        ..Script::default()
    });
    let error = home.run(&fake).await.unwrap_err();
    assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
    assert_eq!(dumps(&fake), 1);
    assert!(home.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_26_missing_rights_are_refused_before_the_dump() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        missing: vec![(
            "table s.t".to_owned(),
            "GRANT SELECT ON TABLE s.t TO backup".to_owned(),
        )],
        ..Script::default()
    });
    let error = home.run(&fake).await.unwrap_err();
    let BackupError::RightsMissing { grants, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(grants, &["GRANT SELECT ON TABLE s.t TO backup"]);
    let started = fake.started.lock().unwrap();
    assert!(
        started
            .iter()
            .all(|(program, ..)| *program == PgProgram::Psql)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_36_names_are_data() {
    let names = [
        "-Fc",
        "host=evil port=1",
        "a'b\"c; $(x)",
        "line\nbreak",
        "../../etc",
        "postgres://h/d",
        "ä".repeat(31).as_str(),
        " ",
        "ends with slash/",
        "`id`",
    ]
    .map(str::to_owned);
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        databases: names
            .iter()
            .map(|n| (n.clone(), n.clone().into_bytes()))
            .collect(),
        ..Script::default()
    });
    let report = home.run(&fake).await.unwrap();
    let stored: Vec<_> = report
        .manifest
        .databases
        .iter()
        .map(|d| d.name.clone())
        .collect();
    assert_eq!(stored, names);
    for database in &report.manifest.databases {
        let file = &database.archive.files[0].name;
        storage::check_name(file).unwrap();
        let bytes = std::fs::read(home.backups().join(report.manifest.id.as_str()).join(file));
        assert_eq!(
            bytes.unwrap(),
            support::fake::custom_archive(database.name.as_bytes())
        );
    }
    // No name ever became an argument.
    for (program, args, _) in fake.started.lock().unwrap().iter() {
        if *program == PgProgram::PgDump {
            assert!(args.iter().all(|arg| arg.starts_with("--")), "{args:?}");
        }
    }
}

/// The disk is full (or broken) at byte N of everything that a run writes.
#[tokio::test(flavor = "multi_thread")]
async fn bar_04_06_store_faults_at_many_bytes() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let earlier = home.run(&fake).await.unwrap();
    let files = home.files();
    let probe = FaultyStore::new(
        home.repo.store.clone(),
        Fault::AtByte(u64::MAX, FaultKind::Io),
    );
    let repo = home.with_store(Arc::new(probe.clone()));
    let second = home
        .run_with(&repo, &fake, &BackupOptions::default())
        .await
        .unwrap();
    let total = probe.bytes();
    remove(&home, &second.manifest.id).await;
    assert_eq!(home.files(), files);
    // All over the run, and closer where the list of hashes and the manifest are written. The
    // text of the manifest holds durations: its length differs by some bytes from run to run.
    let total = total - 100;
    let mut points: Vec<u64> = (0..total).step_by((total as usize / 40).max(1)).collect();
    points.extend((total.saturating_sub(4000)..total).step_by(100));
    points.extend([1, total - 2, total - 1]);
    for kind in [FaultKind::Full, FaultKind::Io, FaultKind::Short] {
        for at in points
            .iter()
            .step_by(if kind == FaultKind::Full { 1 } else { 4 })
        {
            let store = FaultyStore::new(home.repo.store.clone(), Fault::AtByte(*at, kind));
            let repo = home.with_store(Arc::new(store));
            let error = home
                .run_with(&repo, &fake, &BackupOptions::default())
                .await
                .expect_err("a run on a broken disk");
            let code = error.code();
            let wanted = if kind == FaultKind::Full {
                storage::codes::STORE_FULL
            } else {
                storage::codes::STORE_UNREACHABLE
            };
            assert_eq!(code, wanted, "byte {at} of {total}, {kind:?}: {error}");
            assert_eq!(home.files(), files, "byte {at}, {kind:?}");
        }
    }
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.backups, [earlier.manifest]);
}

async fn remove(home: &Home, id: &BackupId) {
    for entry in home.repo.store.list(&format!("{id}/")).await.unwrap() {
        home.repo.store.delete(&entry.name).await.unwrap();
    }
    home.repo
        .store
        .remove_leftovers(&format!("{id}/"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_06_failing_fsync_and_rename_of_any_file() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    // Globals, archive, list of hashes, manifest.
    for nth in 0..4 {
        for fault in [Fault::Sync(nth), Fault::Rename(nth)] {
            let store = FaultyStore::new(home.repo.store.clone(), fault);
            let repo = home.with_store(Arc::new(store));
            let error = home.run_with(&repo, &fake, &BackupOptions::default()).await;
            assert!(error.is_err(), "{fault:?}");
            assert!(home.files().is_empty(), "{fault:?}: {:?}", home.files());
        }
    }
}

/// Killed before any step on the file system: what is listed afterwards is whole, and the next
/// run removes the rest.
#[tokio::test(flavor = "multi_thread")]
async fn bar_01_02_03_killed_between_any_two_steps() {
    let record = StepFaults::record();
    {
        let home = Home::new();
        let store = LocalStore::open_with_hook(home.backups(), record.clone()).unwrap();
        let repo = home.with_store(Arc::new(store));
        let fake = FakeExecutor::new(Script::default());
        home.run_with(&repo, &fake, &BackupOptions::default())
            .await
            .unwrap();
    }
    let steps = record.steps();
    bar_03_the_manifest_comes_after_everything(&steps);
    for at in 0..=steps.len() {
        let home = Home::new();
        let fake = FakeExecutor::new(Script::default());
        let earlier = home.run(&fake).await.unwrap();
        let store = LocalStore::open_with_hook(home.backups(), StepFaults::crash_at(at)).unwrap();
        let repo = home.with_store(Arc::new(store));
        let killed = home.run_with(&repo, &fake, &BackupOptions::default()).await;
        // A process that was killed has written no end into its record.
        if killed.is_err() {
            for entry in std::fs::read_dir(home.dir.path().join("state/runs")).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, text.replace("\"failed\"", "\"running\"")).unwrap();
            }
        }
        let catalog = home.repo.catalog().await.unwrap();
        assert!(
            catalog.damaged.is_empty(),
            "step {at}: {:?}",
            catalog.damaged
        );
        assert!(catalog.backups.contains(&earlier.manifest), "step {at}");
        for manifest in &catalog.backups {
            let report = verify_hash(&home, &manifest.id).await;
            assert!(report.ok, "step {at}: {:?}", report.problems);
        }
        let next = home.run(&fake).await.unwrap();
        let after = home.repo.catalog().await.unwrap();
        assert_eq!(after.backups[0].id, next.manifest.id, "step {at}");
        let listed: Vec<String> = after.backups.iter().map(|m| m.id.to_string()).collect();
        for path in home.files() {
            assert!(
                listed.iter().any(|id| path.contains(id.as_str())),
                "step {at}: {path} is left"
            );
        }
    }
}

async fn verify_hash(home: &Home, id: &BackupId) -> backup::VerifyReport {
    backup::verify(
        &home.repo,
        id,
        VerifyLevel::Hash,
        &home.events,
        &CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// In the recorded order every other file was synced, named and its directory synced before the
/// manifest got its name: no power cut can leave a manifest without its files.
fn bar_03_the_manifest_comes_after_everything(steps: &[Step]) {
    let named = steps
        .iter()
        .position(|s| matches!(s, Step::Rename { name } if name.ends_with("/manifest.json")))
        .unwrap();
    let mut durable = Vec::new();
    let mut created = Vec::new();
    for step in &steps[..named] {
        match step {
            Step::Create { name } => created.push(name.clone()),
            Step::SyncDir { name } => {
                let synced = steps[..named]
                    .iter()
                    .any(|s| matches!(s, Step::SyncFile { name: other } if other == name));
                assert!(synced, "{name} was not synced");
                durable.push(name.clone());
            }
            _ => {}
        }
    }
    created.retain(|name| !name.ends_with("/manifest.json"));
    assert_eq!(created, durable);
    assert_eq!(created.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_15_what_a_killed_run_left_running_is_ended() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    home.run(&fake).await.unwrap();
    let record = std::fs::read_dir(home.dir.path().join("state/runs"))
        .unwrap()
        .next();
    let path = record.unwrap().unwrap().path();
    let text = std::fs::read_to_string(&path).unwrap();
    let id = BackupId::new(home.clock.now());
    let old = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let killed = text
        .replace("\"done\"", "\"running\"")
        .replace("pgstow-test", "pgstow-killed")
        .replace(&old, id.as_str());
    std::fs::write(path.with_file_name(format!("{id}.json")), killed).unwrap();
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.runs.len(), 1);
    assert_eq!(catalog.runs[0].state, RunState::Failed);
    home.run(&fake).await.unwrap();
    assert_eq!(*fake.reaped.lock().unwrap(), ["pgstow-killed"]);
    let events = home.events.0.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, BackupEvent::CleanedUp { .. }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_42_the_second_run_of_a_target_leaves_with_the_name_of_the_first() {
    let home = Home::new();
    let slow = FakeExecutor::new(Script {
        pause: Duration::from_secs(3),
        ..Script::default()
    });
    let quick = FakeExecutor::new(Script::default());
    let other = FakeExecutor::new(Script {
        system_identifier: "7000000000000000009".to_owned(),
        ..Script::default()
    });
    let (first, (second, third, live)) = tokio::join!(home.run(&slow), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = home.run(&quick).await;
        let third = home.run(&other).await;
        let live = home.repo.catalog().await.unwrap();
        (second, third, live)
    });
    let first = first.unwrap();
    let error = second.unwrap_err();
    assert_eq!(error.code(), backup::codes::TARGET_LOCKED);
    let text = error.to_string();
    assert!(
        text.contains(first.manifest.id.as_str()) && text.contains("since"),
        "{text}"
    );
    third.expect("another target is not locked");
    assert_eq!(live.runs.len(), 1);
    assert_eq!(live.runs[0].state, RunState::Running);
    let sequences: Vec<u64> = home
        .repo
        .catalog()
        .await
        .unwrap()
        .backups
        .iter()
        .map(|m| m.sequence)
        .collect();
    assert_eq!(sequences, [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_08_an_interrupted_run_leaves_nothing() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        pause: Duration::from_secs(30),
        ..Script::default()
    });
    let executor: Arc<dyn PgExecutor> = fake.clone();
    let cancel = CancellationToken::new();
    let id = BackupId::new(home.clock.now());
    let begun = std::time::Instant::now();
    let options = BackupOptions::default();
    let (result, ()) = tokio::join!(
        backup::back_up(&home.repo, &executor, id, &options, &home.events, &cancel),
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancel.cancel();
        }
    );
    assert!(matches!(
        result.unwrap_err(),
        BackupError::Interrupted { .. }
    ));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(home.files().is_empty());
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(catalog.runs[0].state, RunState::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_39_an_unsafe_state_directory_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let state = home.dir.path().join("state");
    let elsewhere = home.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &state).unwrap();
    assert!(matches!(
        home.run(&fake).await.unwrap_err(),
        BackupError::Unsafe { .. }
    ));
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(matches!(
        home.run(&fake).await.unwrap_err(),
        BackupError::Unsafe { .. }
    ));
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    home.run(&fake).await.unwrap();
    assert!(std::fs::read_dir(&elsewhere).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_pg_dump_are_in_the_manifest() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        stderr: vec!["pg_dump: warning: there are circular foreign-key constraints".to_owned()],
        ..Script::default()
    });
    let report = home.run(&fake).await.unwrap();
    let archive = &report.manifest.databases[0].archive;
    assert_eq!(archive.warnings.len(), 1);
    assert!(home.events.text().contains("circular"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_database_is_no_failure_of_the_target() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let options = BackupOptions {
        databases: vec!["shopp".to_owned()],
        ..BackupOptions::default()
    };
    let error = home
        .run_with(&home.repo, &fake, &options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("\"shop\""), "{error}");
    assert!(home.repo.catalog().await.unwrap().runs.is_empty());
}

/// A tmpfs of a test, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, size: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={size},mode=700");
        let path = at.to_str().unwrap();
        testkit::process::run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path]).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = testkit::process::run("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

/// A file system that is really full, by archives of many sizes.
#[tokio::test(flavor = "multi_thread")]
async fn bar_04_a_full_file_system() {
    let home = Home::new();
    let small = home.dir.path().join("small");
    let _disk = SmallDisk::mount(&small, "4m");
    let repo = home.with_store(Arc::new(LocalStore::open(small.join("backups")).unwrap()));
    let fake = FakeExecutor::new(Script::default());
    let options = BackupOptions::default();
    let earlier = home.run_with(&repo, &fake, &options).await.unwrap();
    let mut full = 0;
    for kilobytes in [3000, 3900, 4000, 4040, 4060, 4080, 5000, 8000, 20_000] {
        fake.change(|script| script.databases[0].1 = vec![b'x'; kilobytes << 10]);
        match home.run_with(&repo, &fake, &options).await {
            Ok(report) => {
                assert!(verify_in(&repo, &report.manifest.id).await.ok);
                for entry in repo
                    .store
                    .list(&format!("{}/", report.manifest.id))
                    .await
                    .unwrap()
                {
                    repo.store.delete(&entry.name).await.unwrap();
                }
            }
            Err(error) => {
                full += 1;
                assert_eq!(
                    error.code(),
                    storage::codes::STORE_FULL,
                    "{kilobytes}: {error}"
                );
            }
        }
        let catalog = repo.catalog().await.unwrap();
        assert_eq!(
            catalog.backups,
            std::slice::from_ref(&earlier.manifest),
            "{kilobytes}"
        );
        assert!(
            verify_in(&repo, &earlier.manifest.id).await.ok,
            "{kilobytes}"
        );
    }
    assert!(full >= 4, "{full}");
    assert!(
        home.events.text().contains("may not fit"),
        "the preflight warned"
    );
}

async fn verify_in(repo: &backup::Repository, id: &BackupId) -> backup::VerifyReport {
    let cancel = CancellationToken::new();
    backup::verify(
        repo,
        id,
        VerifyLevel::Hash,
        &backup::event::NoEvents,
        &cancel,
    )
    .await
    .unwrap()
}
