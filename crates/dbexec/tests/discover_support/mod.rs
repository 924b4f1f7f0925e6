//! What the discovery tests on real containers share: an engine of which only the containers of
//! one test are seen, so that tests may run beside each other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dbexec::runtime::{
    ContainerDetails, ContainerSummary, EndpointInput, ExecSession, ExecSpec, ExecStatus, PutFile,
    connect_runtime,
};
use dbexec::{
    ConnectionSettings, ContainerRuntime, DbContext, DiscoverError, DiscoverInput, EnvSnapshot,
    ExplicitSettings, RuntimeError, TargetSpec, Trail, discover_db_context, executor::HostPrograms,
};
use testkit::{PgContainer, PgContainerBuilder};
use tokio::io::AsyncRead;

const LABEL: &str = "pgstow.test.scope";

/// One test's part of the engine.
pub(crate) struct Scope {
    name: String,
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    scratch: tempfile::TempDir,
}

impl Scope {
    pub(crate) async fn new() -> Self {
        let name = testkit::container::unique_name("scope");
        let inner = connect_runtime(&EndpointInput::default())
            .await
            .expect("a container engine answers");
        Self {
            runtime: Arc::new(Scoped {
                inner: Arc::new(inner),
                scope: name.clone(),
            }),
            name,
            scratch: tempfile::tempdir().expect("a scratch directory"),
        }
    }

    /// Puts a container into the scope and starts it.
    pub(crate) fn start(&self, builder: PgContainerBuilder) -> PgContainer {
        builder
            .option(&["--label", &self.label()])
            .start()
            .expect("the container starts")
    }

    /// Label of the scope, as an argument of `docker run`.
    pub(crate) fn label(&self) -> String {
        format!("{LABEL}={}", self.name)
    }

    /// An input that sees the scope.
    pub(crate) fn input(&self, env: &[(&str, &str)]) -> DiscoverInput {
        let mut settings = ConnectionSettings::new("discover-test");
        settings.connect_timeout = Duration::from_secs(5);
        DiscoverInput {
            explicit: ExplicitSettings::default(),
            env: env.iter().copied().collect::<EnvSnapshot>(),
            runtime: Ok(Arc::clone(&self.runtime)),
            persisted_file: None,
            allow_mixed_sources: false,
            host_programs: HostPrograms {
                bin_dir: None,
                path_dirs: Vec::new(),
                scratch_root: self.scratch.path().to_owned(),
            },
            settings,
        }
    }

    /// An input with a target.
    pub(crate) fn named(&self, target: &str) -> DiscoverInput {
        let mut input = self.input(&[]);
        input.explicit.target = Some(TargetSpec::parse(target).expect("a target"));
        input
    }
}

/// Discovers, and checks that no secret is in any word of the result.
pub(crate) async fn find(input: &DiscoverInput) -> Result<DbContext, DiscoverError> {
    let result = discover_db_context(input).await;
    let words = match &result {
        Ok(context) => format!("{context:?} {}", words(&context.trail)),
        Err(error) => format!(
            "{error} {error:?} {:?} {}",
            error.hints(),
            words(error.trail())
        ),
    };
    assert!(!words.contains("secret"), "a secret is in {words}");
    result
}

/// The trail as lines.
pub(crate) fn words(trail: &Trail) -> String {
    trail
        .entries
        .iter()
        .map(|e| format!("{}: {}: {}\n", e.step, e.outcome.as_str(), e.reason))
        .collect()
}

#[derive(Debug)]
struct Scoped {
    inner: Arc<dyn ContainerRuntime>,
    scope: String,
}

#[async_trait]
impl ContainerRuntime for Scoped {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut list = self.inner.list().await?;
        list.retain(|c| c.labels.get(LABEL) == Some(&self.scope));
        Ok(list)
    }
    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError> {
        self.inner.inspect(container).await
    }
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        self.inner.exec(container, spec).await
    }
    async fn exec_status(&self, exec_id: &str) -> Result<ExecStatus, RuntimeError> {
        self.inner.exec_status(exec_id).await
    }
    async fn put_file(
        &self,
        container: &str,
        file: &PutFile,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), RuntimeError> {
        self.inner.put_file(container, file, content).await
    }
    async fn get_tar(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, RuntimeError> {
        self.inner.get_tar(container, path).await
    }
}
