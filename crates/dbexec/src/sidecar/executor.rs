//! The executor that runs client programs in a sidecar.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::line::LifeLine;
use super::pipe::{Judge, Output, Piped};
use super::spool::Spool;
use crate::context::DbContext;
use crate::executor::{
    ConnectionSettings, DockerPgExecutor, ExecError, Invocation, PgExecutor, PgProgram,
    ProgramInfo, ReapReport, RunningProgram, ScratchDir, Transport,
};
use crate::native::{NativeRoute, NoRoute};
use crate::sandbox::SandboxError;
use crate::sandbox::container::Boxed;

/// Runs client programs in a short-lived container in the server's network.
///
/// Dropping it lets the container and the spool go; [`SidecarPgExecutor::close`] also waits and
/// tells when something stays behind.
pub struct SidecarPgExecutor {
    pub(crate) shared: Arc<Shared>,
    /// Runs programs in the server's own container.
    pub(crate) beside: Arc<dyn PgExecutor>,
    /// Runs programs in the sidecar.
    pub(crate) programs: DockerPgExecutor,
    pub(crate) held: Mutex<Option<LifeLine>>,
    pub(crate) container: Boxed,
}

/// What running programs need too.
pub(crate) struct Shared {
    /// Bound to the server's container by its id.
    pub(crate) server: DockerPgExecutor,
    pub(crate) spool: Spool,
    /// Name of the sidecar's container.
    pub(crate) name: String,
}

#[async_trait]
impl Judge for Shared {
    /// The network of the sidecar is nobody's then: a new container of that name is another
    /// server.
    async fn server_gone(&self) -> Option<ExecError> {
        match self.server.check_running().await {
            Err(gone @ ExecError::ContainerChanged { .. }) => Some(gone),
            // That the engine does not answer says nothing about the server.
            Err(_) | Ok(()) => None,
        }
    }

    async fn explain(&self, error: ExecError) -> ExecError {
        if let Some(gone) = self.server_gone().await {
            return gone;
        }
        match error {
            ExecError::ContainerChanged { name, found, .. } if name == self.name => {
                ExecError::SidecarLost { name, found }
            }
            error => error,
        }
    }
}

impl SidecarPgExecutor {
    /// Name of the container.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Ends and removes the container and the spool. Programs that still run are ended.
    ///
    /// # Errors
    /// [`SandboxError::NotRemoved`] with what stayed behind.
    pub async fn close(&self) -> Result<(), SandboxError> {
        let line = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(line) = line {
            line.end().await;
        }
        let gone = self.container.gone().await;
        self.shared
            .spool
            .remove()
            .map_err(|error| SandboxError::NotRemoved {
                what: format!("directory {}", self.shared.spool.path().display()),
                reason: error.to_string(),
            })?;
        gone
    }

    fn scratch(&self, dir: &ScratchDir) -> Result<PathBuf, ExecError> {
        let work = self.shared.spool.work();
        match &dir.local {
            Some(local) if local.parent() == Some(work.as_path()) => Ok(local.clone()),
            _ => Err(file_error(
                "finding",
                Path::new(&dir.path),
                std::io::ErrorKind::NotFound.into(),
            )),
        }
    }
}

#[async_trait]
impl PgExecutor for SidecarPgExecutor {
    fn context(&self) -> &DbContext {
        self.beside.context()
    }

    fn settings(&self) -> &ConnectionSettings {
        self.beside.settings()
    }

    fn transport(&self) -> Transport {
        Transport::Sidecar
    }

    async fn program(&self, program: PgProgram) -> Result<ProgramInfo, ExecError> {
        match self.programs.program(program).await {
            Ok(info) => Ok(info),
            Err(error) => Err(self.shared.explain(error).await),
        }
    }

    async fn start(&self, invocation: Invocation) -> Result<RunningProgram, ExecError> {
        // The shared network outlives the server's container.
        if let Some(gone) = self.shared.server_gone().await {
            return Err(gone);
        }
        let program = invocation.program;
        let output = match program {
            PgProgram::PgDump | PgProgram::PgDumpall | PgProgram::PgRestore => {
                let fifo = self.shared.spool.fifo();
                let fifo =
                    fifo.map_err(|e| file_error("making a FIFO in", self.shared.spool.path(), e))?;
                Some(fifo)
            }
            // Its answers are short, and their order beside its errors matters.
            PgProgram::Psql => None,
        };
        let into = output.as_ref().map(|fifo| fifo.inside.clone());
        let output = output
            .map(Output::new)
            .transpose()
            .map_err(|e| file_error("opening a FIFO in", self.shared.spool.path(), e))?;
        let shared = Arc::clone(&self.shared);
        let started = self
            .programs
            .start_wrapped(invocation, into, move |process| {
                Box::new(Piped::new(process, program, output, shared))
            });
        match started.await {
            Ok(running) => Ok(running),
            Err(error) => Err(self.shared.explain(error).await),
        }
    }

    async fn scratch_create(&self) -> Result<ScratchDir, ExecError> {
        let made = self.shared.spool.scratch();
        let (path, local) =
            made.map_err(|e| file_error("making a directory in", self.shared.spool.path(), e))?;
        Ok(ScratchDir {
            path,
            local: Some(local),
        })
    }

    async fn scratch_put(
        &self,
        dir: &ScratchDir,
        name: &str,
        size: u64,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError> {
        let local = self.scratch(dir)?;
        let put = self.shared.spool.put(&local, name, size, content).await;
        put.map_err(|source| file_error("writing", &local.join(name), source))
    }

    async fn scratch_tar(
        &self,
        dir: &ScratchDir,
        name: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ExecError> {
        let reason = "a scratch directory of a sidecar is read in place, not as a tar stream";
        let path = Path::new(&dir.path).join(name);
        Err(file_error(
            "archiving",
            &path,
            std::io::Error::other(reason),
        ))
    }

    async fn scratch_remove(&self, dir: &ScratchDir) -> Result<(), ExecError> {
        let local = self.scratch(dir)?;
        match std::fs::remove_dir_all(&local) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file_error("removing", &local, error))
            }
            _ => Ok(()),
        }
    }

    async fn reap(&self, application_name: &str) -> Result<ReapReport, ExecError> {
        self.beside.reap(application_name).await
    }

    async fn free_bytes(&self, directory: &str) -> Result<Option<u64>, ExecError> {
        self.beside.free_bytes(directory).await
    }

    async fn native(&self) -> Result<Arc<NativeRoute>, NoRoute> {
        self.beside.native().await
    }
}

fn file_error(operation: &'static str, path: &Path, source: std::io::Error) -> ExecError {
    ExecError::File {
        operation,
        path: path.display().to_string(),
        source,
    }
}
