//! Opening a sidecar: made, proved to share files and the server with us, or refused with a reason.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::executor::{Shared, SidecarPgExecutor};
use super::line::{LifeLine, SCRIPT, SCRIPT_NAME};
use super::spool::{self, MOUNTED, Spool};
use crate::causes::in_words;
use crate::context::{ContainerIdentity, DbContext, DbMode, SeenPrograms};
use crate::executor::{ConnectionSettings, DockerPgExecutor, ExecError, PgExecutor, PgProgram};
use crate::query;
use crate::runtime::{
    BindMount, ContainerRuntime, ContainerState, PrivateContainer, PrivateNetwork, RuntimeError,
};
use crate::sandbox::container::{self, Boxed};
use crate::sandbox::{SandboxError, owner};

/// Label of every sidecar; its value is the id of the run.
const SIDECAR_LABEL: &str = "pgstow.sidecar";
/// Most processes: jobs of pg_dump and pg_restore, and room.
const PROCESSES: u32 = 512;
/// How long the container may take to run.
const START_WAIT: Duration = Duration::from_secs(30);
/// How long a few bytes may take through the spool.
const PROOF_WAIT: Duration = Duration::from_secs(10);
/// Hands a file back through a FIFO: both are seen on both sides, or it fails.
const PROVE: &str = r#"cat -- "$1" >"$2""#;

/// Why there is no sidecar; the server's own container serves then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sidecar: {reason}")]
pub struct NoSidecar {
    /// In words.
    pub reason: String,
}

impl NoSidecar {
    /// For a reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Starts a sidecar for the server of an executor that runs programs in the server's container.
///
/// `scratch_root` is a private directory on a real disk, for the spool. Letting the future go does
/// not leave a container behind.
///
/// # Errors
/// Why there is none; nothing of it is left then.
pub async fn open_sidecar(
    executor: &Arc<dyn PgExecutor>,
    runtime: &Arc<dyn ContainerRuntime>,
    scratch_root: &Path,
    run_id: &str,
) -> Result<SidecarPgExecutor, NoSidecar> {
    let opening = Opening {
        executor: Arc::clone(executor),
        runtime: Arc::clone(runtime),
        scratch_root: scratch_root.to_owned(),
        run_id: run_id.to_owned(),
    };
    // A task of its own: it goes on to where it can clean up when nobody waits for it any more.
    match tokio::spawn(opening.run()).await {
        Ok(opened) => opened,
        Err(error) => Err(NoSidecar::new(format!("opening it failed: {error}"))),
    }
}

/// Removes sidecars, and their spools below `scratch_root`, whose owner was killed. Returns how
/// many containers and directories there were.
///
/// # Errors
/// When the engine cannot be asked. What cannot be removed is left for the next time.
pub async fn reap_sidecars(
    runtime: &dyn ContainerRuntime,
    scratch_root: &Path,
) -> Result<u32, RuntimeError> {
    let containers = owner::reap(runtime, SIDECAR_LABEL).await?;
    let spools = spool::reap(scratch_root).unwrap_or_else(|error| {
        tracing::warn!(path = %scratch_root.display(), %error, "leftovers cannot be listed");
        0
    });
    Ok(containers + spools)
}

struct Opening {
    executor: Arc<dyn PgExecutor>,
    runtime: Arc<dyn ContainerRuntime>,
    scratch_root: PathBuf,
    run_id: String,
}

/// A container that runs.
struct Running {
    container: Boxed,
    line: LifeLine,
}

impl Opening {
    async fn run(self) -> Result<SidecarPgExecutor, NoSidecar> {
        let context = self.executor.context().clone();
        let settings = self.executor.settings().clone();
        let Some(identity) = context
            .container
            .clone()
            .filter(|_| context.mode == DbMode::InContainer)
        else {
            return Err(NoSidecar::new("the server runs in no container"));
        };
        let server =
            DockerPgExecutor::new(context.clone(), Arc::clone(&self.runtime), settings.clone())
                .map_err(|error| no("the server's container", &error))?;
        server
            .check_running()
            .await
            .map_err(|error| no("the server's container", &error))?;
        let spool = Spool::create(&self.scratch_root).map_err(|error| {
            let place = self.scratch_root.display();
            NoSidecar::new(format!("no spool can be made in {place}: {error}"))
        })?;
        let mut running = self.start(&identity, &spool).await?;
        let shared = Shared {
            server,
            spool,
            name: running.container.identity.name.clone(),
        };
        match self.prove(&context, &settings, &shared, &mut running).await {
            Ok(programs) => Ok(SidecarPgExecutor {
                shared: Arc::new(shared),
                beside: self.executor,
                programs,
                held: Mutex::new(Some(running.line)),
                container: running.container,
            }),
            Err(why) => {
                running.line.end().await;
                if let Err(left) = running.container.gone().await {
                    tracing::warn!(%left, "after a sidecar that could not be used");
                }
                Err(why)
            }
        }
    }

