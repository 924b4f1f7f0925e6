//! The trait and the values that cross it. Implemented by the bollard adapter and by the test
//! kit's fake runtime.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};

use super::private::{Attached, ImageDetails, LabelledContainer, PrivateContainer};
use crate::{codes, env::EnvSnapshot};

/// A container in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Published ports as `host:port->container port`, for messages.
    pub ports: Vec<String>,
}

/// State of a container as the engine reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Running.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Being restarted by its policy.
    Restarting,
    /// Created, exited, dead or being removed.
    NotRunning,
}

/// A container as inspect describes it.
#[derive(Debug, Clone)]
pub struct ContainerDetails {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference the container was created with.
    pub image: String,
    /// Image content digest (`sha256:…`).
    pub image_digest: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The container's environment; may hold the initial password.
    pub env: EnvSnapshot,
    /// State now.
    pub state: ContainerState,
    /// Addresses of the container in its networks.
    pub addresses: Vec<String>,
    /// Whether it shares the network of the engine's host.
    pub host_network: bool,
    /// Its first process, as the engine's host counts.
    pub process: Option<u32>,
    /// TCP ports of the engine's host that are forwarded to it.
    pub published: Vec<PublishedPort>,
}

/// A TCP port of the engine's host that is forwarded to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// Port in the container.
    pub container_port: u16,
    /// Address of the host; the loopback address where the engine listens on all.
    pub address: String,
    /// Port of the host.
    pub port: u16,
}

/// What to run in a container. Never with a TTY.
#[derive(Clone, Default)]
pub struct ExecSpec {
    /// Argument vector; no shell unless the script is a constant.
    pub argv: Vec<String>,
    /// Environment added for this process alone; may hold secrets.
    pub env: Vec<(String, SecretString)>,
    /// User to run as; `None` is the container's own.
    pub user: Option<String>,
    /// Whether standard input is attached.
    pub stdin: bool,
}

impl fmt::Debug for ExecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSpec")
            .field("argv", &self.argv)
            .field(
                "env",
                &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .field("user", &self.user)
            .field("stdin", &self.stdin)
            .finish()
    }
}

/// A piece of output of an exec'd process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
}

/// An exec that was started and is attached.
pub struct ExecSession {
    /// Id for [`ContainerRuntime::exec_status`].
    pub exec_id: String,
    /// Output; its clean end proves nothing until the exit code was read.
    pub output: Pin<Box<dyn Stream<Item = Result<Frame, RuntimeError>> + Send>>,
    /// Input, when asked for; `shutdown()` half-closes, dropping does not.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
}

/// State of an exec'd process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecStatus {
    /// Still running.
    pub running: bool,
    /// Exit code once it ended; 126/127 for a missing program, 137 for a killed container.
    pub exit_code: Option<i64>,
}

/// A file to place in a container, owned by root unless `uid`/`gid` say otherwise.
#[derive(Debug, Clone)]
pub struct PutFile {
    /// Absolute directory that exists in the container.
    pub directory: String,
    /// File name in it.
    pub name: String,
    /// Size in bytes; the reader must give exactly as many.
    pub size: u64,
    /// Mode bits, for example 0o600.
    pub mode: u32,
}

/// What pgstow needs of a container engine, and no more.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + fmt::Debug {
    /// Name, version and endpoint for messages, for example
    /// `Docker 20.10.24 at unix:///var/run/docker.sock`.
    fn describe(&self) -> String;
    /// Whether the engine is reached by a socket of this host, so that its containers' addresses and
    /// ports are this host's.
    fn is_local(&self) -> bool {
        false
    }
    /// Running (and paused) containers.
    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError>;
    /// One container by full id, id prefix or name; [`RuntimeError::NotFound`] when it is gone.
    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError>;
    /// Starts a process in a container and attaches to it.
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError>;
    /// State of an exec'd process; the only place where the exit code exists.
    async fn exec_status(&self, exec_id: &str) -> Result<ExecStatus, RuntimeError>;
    /// Places one file in a container, streaming.
    async fn put_file(
        &self,
        container: &str,
        file: &PutFile,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), RuntimeError>;
    /// A path of a container as a tar stream; its end is as trustworthy as tar's own end marker.
    async fn get_tar(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, RuntimeError>;
    /// An image, when it is there; nothing is pulled.
    async fn image(&self, image: &str) -> Result<Option<ImageDetails>, RuntimeError> {
        let _ = image;
        Err(cannot("look at an image"))
    }
    /// Makes a container of pgstow's own, which does not run yet, and returns its full id.
    async fn create(&self, wanted: &PrivateContainer) -> Result<String, RuntimeError> {
        let _ = wanted;
        Err(cannot("make a container"))
    }
    /// Attaches to the standard streams of a container; before it is started, so that nothing is
    /// missed.
    async fn attach(&self, container: &str) -> Result<Attached, RuntimeError> {
        let _ = container;
        Err(cannot("attach to a container"))
    }
    /// Starts a container that was made.
    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        let _ = container;
        Err(cannot("start a container"))
    }
    /// Ends and removes a container with its anonymous volumes; one that is gone already, or on its
    /// way, is no error.
    async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        let _ = container;
        Err(cannot("remove a container"))
    }
    /// Containers that carry a label, running or not.
    async fn labelled(&self, label: &str) -> Result<Vec<LabelledContainer>, RuntimeError> {
        let _ = label;
        Err(cannot("list containers by label"))
    }
}

/// What a runtime says that has no containers of its own (those of most tests).
fn cannot(operation: &'static str) -> RuntimeError {
    RuntimeError::Refused {
        operation,
        message: "this runtime makes no containers".to_owned(),
    }
}

/// What goes wrong between pgstow and the container engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No endpoint answers, or it refuses us.
    #[error("no container engine answers; tried {}", tried.join(", "))]
    Unavailable {
        /// Endpoints that were tried, each with its result.
        tried: Vec<String>,
    },
    /// The container does not exist (any more).
    #[error("there is no container {container:?}")]
    NotFound {
        /// Name or id that was asked for.
        container: String,
    },
    /// The engine answered with an error.
    #[error("the container engine refused to {operation}: {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The engine's own words.
        message: String,
    },
    /// The connection to the engine broke.
    #[error("the connection to the container engine broke during {operation}: {message}")]
    Broken {
        /// What was tried.
        operation: &'static str,
        /// What was seen.
        message: String,
    },
    /// The output stream was torn inside a frame, or carried bytes that are no frame.
    #[error("the output stream of the container engine is damaged: {message}")]
    TornStream {
        /// What was seen.
        message: String,
    },
}

impl RuntimeError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => codes::RUNTIME_UNAVAILABLE,
            Self::NotFound { .. } => codes::CONTAINER_NOT_FOUND,
            Self::Refused { .. } | Self::Broken { .. } | Self::TornStream { .. } => {
                codes::RUNTIME_FAILED
            }
        }
    }
}
