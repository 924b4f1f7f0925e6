//! Backup and restore of the objects of bar line 31 to another server, of the same major and of a
//! newer one: equal by the program's own comparison with the attestation, and by one that the
//! servers and stock pg_dump make.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use backup::compare::{CatalogueState, Expected, compare, observe};
use backup::{
    BackupId, BackupOptions, Clock, DumpFormat, RestoreSource, RolesPolicy, event::NoEvents,
};
use support::live::{Live, file_as, words};
use testkit::schema::{database_properties, fingerprint, load_bar31, schema_dump};
use tokio_util::sync::CancellationToken;

const DATABASE: &str = "shop";

/// The schema that a stock dump and a stock restore give: the source's own where the majors are
/// equal, else that of a copy on the target, because majors write definitions differently.
fn reference(source: &Live, target: &Live, same_major: bool) -> String {
    if same_major {
        return schema_dump(&source.container, DATABASE).unwrap();
    }
    let path = source.dump(DATABASE, "reference", &["-Fc"]);
    let inside = format!("{}:/tmp/reference", target.container.id());
    testkit::process::docker(&["cp", path.to_str().unwrap(), &inside]).unwrap();
    let script = "createdb -U postgres -T template0 -E UTF8 -l de_DE.UTF-8 reference && \
                  pg_restore --exit-on-error -U postgres -d reference /tmp/reference";
    target.container.exec(&["sh", "-c", script]).unwrap();
    schema_dump(&target.container, "reference").unwrap()
}

async fn round_trip(from: u32, to: u32, format: DumpFormat) {
    let source = Live::start(from).await;
    load_bar31(&source.container, DATABASE).unwrap();
    let id = BackupId::new(source.home.clock.now());
    let cancel = CancellationToken::new();
    let options = BackupOptions {
        databases: vec![DATABASE.to_owned()],
        format,
        ..BackupOptions::default()
    };
    let (repo, events) = (&source.home.repo, &source.home.events);
    let made = backup::back_up(
        repo,
        &source.executor,
        id.clone(),
        &options,
        events,
        &cancel,
    )
    .await
    .unwrap_or_else(|error| panic!("{}", words(&error)));
    let attested = made.manifest.databases[0].attestation.clone().unwrap();
    assert!(attested.snapshot, "{:?}", attested.missing);
    assert_eq!(attested.missing, Vec::<String>::new());

    let mut target = Live::start(to).await;
    target.home.repo = source.home.repo.clone();
    let mut request = file_as(std::path::Path::new(""), DATABASE);
    request.source = RestoreSource::Backup(id.to_string());
    request.roles = RolesPolicy::Create;
    let plan = target.plan(&request).await;
    let plan = plan.unwrap_or_else(|error| panic!("{}", words(&error)));
    let report = target.apply(&plan).await;
    let report = report.unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(report.warnings, Vec::<String>::new());

    // The program's own comparison.
    let expected = Expected::of_plan(&plan).await.unwrap();
    let wanted = expected.wanted();
    let observed = observe(&target.executor, DATABASE, &wanted, &NoEvents, &cancel);
    let observed = observed.await;
    let observed = observed.unwrap_or_else(|error| panic!("{}", words(&error)));
    let result = compare(&expected, &observed);
    assert!(result.is_equal(), "{:#?}", result.differences);
    assert!(result.tables_total > 20, "{result:?}");
    assert_eq!(result.tables_equal, result.tables_total);
    assert_eq!(result.fingerprints, result.tables_total);
    assert!(result.sequences_total > 3, "{result:?}");
    assert_eq!(result.sequences_equal, result.sequences_total);
    assert_eq!(result.large_objects, Some(3));
    assert!(result.catalogue_objects > 100, "{result:?}");
    let catalogue = if from == to {
        CatalogueState::Full
    } else {
        CatalogueState::Names
    };
    assert_eq!(result.catalogue, catalogue);

    // The independent one.
    let of = |live: &Live| fingerprint(&live.container, DATABASE).unwrap();
    assert_eq!(of(&target), of(&source));
    let of = |live: &Live| database_properties(&live.container, DATABASE).unwrap();
    assert_eq!(of(&target), of(&source));
    let found = schema_dump(&target.container, DATABASE).unwrap();
    similar(&found, &reference(&source, &target, from == to));

    // One row less, and both say so.
    target.psql(DATABASE, "DELETE FROM app.hashed WHERE id = 7");
    let again = observe(&target.executor, DATABASE, &wanted, &NoEvents, &cancel);
    let result = compare(&expected, &again.await.unwrap());
    assert_eq!(result.differences.len(), 1, "{:?}", result.differences);
    assert!(
        result.differences[0]
            .object
            .starts_with("table app.hashed_")
    );
    assert_ne!(
        fingerprint(&target.container, DATABASE).unwrap(),
        fingerprint(&source.container, DATABASE).unwrap()
    );
}

/// Equal texts; else the first lines that differ.
fn similar(found: &str, expected: &str) {
    if found != expected {
        let lines = found.lines().zip(expected.lines());
        let first: Vec<_> = lines.filter(|(a, b)| a != b).take(5).collect();
        panic!("{first:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_13() {
    round_trip(13, 13, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_15() {
    round_trip(15, 15, DumpFormat::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_17() {
    round_trip(17, 17, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_18() {
    round_trip(18, 18, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_15_to_17() {
    round_trip(15, 17, DumpFormat::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_31_round_trip_17_to_18() {
    round_trip(17, 18, DumpFormat::Custom).await;
}
