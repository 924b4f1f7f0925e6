//! The parallel engine in front of a store that is slow to the end.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup::{BackupId, BackupOptions, Clock, EngineChoice, VerifyLevel};
use support::Home;
use support::hooked::{Hook, Hooked};
use support::real::{Login, in_container};
use testkit::PgContainer;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};

/// What one write takes.
const DELAY: Duration = Duration::from_millis(20);
/// Bytes of finished units that may wait, as docs/adr/0011 has it: the room, and that of the head.
const WINDOW: u64 = 18 << 20;
/// Far more than the window, also when it is compressed; in ranges, so that every mover has work.
const ROWS: &str = "
create table big (id int, doc text);
alter table big alter doc set storage external;
insert into big select g, (select string_agg(md5((g * 100 + i)::text), '') from generate_series(1, 60) i)
  from generate_series(1, 60000) g;
";

/// Takes every write after a while, and looks what else is on the disk.
#[derive(Debug, Clone)]
struct Slow {
    root: PathBuf,
    taken: Arc<AtomicU64>,
    /// Most bytes that were found in files beyond those that the store took.
    beside: Arc<AtomicU64>,
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[async_trait]
impl Hook for Slow {
    async fn before(&self, _file: &str, _bytes: u64) {
        tokio::time::sleep(DELAY).await;
    }

    fn after(&self, bytes: u64) {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let beside = bytes_below(&self.root).saturating_sub(taken);
        self.beside.fetch_max(beside, Ordering::Relaxed);
    }
}

/// Hears what the engine says of its window.
#[derive(Clone, Default)]
struct Window(Arc<Mutex<Vec<u64>>>);

impl Visit for Window {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "window_peak" {
            self.0.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Window {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("backup::engine")
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

/// The movers are faster than the store all the time: the run succeeds, what waits in memory stays
/// in its bounds, and nothing is put aside on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn bar_22_a_store_that_is_slow_to_the_end_bounds_what_waits() {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", ROWS).unwrap();
    let home = Home::new();
    let slow = Slow {
        root: home.dir.path().to_owned(),
        taken: Arc::default(),
        beside: Arc::default(),
    };
    let repo = home.with_store(Arc::new(Hooked {
        inner: Arc::clone(&home.repo.store),
        hook: slow.clone(),
    }));
    let options = BackupOptions {
        databases: vec!["shop".to_owned()],
        engine: EngineChoice::Parallel,
        jobs: Some(4),
        verify: VerifyLevel::Read,
        ..BackupOptions::default()
    };
    let id = BackupId::new(home.clock.now());
    let executor = in_container(&container, &id, &Login::default()).await;
    let window = Window::default();
    let heard = tracing::subscriber::set_default(window.clone());
    let cancel = CancellationToken::new();
    let report = backup::back_up(&repo, &executor, id, &options, &home.events, &cancel).await;
    drop(heard);
    let report = report.unwrap();

    let database = &report.manifest.databases[0];
    let rows = &database.attestation.as_ref().unwrap().tables[0];
    assert_eq!((rows.rows, &*rows.name), (60_000, "big"));
    assert!(report.bytes > 2 * WINDOW, "{} bytes", report.bytes);
    let peaks = window.0.lock().unwrap().clone();
    let [peak] = peaks[..] else {
        panic!("the window was told {} times", peaks.len());
    };
    assert!(peak <= WINDOW, "{peak} bytes waited");
    // Had the store been as fast as the movers, this would prove nothing.
    assert!(peak > WINDOW / 2, "only {peak} bytes waited");
    let beside = slow.beside.load(Ordering::Relaxed);
    assert!(beside < 1 << 20, "{beside} bytes beside the store's own");
}