    async fn start(&self, server: &ContainerIdentity, spool: &Spool) -> Result<Running, NoSidecar> {
        let image = self.runtime.image(&server.image_digest).await;
        let image = image.map_err(|error| no("the engine", &error))?;
        let Some(image) = image else {
            return Err(NoSidecar::new(
                "the image of the server's container is gone",
            ));
        };
        let me = rustix::process::geteuid();
        let user = match image.user.as_str() {
            // What programs write belongs to us, and we need no rights to read it.
            _ if !me.is_root() => {
                format!("{}:{}", me.as_raw(), rustix::process::getegid().as_raw())
            }
            "" | "root" | "0" | "root:root" | "0:0" => "postgres".to_owned(),
            user => user.to_owned(),
        };
        let script = ["sh", "-c", SCRIPT, SCRIPT_NAME, MOUNTED].map(str::to_owned);
        let wanted = PrivateContainer {
            name: container::unique_name(SCRIPT_NAME, &self.run_id),
            // By content: the same programs as the server's.
            image: image.digest,
            user,
            argv: script.into(),
            env: Vec::new(),
            labels: owner::labels(SIDECAR_LABEL, &self.run_id),
            network: PrivateNetwork::Of(server.id.clone()),
            bind: Some(BindMount {
                from: spool.work(),
                to: MOUNTED.to_owned(),
            }),
            read_only: true,
            // pg_dump's needs grow with the number of tables.
            memory_bytes: None,
            cpus: None,
            processes: PROCESSES,
            shared_memory_bytes: None,
        };
        let launched = container::launch(&self.runtime, &server.image, wanted).await;
        let (container, line) = launched.map_err(|error| explain(&error))?;
        Ok(Running {
            container,
            line: LifeLine::start(line),
        })
    }

    /// Proves that files are shared, that the programs are there, and that the server is ours.
    async fn prove(
        &self,
        context: &DbContext,
        settings: &ConnectionSettings,
        shared: &Shared,
        running: &mut Running,
    ) -> Result<DockerPgExecutor, NoSidecar> {
        let ready = tokio::time::timeout(START_WAIT, running.line.ready()).await;
        let (user, group) = match ready {
            Ok(Ok(ids)) => ids,
            Ok(Err(words)) => return Err(NoSidecar::new(format!("its container ended: {words}"))),
            Err(_) => {
                let seconds = START_WAIT.as_secs();
                return Err(NoSidecar::new(format!(
                    "its container did not run within {seconds} s"
                )));
            }
        };
        shared.spool.give_to(user, group);
        let bind = |host: String| {
            let mut context = context.clone();
            context.container = Some(running.container.identity.clone());
            context.creds.host = Some(host);
            // Those of its image: the server's container may have others mounted.
            context.programs = SeenPrograms::default();
            DockerPgExecutor::new(context, Arc::clone(&self.runtime), settings.clone())
                .map_err(|error| no("its container", &error))
        };
        share_files(&bind("127.0.0.1".to_owned())?, &shared.spool).await?;
        let mut reasons = Vec::new();
        for host in self.hosts(context).await {
            let programs = bind(host.clone())?;
            programs
                .program(PgProgram::PgDump)
                .await
                .map_err(|error| no("its image", &error))?;
            match self.same_server(context, &programs).await {
                Ok(()) => return Ok(programs),
                Err(error) => reasons.push(in_words(&error)),
            }
        }
        reasons.dedup();
        Err(NoSidecar::new(format!(
            "the server cannot be reached from its network: {}",
            reasons.join("; ")
        )))
    }

