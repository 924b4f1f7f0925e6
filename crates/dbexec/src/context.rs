//! What discovery hands to everything else: one server, how to reach it, and how it was found.

use serde::{Deserialize, Serialize};

use crate::{creds::DbCreds, executor::programs::Installation, trail::Trail};

/// Where the server runs, which decides where client programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DbMode {
    /// In a container; client programs run inside it, through the container runtime.
    InContainer,
    /// Reached over the network or a local socket with client programs of this host.
    External,
}

/// Where a credential, or one field of it, came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialSource {
    /// What the user typed: `--url`, flags, a target name.
    Explicit,
    /// The environment of pgstow's own process.
    Env,
    /// The environment (or files) of a running container.
    RunningContainer,
    /// `state/db.env`, written after an earlier successful backup.
    PersistedFile,
}

impl CredentialSource {
    /// The word shown to users and used as a metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Env => "env",
            Self::RunningContainer => "running_container",
            Self::PersistedFile => "persisted_file",
        }
    }
}

/// Which source each field of the winning credentials came from; `None` is a default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FieldSources {
    /// Source of the host (or of the container that stands for it).
    pub host: Option<CredentialSource>,
    /// Source of the port.
    pub port: Option<CredentialSource>,
    /// Source of the database name.
    pub database: Option<CredentialSource>,
    /// Source of the user name.
    pub user: Option<CredentialSource>,
    /// Source of the password.
    pub password: Option<CredentialSource>,
}

/// Compose labels: the identity of a service that survives recreation of its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComposeService {
    /// `com.docker.compose.project`.
    pub project: String,
    /// `com.docker.compose.service`.
    pub service: String,
}

/// The container a run is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerIdentity {
    /// Full 64-digit id; a recreated container has another one.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference as the container was started with.
    pub image: String,
    /// Content digest of the image (`sha256:…`), from inspect.
    pub image_digest: String,
    /// Compose identity, where the container carries the labels.
    pub compose: Option<ComposeService>,
}

/// The server behind the credentials, as it described itself when they were tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// `server_version_num`, for example 150018.
    pub version_num: u32,
    /// `server_version`, for example `15.18 (Debian 15.18-1)`.
    pub version: String,
    /// `system_identifier` of `pg_control_system()`, decimal. `None` where the role may not
    /// read it; a run is then bound to the container id or address alone.
    pub system_identifier: Option<String>,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Whether the role is a superuser.
    pub is_superuser: bool,
    /// This run of the server, where the programs asked for it. Of no use after it, and not stored.
    #[serde(skip)]
    pub running: Option<RunningServer>,
}

/// One run of a server: another one, or a copy of it, was started at another time or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningServer {
    /// `pg_postmaster_start_time()`, in microseconds since 1970, decimal.
    pub started: String,
    /// Setting `data_directory`. `None` where the role is no superuser, who alone may read it.
    pub data_directory: Option<String>,
}

impl ServerIdentity {
    /// Major version: 15 for 150018.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// What outlasts this run of the server.
    #[must_use]
    pub fn lasting(&self) -> Self {
        Self {
            running: None,
            ..self.clone()
        }
    }
}

/// One server: mode, tested credentials, their source, its container and identity, and the
/// trail of what discovery tried on the way.
#[derive(Debug, Clone)]
pub struct DbContext {
    /// Where the server runs.
    pub mode: DbMode,
    /// Tested credentials: a query succeeded with them.
    pub creds: DbCreds,
    /// Source that named the server (host or container).
    pub source: CredentialSource,
    /// Source of each field.
    pub field_sources: FieldSources,
    /// The container, in mode `InContainer`; also set for `External` when a container's
    /// environment named the remote host.
    pub container: Option<ContainerIdentity>,
    /// The server as it described itself.
    pub server: ServerIdentity,
    /// What discovery tried, in order.
    pub trail: Trail,
    /// Client programs in the container, where discovery looked into it.
    pub programs: SeenPrograms,
}

/// Client programs that were seen in a container; the default is that nobody looked.
#[derive(Debug, Clone, Default)]
pub struct SeenPrograms(pub(crate) Option<Vec<Installation>>);

impl DbContext {
    /// Short name of the target for people: container name, compose service or `host:port`.
    #[must_use]
    pub fn target_name(&self) -> String {
        match (&self.mode, &self.container) {
            (DbMode::InContainer, Some(container)) => match &container.compose {
                Some(compose) => format!("{}/{}", compose.project, compose.service),
                None => format!("container:{}", container.name),
            },
            _ => format!(
                "{}:{}",
                self.creds.host.as_deref().unwrap_or("local socket"),
                self.creds.port
            ),
        }
    }
}
