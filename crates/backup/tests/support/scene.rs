//! A server with rows, and a store that stops half-way until it is told to go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup::{BackupError, BackupId, BackupOptions, BackupReport, Clock, Repository};
use storage::Store;
use testkit::{PgContainer, process::docker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Home;
use super::hooked::{Hook, Hooked};
use super::real::{Login, in_container};

/// More than the engine's room, also when it is compressed; one table in several ranges, and one
/// that is small.
const ROWS: &str = "
create table big (id int, doc text);
alter table big alter doc set storage external;
insert into big select g, (select string_agg(md5((g * 100 + i)::text), '') from generate_series(1, 60) i)
  from generate_series(1, 40000) g;
create table small as select g from generate_series(1, 10) g;
select lo_from_bytea(0, 'x');
";

/// Lets so many bytes of archives into the store and then waits until it is opened.
#[derive(Debug, Clone)]
pub struct Gate {
    limit: u64,
    open: watch::Sender<bool>,
    taken: watch::Sender<u64>,
}

impl Gate {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            open: watch::Sender::new(false),
            taken: watch::Sender::new(0),
        }
    }

    /// Waits until the store is full for now.
    pub async fn reached(&self) {
        let mut taken = self.taken.subscribe();
        let waited = taken.wait_for(|taken| *taken >= self.limit);
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .unwrap()
            .unwrap();
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

#[async_trait]
impl Hook for Gate {
    async fn before(&self, file: &str, bytes: u64) {
        if !file.contains(".dump") && !file.contains(".dir/") {
            return;
        }
        let mut now = 0;
        self.taken.send_modify(|taken| {
            *taken += bytes;
            now = *taken;
        });
        if now >= self.limit {
            let _ = self.open.subscribe().wait_for(|open| *open).await;
        }
    }
}

/// A server with rows, a repository, and a store that stops after 3 MB.
pub struct Scene {
    pub container: PgContainer,
    pub home: Home,
    /// Sessions that a run may hold.
    pub sessions: u32,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(17)
    }

    pub fn of(major: u32) -> Self {
        Self::on(PgContainer::start(major).unwrap())
    }

    pub fn on(container: PgContainer) -> Self {
        container.psql("postgres", "create database shop").unwrap();
        container.psql("shop", ROWS).unwrap();
        Self {
            container,
            home: Home::new(),
            sessions: 4,
        }
    }

    pub fn gate(&self) -> (Gate, Repository) {
        self.gate_at(3 << 20, Arc::clone(&self.home.repo.store))
    }

    /// A store that lets so many bytes of archives through.
    pub fn gate_at(&self, limit: u64, inner: Arc<dyn Store>) -> (Gate, Repository) {
        let gate = Gate::new(limit);
        let store = Hooked {
            inner,
            hook: gate.clone(),
        };
        let repo = self.home.with_store(Arc::new(store));
        (gate, repo)
    }

    pub async fn run(
        &self,
        repo: &Repository,
        options: &BackupOptions,
        cancel: &CancellationToken,
    ) -> Result<BackupReport, BackupError> {
        let id = BackupId::new(self.home.clock.now());
        let login = Login {
            sessions: self.sessions,
            ..Login::default()
        };
        let executor = in_container(&self.container, &id, &login).await;
        backup::back_up(repo, &executor, id, options, &self.home.events, cancel).await
    }

    pub fn psql(&self, sql: &str) -> String {
        self.container.psql("shop", sql).unwrap().trim().to_owned()
    }

    /// Begins something in a session of somebody else.
    pub fn aside(&self, sql: &str) {
        let name = self.container.name();
        docker(&[
            "exec", "-d", name, "psql", "-U", "postgres", "-d", "shop", "-c", sql,
        ])
        .unwrap();
    }

    /// Ends sessions of ours whose name ends so, and says how many there were.
    pub fn terminate(&self, suffix: &str) -> u32 {
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where application_name like 'pgstow-%-{suffix}'"
        );
        self.psql(&sql).parse().unwrap()
    }

    pub async fn until(&self, sql: &str) {
        let begun = Instant::now();
        while self.psql(sql) != "t" {
            assert!(begun.elapsed() < Duration::from_secs(30), "{sql}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn nothing_stays(&self) {
        assert_eq!(self.container.pgstow_sessions().unwrap(), 0);
        let processes = self.container.processes().unwrap();
        assert!(
            !processes.iter().any(|p| p.contains("pg_dump")),
            "{processes:?}"
        );
    }

    pub fn nothing_is_published(&self) {
        assert!(self.home.files().is_empty(), "{:?}", self.home.files());
        self.nothing_stays();
    }

    /// The rows of the archive, as stock pg_restore restores them.
    pub fn restored(&self, report: &BackupReport, count: &str) -> String {
        let file = &report.manifest.databases[0].archive.files[0].name;
        let path = self
            .home
            .backups()
            .join(report.manifest.id.as_str())
            .join(file);
        let to = format!("{}:/tmp/archive", self.container.id());
        docker(&["cp", path.to_str().unwrap(), &to]).unwrap();
        self.container
            .psql("postgres", "create database again")
            .unwrap();
        self.container
            .exec(&[
                "pg_restore",
                "-U",
                "postgres",
                "-d",
                "again",
                "-e",
                "/tmp/archive",
            ])
            .unwrap();
        let rows = self.container.psql("again", count).unwrap();
        self.container
            .psql("postgres", "drop database again")
            .unwrap();
        rows.trim().to_owned()
    }
}
