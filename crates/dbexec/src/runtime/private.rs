//! Containers of pgstow's own: what is asked of an engine for a throw-away server or a sidecar.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;

use futures_util::Stream;
use tokio::io::AsyncWrite;

use super::types::{Frame, RuntimeError};

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDetails {
    /// Content digest (`sha256:…`).
    pub digest: String,
    /// User that its containers run as; empty is root.
    pub user: String,
}

/// Network of a container of pgstow's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateNetwork {
    /// None at all.
    None,
    /// That of another container, by its full id.
    Of(String),
}

/// A directory of the engine's machine that a container sees too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Absolute path on the engine's machine; it has to be there, the engine makes none.
    pub from: PathBuf,
    /// Absolute path in the container.
    pub to: String,
}

/// A container to make: without capabilities, mounts that are not named here or a log that is
/// kept, removed with its volumes when it ends. Its program has a standard input that ends when
/// whoever is attached to it goes away, however that happens.
#[derive(Debug, Clone, PartialEq)]
pub struct PrivateContainer {
    /// Name.
    pub name: String,
    /// Image reference or digest; it has to be there, nothing is pulled.
    pub image: String,
    /// User to run as, by name or number.
    pub user: String,
    /// Program and arguments; takes the place of the image's entry point and command.
    pub argv: Vec<String>,
    /// Environment beside that of the image; holds no secret.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Network.
    pub network: PrivateNetwork,
    /// The only mount.
    pub bind: Option<BindMount>,
    /// Whether nothing but the mount and a `/tmp` in memory can be written.
    pub read_only: bool,
    /// Most memory, bytes; there is no swap beside it. `None` is no limit.
    pub memory_bytes: Option<u64>,
    /// Share of processors: 1.5 is one and a half; `None` is all.
    pub cpus: Option<f64>,
    /// Most processes.
    pub processes: u32,
    /// Size of `/dev/shm`, bytes; what is used of it counts as memory. `None` is the engine's own.
    pub shared_memory_bytes: Option<u64>,
}

/// The streams of a program that pgstow is attached to.
pub struct Attached {
    /// Its output until it ends.
    pub output: Pin<Box<dyn Stream<Item = Result<Frame, RuntimeError>> + Send>>,
    /// Its input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// A container with a label that was asked for, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledContainer {
    /// Full id.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs.
    pub running: bool,
}
