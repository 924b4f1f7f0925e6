//! Testing credentials: one login, one query, the server's identity.

use std::sync::Arc;

use crate::context::{ContainerIdentity, CredentialSource, DbContext, DbMode, ServerIdentity};
use crate::creds::DbCreds;
use crate::executor::{
    ConnectionSettings, DockerPgExecutor, ExecError, HostPgExecutor, HostPrograms,
};
use crate::query;
use crate::runtime::ContainerRuntime;
use crate::trail::Trail;

/// Where the client program of the test runs.
pub(crate) enum Place<'a> {
    /// In this container.
    Container(&'a Arc<dyn ContainerRuntime>, &'a ContainerIdentity),
    /// On this host.
    Host(&'a HostPrograms),
}

/// Logs in once with exactly these credentials and asks the server who it is.
///
/// # Errors
/// [`ExecError::CredentialsRefused`], [`ExecError::ServerUnreachable`], [`ExecError::Tls`],
/// [`ExecError::Pooler`], or that the program could not be run.
pub(crate) async fn server_identity(
    place: &Place<'_>,
    creds: &DbCreds,
    settings: &ConnectionSettings,
) -> Result<ServerIdentity, ExecError> {
    let unknown = ServerIdentity {
        version_num: 0,
        version: "unknown".to_owned(),
        system_identifier: None,
        in_recovery: false,
        is_superuser: false,
        running: None,
    };
    let (mode, container) = match place {
        Place::Container(_, container) => (DbMode::InContainer, Some((*container).clone())),
        Place::Host(_) => (DbMode::External, None),
    };
    let context = DbContext {
        mode,
        creds: creds.clone(),
        source: CredentialSource::Explicit,
        field_sources: crate::FieldSources::default(),
        container,
        server: unknown,
        trail: Trail::default(),
        programs: crate::SeenPrograms::default(),
    };
    match place {
        Place::Container(runtime, _) => {
            let executor = DockerPgExecutor::new(context, Arc::clone(runtime), settings.clone())?;
            query::server_identity(&executor, &creds.database).await
        }
        Place::Host(host) => {
            let executor = HostPgExecutor::new(context, (*host).clone(), settings.clone());
            query::server_identity(&executor, &creds.database).await
        }
    }
}
