//! A scripted executor and a repository in a temporary directory, for tests without a server.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test file uses a part of this"
)]

pub mod fake;
pub mod hooked;
pub mod live;
pub mod real;
pub mod scene;
pub mod stock;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backup::{
    BackupError, BackupEvent, BackupId, BackupOptions, BackupReport, Clock, DumpFormat, EventSink,
    Manifest, Repository,
};
use dbexec::PgExecutor;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use storage::{LocalStore, Store};
use tokio_util::sync::CancellationToken;

pub use fake::FakeExecutor;

/// A clock that a test sets; each reading moves it by a second.
#[derive(Debug)]
pub struct FakeClock(pub Mutex<Timestamp>);

impl FakeClock {
    pub fn set(&self, text: &str) {
        *self.0.lock().unwrap() = text.parse().unwrap();
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let mut now = self.0.lock().unwrap();
        *now += jiff::SignedDuration::from_secs(1);
        *now
    }
}

/// Keeps every event.
#[derive(Debug, Default)]
pub struct Events(pub Mutex<Vec<BackupEvent>>);

impl Events {
    pub fn text(&self) -> String {
        format!("{:?}", self.0.lock().unwrap())
    }
}

impl EventSink for Events {
    fn emit(&self, event: BackupEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A repository of one test.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub repo: Repository,
    pub clock: Arc<FakeClock>,
    pub events: Events,
}

impl Home {
    /// Stores this as the manifest of a backup, with a list of hashes that fits.
    pub fn store_manifest(&self, manifest: &Manifest, text: &impl serde::Serialize) {
        let bytes = serde_json::to_vec_pretty(text).unwrap();
        let files = manifest.files();
        let mut sums: String = files
            .map(|file| format!("{}  {}\n", file.sha256, file.name))
            .collect();
        let own = hex::encode(Sha256::digest(&bytes));
        sums.push_str(&format!("{own}  manifest.json\n"));
        let dir = self.backups().join(manifest.id.as_str());
        std::fs::write(dir.join("manifest.json"), bytes).unwrap();
        std::fs::write(dir.join("SHA256SUMS"), sums).unwrap();
    }

    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path().join("backups")).unwrap();
        let clock = Arc::new(FakeClock(Mutex::new(
            "2026-01-01T00:00:00Z".parse().unwrap(),
        )));
        let repo = Repository {
            store: Arc::new(store),
            state_dir: dir.path().join("state"),
            clock: clock.clone(),
        };
        Self {
            dir,
            repo,
            clock,
            events: Events::default(),
        }
    }

    pub fn backups(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    /// The same repository with another store in front of its directory.
    pub fn with_store(&self, store: Arc<dyn Store>) -> Repository {
        Repository {
            store,
            ..self.repo.clone()
        }
    }

    pub async fn run(&self, fake: &Arc<FakeExecutor>) -> Result<BackupReport, BackupError> {
        self.run_with(&self.repo, fake, &BackupOptions::default())
            .await
    }

    pub async fn run_with(
        &self,
        repo: &Repository,
        fake: &Arc<FakeExecutor>,
        options: &BackupOptions,
    ) -> Result<BackupReport, BackupError> {
        let executor: Arc<dyn PgExecutor> = fake.clone();
        let id = BackupId::new(repo.clock.now());
        backup::back_up(
            repo,
            &executor,
            id,
            options,
            &self.events,
            &CancellationToken::new(),
        )
        .await
    }

    /// Every file below the store, hidden ones too.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.backups(), &mut found);
        found.sort();
        found
    }
}

fn walk(dir: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path().display().to_string());
        }
    }
}

/// Copies a tree.
pub fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    use std::os::unix::fs::DirBuilderExt;
    if !to.exists() {
        std::fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Default options in each format.
pub fn formats() -> [BackupOptions; 3] {
    [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain].map(|format| BackupOptions {
        format,
        verify: backup::VerifyLevel::Read,
        ..BackupOptions::default()
    })
}
