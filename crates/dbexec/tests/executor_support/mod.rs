//! Executors in containers, for the tests.

use std::sync::Arc;
use std::time::Duration;

use dbexec::executor::HostPrograms;
use dbexec::runtime::{ContainerRuntime, EndpointInput, connect_runtime};
use dbexec::{
    ConnectionSettings, ContainerIdentity, CredentialSource, DbContext, DbCreds, DbMode,
    FieldSources, PgExecutor, ServerIdentity, TlsOptions, Trail, open_executor,
};
use testkit::PgContainer;

/// The engine of this machine.
pub(crate) async fn runtime() -> Arc<dyn ContainerRuntime> {
    Arc::new(
        connect_runtime(&EndpointInput::default())
            .await
            .expect("an engine answers"),
    )
}

/// An executor in a test container, as discovery would open it.
pub(crate) async fn executor(
    container: &PgContainer,
    major: u32,
    run: &str,
) -> Arc<dyn PgExecutor> {
    executor_of(container.id(), container.password(), major, run).await
}

/// As [`executor`], by the id of the container.
pub(crate) async fn executor_of(
    id: &str,
    password: &str,
    major: u32,
    run: &str,
) -> Arc<dyn PgExecutor> {
    executor_by(runtime().await, id, password, major, run).await
}

/// As [`executor_of`], by another engine than that of this machine.
pub(crate) async fn executor_by(
    runtime: Arc<dyn ContainerRuntime>,
    id: &str,
    password: &str,
    major: u32,
    run: &str,
) -> Arc<dyn PgExecutor> {
    let details = runtime.inspect(id).await.expect("it can be inspected");
    let context = DbContext {
        mode: DbMode::InContainer,
        creds: DbCreds {
            host: None,
            port: 5432,
            database: "postgres".to_owned(),
            user: "postgres".to_owned(),
            password: Some(password.to_owned().into()),
            tls: TlsOptions::default(),
        },
        source: CredentialSource::Explicit,
        field_sources: FieldSources::default(),
        container: Some(ContainerIdentity {
            id: details.id,
            name: details.name,
            image: details.image,
            image_digest: details.image_digest,
            compose: None,
        }),
        server: ServerIdentity {
            version_num: major * 10_000,
            version: major.to_string(),
            system_identifier: None,
            in_recovery: false,
            is_superuser: true,
            running: None,
        },
        trail: Trail::default(),
        programs: dbexec::SeenPrograms::default(),
    };
    let mut settings = ConnectionSettings::new(run);
    settings.stall_after = Duration::from_secs(2);
    open_executor(context, Some(runtime), HostPrograms::default(), settings)
        .await
        .expect("the executor opens")
}
