//! A real server in a container with the executor that fits it, for the tests of restore.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::{
    BackupError, EngineChoice, RestoreContents, RestorePlace, RestorePlan, RestoreReport,
    RestoreRequest, RestoreSource, RolesPolicy,
};
use dbexec::{
    ConnectionSettings, DiscoverInput, EnvSnapshot, ExplicitSettings, PgExecutor, TargetSpec,
    discover_db_context,
    executor::HostPrograms,
    open_executor,
    runtime::{EndpointInput, connect_runtime},
};
use testkit::{PgContainer, process::docker};
use tokio_util::sync::CancellationToken;

use super::Home;

/// A server, an executor for it, and a repository.
pub struct Live {
    pub container: PgContainer,
    pub executor: Arc<dyn PgExecutor>,
    pub home: Home,
}

impl Live {
    pub async fn start(major: u32) -> Self {
        Self::of(PgContainer::start(major).unwrap(), major).await
    }

    /// A server that was started with options.
    pub async fn of(container: PgContainer, major: u32) -> Self {
        let executor = executor_for(&container, major).await;
        Self {
            container,
            executor,
            home: Home::new(),
        }
    }

    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.container
            .psql(database, sql)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Runs pg_dump in the container and fetches what it wrote.
    pub fn dump(&self, database: &str, name: &str, options: &[&str]) -> PathBuf {
        let inside = format!("/tmp/{name}");
        let conninfo = dbexec::executor::conninfo_dbname(database);
        let argv = [
            &["pg_dump", "-U", "postgres", "-d", &conninfo, "-f", &inside][..],
            options,
        ]
        .concat();
        self.container.exec(&argv).unwrap();
        let to = self.home.dir.path().join(name);
        let from = format!("{}:{inside}", self.container.id());
        docker(&["cp", &from, to.to_str().unwrap()]).unwrap();
        to
    }

    pub async fn plan(&self, request: &RestoreRequest) -> Result<RestorePlan, BackupError> {
        backup::plan_restore(&self.home.repo, &self.executor, request).await
    }

    pub async fn apply(&self, plan: &RestorePlan) -> Result<RestoreReport, BackupError> {
        let cancel = CancellationToken::new();
        backup::restore(
            &self.home.repo,
            &self.executor,
            plan,
            &self.home.events,
            &cancel,
        )
        .await
    }

    pub async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport, BackupError> {
        let plan = self.plan(request).await?;
        self.apply(&plan).await
    }

    /// Names of the databases, sorted.
    pub fn databases(&self) -> Vec<String> {
        self.psql("postgres", "SELECT datname FROM pg_database ORDER BY 1")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Live {
    /// As [`Live::start`], reached over the network with the programs of this host.
    pub async fn over_network(major: u32) -> Self {
        let container = PgContainer::start(major).unwrap();
        let home = Home::new();
        let scratch_root = home.dir.path().join("scratch");
        std::fs::create_dir(&scratch_root).unwrap();
        let host = HostPrograms {
            bin_dir: None,
            path_dirs: vec!["/usr/bin".into()],
            scratch_root,
        };
        let executor = over_network_with(&container, major, host).await;
        Self {
            container,
            executor,
            home,
        }
    }
}

/// Reached over the network with the programs of a directory, which are used for its scratch too.
pub async fn with_programs(container: &PgContainer, dir: &Path) -> Arc<dyn PgExecutor> {
    let host = HostPrograms {
        bin_dir: Some(dir.to_owned()),
        path_dirs: Vec::new(),
        scratch_root: dir.to_owned(),
    };
    over_network_with(container, 0, host).await
}

async fn over_network_with(
    container: &PgContainer,
    major: u32,
    host: HostPrograms,
) -> Arc<dyn PgExecutor> {
    let url = format!(
        "postgres://postgres:{}@{}:5432/postgres",
        container.password(),
        container.ip().unwrap()
    );
    let settings = ConnectionSettings::new(&format!("restore-host-{major}"));
    let input = DiscoverInput {
        explicit: ExplicitSettings {
            target: Some(TargetSpec::parse(&url).unwrap()),
            ..ExplicitSettings::default()
        },
        env: EnvSnapshot::default(),
        runtime: Err(Arc::new(dbexec::RuntimeError::Unavailable {
            tried: Vec::new(),
        })),
        persisted_file: None,
        allow_mixed_sources: false,
        host_programs: host.clone(),
        settings: settings.clone(),
    };
    let context = discover_db_context(&input).await.unwrap();
    open_executor(context, None, host, settings).await.unwrap()
}

async fn executor_for(container: &PgContainer, major: u32) -> Arc<dyn PgExecutor> {
    let runtime = Arc::new(connect_runtime(&EndpointInput::default()).await.unwrap());
    let host = HostPrograms::default();
    let settings = ConnectionSettings::new(&format!("restore-test-{major}"));
    let input = DiscoverInput {
        explicit: ExplicitSettings {
            target: Some(TargetSpec::parse(&container.target()).unwrap()),
            ..ExplicitSettings::default()
        },
        env: EnvSnapshot::default(),
        runtime: Ok(runtime.clone()),
        persisted_file: None,
        allow_mixed_sources: false,
        host_programs: host.clone(),
        settings: settings.clone(),
    };
    let context = discover_db_context(&input).await.unwrap();
    open_executor(context, Some(runtime), host, settings)
        .await
        .unwrap()
}

/// A restore of a file into a new database.
pub fn file_as(path: &Path, name: &str) -> RestoreRequest {
    RestoreRequest {
        source: RestoreSource::Path(path.to_owned()),
        database: None,
        place: RestorePlace::NewDatabase {
            name: name.to_owned(),
        },
        roles: RolesPolicy::Skip,
        keep_owner: true,
        engine: EngineChoice::Auto,
        jobs: None,
        contents: RestoreContents::default(),
    }
}

/// An error with its causes.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
