//! What a run attests, with a scripted server.

mod support;

use backup::{BackupOptions, DumpFormat};
use dbexec::PgProgram;
use support::fake::Script;
use support::{FakeExecutor, Home, formats};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_attests_what_the_server_counted() {
    for options in formats() {
        let home = Home::new();
        let fake = FakeExecutor::new(Script::default());
        let report = home.run_with(&home.repo, &fake, &options).await.unwrap();
        let manifest = &report.manifest;
        assert_eq!(manifest.target.settings["wal_level"], "replica");
        let attestation = manifest.databases[0].attestation.as_ref().unwrap();
        assert!(attestation.snapshot, "{attestation:?}");
        let [table] = attestation.tables.as_slice() else {
            panic!("{attestation:?}");
        };
        assert_eq!(
            (table.schema.as_str(), table.name.as_str(), table.rows),
            ("public", "t", 1)
        );
        let plain = options.format == DumpFormat::Plain;
        assert_eq!(table.fingerprint.is_none(), plain);
        assert_eq!(attestation.catalogue.is_none(), plain);
        assert_eq!(
            attestation.missing.is_empty(),
            !plain,
            "{:?}",
            attestation.missing
        );
        let snapshot = fake
            .started
            .lock()
            .unwrap()
            .iter()
            .any(|(program, args, _)| {
                *program == PgProgram::PgDump
                    && args.contains(&"--snapshot=00000003-0000001B-1".to_owned())
            });
        assert!(snapshot);

        // No fingerprints, and only those.
        let off = BackupOptions {
            fingerprint_budget: Some(0),
            ..options.clone()
        };
        let report = home.run_with(&home.repo, &fake, &off).await.unwrap();
        let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
        assert!(attestation.snapshot && attestation.tables[0].fingerprint.is_none());
        assert_eq!(attestation.tables[0].rows, 1);
        assert_eq!(attestation.catalogue.is_none(), plain);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_archive_lacks_what_the_server_counted_fails() {
    for options in formats() {
        let home = Home::new();
        let fake = FakeExecutor::new(Script {
            server_rows: 3,
            ..Script::default()
        });
        let error = home
            .run_with(&home.repo, &fake, &options)
            .await
            .unwrap_err();
        assert_eq!(error.code(), backup::codes::ATTESTATION_FAILED);
        let text = error.to_string();
        assert!(
            text.contains("table public.t has 3 rows on the server and 1 in the archive"),
            "{text}"
        );
        assert!(home.files().is_empty());
        fake.change(|script| {
            script.server_rows = 1;
            script.server_large_objects = 2;
        });
        let result = home.run_with(&home.repo, &fake, &options).await;
        if options.format == DumpFormat::Plain {
            // A script tells nothing of them that is compared.
            result.unwrap();
        } else {
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains("2 large objects on the server and 0"),
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_exports_no_snapshot_is_backed_up_and_told() {
    let home = Home::new();
    let words = "cannot export a snapshot here";
    let fake = FakeExecutor::new(Script {
        no_snapshot: Some(words.to_owned()),
        // Would be a difference if it had been counted in the dump's snapshot.
        server_rows: 9,
        ..Script::default()
    });
    let report = home.run(&fake).await.unwrap();
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert!(!attestation.snapshot);
    assert!(
        attestation.missing[0].contains(words),
        "{:?}",
        attestation.missing
    );
    assert!(home.events.text().contains(words));
    // What the archive itself holds is attested all the same.
    assert_eq!(attestation.tables[0].rows, 1);
    let dumped = fake
        .started
        .lock()
        .unwrap()
        .iter()
        .any(|(program, args, _)| {
            *program == PgProgram::PgDump && !args.iter().any(|arg| arg.starts_with("--snapshot"))
        });
    assert!(dumped);
}

/// DDL that waits for the dump makes the count wait behind it: the count gives up, the dump does
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_waits_too_long_for_a_lock_is_told_and_fails_nothing() {
    let home = Home::new();
    let words = "canceling statement due to lock timeout";
    let fake = FakeExecutor::new(Script {
        count_fails: Some(words.to_owned()),
        ..Script::default()
    });
    let report = home.run(&fake).await.unwrap();
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert!(attestation.snapshot);
    assert_eq!(
        attestation.missing,
        [format!(
            "row counts of 1 tables on the server: public.t ({words})"
        )]
    );
    assert!(home.events.text().contains(words));
    // Counted in the archive, and fingerprinted.
    assert_eq!(attestation.tables[0].rows, 1);
    assert!(attestation.tables[0].fingerprint.is_some());
}

/// Whoever waited for pg_dump's lock to empty a table has it before the count has.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_after_its_dump_is_told_and_fails_nothing() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script {
        server_rows: 0,
        server_rewritten: true,
        ..Script::default()
    });
    let report = home.run(&fake).await.unwrap();
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert!(
        attestation.missing[0].contains("public.t (it was rewritten or emptied"),
        "{:?}",
        attestation.missing
    );
    assert_eq!(attestation.tables[0].rows, 1);
    // One that was only packed shows its rows as before.
    fake.change(|script| script.server_rows = 1);
    let report = home.run(&fake).await.unwrap();
    let attestation = report.manifest.databases[0].attestation.as_ref().unwrap();
    assert_eq!(attestation.missing, Vec::<String>::new());
}
