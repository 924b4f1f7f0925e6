//! Executors on real servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup::BackupId;
use dbexec::executor::HostPrograms;
use dbexec::runtime::{ContainerRuntime, EndpointInput, connect_runtime};
use dbexec::{
    ConnectionSettings, ContainerIdentity, CredentialSource, DbContext, DbCreds, DbMode,
    FieldSources, PgExecutor, ServerIdentity, TlsOptions, Trail, open_executor, query,
};
use testkit::PgContainer;

/// What differs between the executors of tests.
pub struct Login<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub lock_wait: Duration,
    pub port: u16,
    /// `--max-connections`.
    pub sessions: u32,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self {
            user: "postgres",
            database: "postgres",
            lock_wait: Duration::from_secs(30),
            port: 5432,
            sessions: 4,
        }
    }
}

fn context(container: &PgContainer, login: &Login<'_>, mode: DbMode) -> DbContext {
    DbContext {
        mode,
        creds: DbCreds {
            host: None,
            port: login.port,
            database: login.database.to_owned(),
            user: login.user.to_owned(),
            password: Some(container.password().into()),
            tls: TlsOptions::default(),
        },
        source: CredentialSource::Explicit,
        field_sources: FieldSources::default(),
        container: None,
        server: ServerIdentity {
            version_num: 0,
            version: "unknown".to_owned(),
            system_identifier: None,
            in_recovery: false,
            is_superuser: false,
            running: None,
        },
        trail: Trail::default(),
        programs: dbexec::SeenPrograms::default(),
    }
}

fn settings(id: &BackupId, login: &Login<'_>) -> ConnectionSettings {
    let mut settings = ConnectionSettings::new(id.as_str());
    settings.lock_wait_timeout = login.lock_wait;
    settings.max_connections = login.sessions;
    settings
}

/// Programs in the container.
pub async fn in_container(
    container: &PgContainer,
    id: &BackupId,
    login: &Login<'_>,
) -> Arc<dyn PgExecutor> {
    let runtime: Arc<dyn ContainerRuntime> =
        Arc::new(connect_runtime(&EndpointInput::default()).await.unwrap());
    let details = runtime.inspect(container.id()).await.unwrap();
    let mut context = context(container, login, DbMode::InContainer);
    context.container = Some(ContainerIdentity {
        id: details.id,
        name: details.name,
        image: details.image,
        image_digest: details.image_digest,
        compose: None,
    });
    let open = |context: DbContext| {
        open_executor(
            context,
            Some(Arc::clone(&runtime)),
            HostPrograms::default(),
            settings(id, login),
        )
    };
    // As discovery does: the identity comes from the server.
    let first = open(context.clone()).await.unwrap();
    context.server = query::server_identity(first.as_ref(), login.database)
        .await
        .unwrap();
    open(context).await.unwrap()
}

/// Programs of this host, over the container's address.
pub async fn on_host(
    container: &PgContainer,
    id: &BackupId,
    login: &Login<'_>,
    scratch: &Path,
) -> Arc<dyn PgExecutor> {
    let mut context = context(container, login, DbMode::External);
    context.creds.host = Some(container.ip().unwrap());
    // The version decides which programs are right, so it has to be known first.
    let known = in_container(container, id, login).await;
    context.server = known.context().server.clone();
    let host = HostPrograms {
        bin_dir: Some("/usr/lib/postgresql/15/bin".into()),
        path_dirs: Vec::new(),
        scratch_root: scratch.to_owned(),
    };
    open_executor(context, None, host, settings(id, login))
        .await
        .unwrap()
}