    /// Where the server may listen, as its own network sees it. Its socket's directory is not
    /// shared.
    async fn hosts(&self, context: &DbContext) -> Vec<String> {
        let host = context.creds.host.clone();
        let mut hosts: Vec<String> = host
            .into_iter()
            .filter(|host| !host.is_empty() && !host.starts_with(['/', '@']))
            .collect();
        hosts.push("127.0.0.1".to_owned());
        if let Some(container) = &context.container
            && let Ok(details) = self.runtime.inspect(&container.id).await
            && details.state == ContainerState::Running
        {
            hosts.extend(details.addresses);
        }
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        hosts
    }

    /// Whether the server that answers in the sidecar is the one that answers beside it.
    async fn same_server(
        &self,
        context: &DbContext,
        programs: &DockerPgExecutor,
    ) -> Result<(), ExecError> {
        let database = &context.creds.database;
        let found = query::server_identity(programs, database).await?;
        let expected = query::server_identity(self.executor.as_ref(), database).await?;
        let name = |server: &crate::ServerIdentity| {
            let identifier = server.system_identifier.as_deref();
            let identifier = identifier.unwrap_or("(not readable)");
            let running = server.running.as_ref();
            let started = running.map_or("(unknown)", |running| running.started.as_str());
            format!("{identifier}, started {started} microseconds after 1970")
        };
        let known = context.server.system_identifier.is_none()
            || context.server.system_identifier == found.system_identifier;
        if known && found == expected {
            return Ok(());
        }
        Err(ExecError::ServerChanged {
            target: context.target_name(),
            expected: name(&expected),
            found: name(&found),
        })
    }
}

/// Proves that the container and this process see the same files and FIFOs: the engine may be on
/// another machine, or in a virtual one.
async fn share_files(programs: &DockerPgExecutor, spool: &Spool) -> Result<(), NoSidecar> {
    let local =
        |error: std::io::Error| NoSidecar::new(format!("the spool cannot be written: {error}"));
    let token = format!("{:032x}", rand::random::<u128>());
    let (file, file_here) = spool.file(token.as_bytes()).map_err(local)?;
    let mut fifo = spool.fifo().map_err(local)?;
    let mut pipe = fifo.reader().map_err(local)?;
    let fifo_path = fifo.inside.clone();
    let mut answer = vec![0; token.len()];
    let both = async {
        // The script's failure tells why; its success alone proves nothing.
        let args = [file.as_str(), fifo_path.as_str()];
        let ran = programs.run_script(PROVE, &args).await;
        ran.map_err(|error| in_words(&error))?;
        let read = pipe.read_exact(&mut answer).await;
        read.map_err(|error| error.to_string())
    };
    let proof = tokio::time::timeout(PROOF_WAIT, both).await;
    // It goes with the spool otherwise.
    let _ = std::fs::remove_file(file_here);
    let why = match proof {
        Ok(Ok(_)) if answer == token.as_bytes() => return Ok(()),
        Ok(Ok(_)) => "other bytes came back".to_owned(),
        Ok(Err(words)) => words,
        Err(_) => format!("nothing came back within {} s", PROOF_WAIT.as_secs()),
    };
    Err(NoSidecar::new(format!(
        "the engine does not share files with this process: {why}"
    )))
}

/// Reasons of a container that could not be started, in a sidecar's words.
fn explain(error: &SandboxError) -> NoSidecar {
    match error {
        SandboxError::NoShell { image } => {
            NoSidecar::new(format!("image {image} has no shell (sh) to hold it with"))
        }
        SandboxError::NoUser { reason } => {
            NoSidecar::new(format!("image {reason} has no user to run its programs as"))
        }
        error => no("its container", error),
    }
}

fn no(what: &str, error: &dyn std::error::Error) -> NoSidecar {
    NoSidecar::new(format!("{what}: {}", in_words(error)))
}
