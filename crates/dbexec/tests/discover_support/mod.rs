//! What the discovery tests on real containers share: an engine of which only the containers of
//! one test are seen, so that tests may run beside each other.

use std::sync::Arc;
use std::time::Duration;

use dbexec::runtime::{EndpointInput, connect_runtime};
use dbexec::{
    ConnectionSettings, ContainerRuntime, DbContext, DiscoverError, DiscoverInput, EnvSnapshot,
    ExplicitSettings, TargetSpec, Trail, discover_db_context, executor::HostPrograms,
};
use testkit::{PgContainer, PgContainerBuilder};

use crate::runtime_support::Lens;

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
            runtime: Arc::new(Lens {
                inner: Arc::new(inner),
                label: Some((LABEL, name.clone())),
                mounts: None,
                addresses: true,
                processes: true,
                execs: true,
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
