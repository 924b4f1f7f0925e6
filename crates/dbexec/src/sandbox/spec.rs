//! What a throw-away server is to be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::executor::HostPrograms;
use crate::runtime::ContainerRuntime;

/// Database that the executor of a sandbox logs in to: `postgres` is free to be restored.
pub const SANDBOX_DATABASE: &str = "pgstow_sandbox";

/// Free space below which a server is stopped, KiB: what else lives on the disk must not suffer.
pub(crate) const FLOOR_KIB: u64 = 512 * 1024;

/// Where a throw-away server runs.
#[derive(Clone)]
pub enum SandboxPlace {
    /// In a container of an image that is there already; nothing is pulled.
    Image {
        /// The engine.
        runtime: Arc<dyn ContainerRuntime>,
        /// Reference or digest (`sha256:…`).
        image: String,
    },
    /// With server programs of this host. Memory and processors are not limited there; where pgstow
    /// runs as root, the server runs as the user `postgres`.
    Host {
        /// Where they are looked for; of the major that is wanted, no newer one.
        programs: HostPrograms,
    },
}

impl fmt::Debug for SandboxPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { image, .. } => f.debug_struct("Image").field("image", image).finish(),
            Self::Host { programs } => f.debug_struct("Host").field("programs", programs).finish(),
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Where.
    pub place: SandboxPlace,
    /// Major version of the server; another one is not taken.
    pub major: u32,
    /// Id of the run; letters, digits and `-`.
    pub run_id: String,
    /// Parameters of the source that the restored databases need, for example
    /// `shared_preload_libraries`. Those that concern files, addresses and the log are not taken
    /// over.
    pub settings: BTreeMap<String, String>,
    /// Environment of the source; `LANG` and `LC_…` alone are taken over.
    pub env: Vec<(String, String)>,
    /// Superuser; the same as the source's where possible, as much belongs to it.
    pub superuser: String,
    /// Memory of the container, bytes; also what the server's buffers are sized by.
    pub memory_bytes: u64,
    /// Share of processors.
    pub cpus: f64,
    /// Bytes that have to be free where it works.
    pub disk_bytes: u64,
    /// How long the start may take in all.
    pub start_timeout: Duration,
}
