//! The input of discovery.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use crate::{
    ConnectionSettings, ContainerRuntime, EnvSnapshot, TlsOptions, executor::HostPrograms,
    target::TargetSpec,
};

/// What the user typed; each wins over every other source of the same field.
#[derive(Debug, Clone, Default)]
pub struct ExplicitSettings {
    /// TARGET or `--url`.
    pub target: Option<TargetSpec>,
    /// `--container` or `TARGET_CONTAINER`.
    pub container: Option<String>,
    /// `--image-pattern`: a glob that narrows the search for containers.
    pub image_pattern: Option<String>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--dbname`: database of the first connection.
    pub database: Option<String>,
    /// `--username`.
    pub user: Option<String>,
    /// Password from `--password-file` (never from an argument).
    pub password: Option<SecretString>,
    /// TLS options from flags.
    pub tls: TlsOptions,
}

/// Everything that discovery depends on.
#[derive(Debug, Clone)]
pub struct DiscoverInput {
    /// What the user typed.
    pub explicit: ExplicitSettings,
    /// The process's environment.
    pub env: EnvSnapshot,
    /// A container runtime that answered, or why there is none (shown in the trail).
    pub runtime: Result<Arc<dyn ContainerRuntime>, Arc<crate::RuntimeError>>,
    /// Path of `state/db.env`; `None` switches the step off.
    pub persisted_file: Option<PathBuf>,
    /// Whether secrets of one source may go to a host that another named.
    pub allow_mixed_sources: bool,
    /// Programs of this host, for servers outside containers.
    pub host_programs: HostPrograms,
    /// Connection settings for the test query.
    pub settings: ConnectionSettings,
}
