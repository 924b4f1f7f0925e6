//! A throw-away server from its start to its end.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::SandboxError;
use super::container::{self, Boxed};
use super::host::{self, Hosted};
use super::keeper::{Keeper, SCRIPT, SCRIPT_NAME, State};
use super::settings;
use super::spec::{FLOOR_KIB, SANDBOX_DATABASE, SandboxPlace, SandboxSpec};
use crate::context::{CredentialSource, DbContext, DbMode, FieldSources, ServerIdentity};
use crate::creds::{DbCreds, TlsOptions};
use crate::executor::{
    ConnectionSettings, DockerPgExecutor, ExecError, HostPgExecutor, PgExecutor,
};
use crate::query;
use crate::trail::Trail;

/// A server that is thrown away. Dropping it lets it end and remove itself;
/// [`Sandbox::remove`] also waits and tells when something stays behind.
pub struct Sandbox {
    executor: Arc<dyn PgExecutor>,
    keeper: Keeper,
    held: Held,
    description: String,
    image_digest: Option<String>,
}

/// Where it runs.
enum Held {
    Box(Boxed),
    Host(Hosted),
}

impl Held {
    async fn gone(self) -> Result<(), SandboxError> {
        match self {
            Self::Box(boxed) => boxed.gone().await,
            Self::Host(hosted) => hosted.gone().await,
        }
    }
}

impl Sandbox {
    /// Starts a server with an empty cluster in UTF-8 and locale C, whose databases are
    /// [`SANDBOX_DATABASE`], `template1` and `template0`.
    ///
    /// # Errors
    /// Why there is none; nothing of it is left then. A cancelled start is
    /// [`SandboxError::Interrupted`].
    pub async fn start(
        spec: &SandboxSpec,
        cancel: &CancellationToken,
    ) -> Result<Self, SandboxError> {
        let (held, line) = match &spec.place {
            SandboxPlace::Image { runtime, image } => {
                let script = script(spec, None);
                let (boxed, line) = container::start(spec, runtime, image, script).await?;
                (Held::Box(boxed), line)
            }
            SandboxPlace::Host { programs } => {
                let script = script(spec, Some(programs));
                let (hosted, line) = host::start(spec, programs, script).await?;
                (Held::Host(hosted), line)
            }
        };
        let mut keeper = Keeper::start(line);
        let mut held = held;
        let ready = async {
            let state = keeper.settled().await;
            let State::Ready {
                socket,
                programs,
                directory,
            } = state
            else {
                return Err(Cause::State(state));
            };
            if let Held::Host(hosted) = &mut held {
                hosted.directory = Some(PathBuf::from(directory));
            }
            let executor = prepare(spec, &held, socket).await.map_err(Cause::Server)?;
            Ok((executor, programs))
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cause::Interrupted),
            outcome = tokio::time::timeout(spec.start_timeout, ready) => {
                outcome.unwrap_or(Err(Cause::TooSlow))
            }
        };
        match outcome {
            Ok((executor, programs)) => {
                let version = &executor.context().server.version;
                let (description, image_digest) = match &held {
                    Held::Box(boxed) => (
                        format!(
                            "a throw-away container of {} (PostgreSQL {version})",
                            boxed.identity.image
                        ),
                        Some(boxed.identity.image_digest.clone()),
                    ),
                    Held::Host(_) => (
                        format!(
                            "a throw-away server of this host's {programs} (PostgreSQL {version})"
                        ),
                        None,
                    ),
                };
                Ok(Self {
                    executor,
                    keeper,
                    held,
                    description,
                    image_digest,
                })
            }
            Err(cause) => {
                let log = keeper.log_handle();
                keeper.end().await;
                if let Err(left) = held.gone().await {
                    tracing::warn!(%left, "after a failed start");
                }
                Err(cause.explain(spec, log.lines()))
            }
        }
    }

    /// Runs programs on the server, as its superuser.
    #[must_use]
    pub fn executor(&self) -> Arc<dyn PgExecutor> {
        Arc::clone(&self.executor)
    }

    /// Where it runs, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.description.clone()
    }

    /// Content digest of the image, where it runs in a container.
    #[must_use]
    pub fn image_digest(&self) -> Option<&str> {
        self.image_digest.as_deref()
    }

    /// The last lines of the server's log, bounded; rows of a user's tables may stand in them.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.keeper.log()
    }

    /// Why the server is there no more, when it ended by itself or was stopped because the disk was
    /// nearly full; a failure on it then says nothing about a backup.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        match self.keeper.state() {
            State::Starting | State::Ready { .. } => None,
            State::Ended => Some("its container or its script was ended from outside".to_owned()),
            State::Refused(words) => Some(match words.first().map(String::as_str) {
                Some("full") => {
                    "it was stopped because the disk was nearly full; what else lives there comes \
                     first"
                        .to_owned()
                }
                _ => "the server ended by itself".to_owned(),
            }),
        }
    }

    /// Ends the server and removes all of it.
    ///
    /// # Errors
    /// [`SandboxError::NotRemoved`] with what stayed behind.
    pub async fn remove(self) -> Result<(), SandboxError> {
        self.keeper.end().await;
        self.held.gone().await
    }
}

/// Arguments of the shell.
fn script(spec: &SandboxSpec, programs: Option<&crate::executor::HostPrograms>) -> Vec<String> {
    let text = |path: &PathBuf| path.display().to_string();
    let place = programs.map_or_else(String::new, |host| text(&host.scratch_root));
    let bin_dir = programs
        .and_then(|host| host.bin_dir.as_ref())
        .map_or_else(String::new, text);
    let mut words = vec!["-c".to_owned(), SCRIPT.to_owned(), SCRIPT_NAME.to_owned()];
    words.extend([
        spec.major.to_string(),
        first_name(&spec.superuser).to_owned(),
        spec.disk_bytes.div_ceil(1024).max(FLOOR_KIB).to_string(),
        FLOOR_KIB.to_string(),
        spec.start_timeout.as_secs().max(1).to_string(),
        place,
        bin_dir,
    ]);
    words.extend(settings::arguments(&spec.settings, spec.memory_bytes));
    words
}

/// The name that initdb gives the superuser: it refuses what must be quoted, so a server whose
/// superuser has such a name got it later, and so does this one.
fn first_name(superuser: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !superuser.is_empty() && superuser.chars().all(is_plain) {
        superuser
    } else {
        "postgres"
    }
}

/// Frees the name `postgres` and asks the server who it is.
async fn prepare(
    spec: &SandboxSpec,
    held: &Held,
    socket: String,
) -> Result<Arc<dyn PgExecutor>, ExecError> {
    let unknown = ServerIdentity {
        version_num: spec.major * 10_000,
        version: spec.major.to_string(),
        system_identifier: None,
        in_recovery: false,
        is_superuser: true,
        running: None,
    };
    let mut context = context(spec, held, socket, unknown);
    let run = async |user: &str, script: &str| {
        let mut context = context.clone();
        user.clone_into(&mut context.creds.user);
        let name = "names of a throw-away server";
        let vars = [("name", spec.superuser.as_str())];
        let executor = executor(spec, held, context)?;
        query::execute(executor.as_ref(), "template1", name, script, &vars, false).await
    };
    let made_as = first_name(&spec.superuser);
    let rename = format!("alter database postgres rename to {SANDBOX_DATABASE};");
    run(made_as, &rename).await?;
    if made_as != spec.superuser {
        // Nobody renames the role of the own session.
        let helper = "pgstow_renames";
        run(made_as, &format!("create role {helper} login superuser;")).await?;
        run(
            helper,
            &format!("alter role {made_as} rename to :\"name\";"),
        )
        .await?;
        run(&spec.superuser, &format!("drop role {helper};")).await?;
    }
    let first = executor(spec, held, context.clone())?;
    context.server = query::server_identity(first.as_ref(), SANDBOX_DATABASE).await?;
    executor(spec, held, context)
}

fn context(spec: &SandboxSpec, held: &Held, socket: String, server: ServerIdentity) -> DbContext {
    DbContext {
        mode: match held {
            Held::Box(_) => DbMode::InContainer,
            Held::Host(_) => DbMode::External,
        },
        creds: DbCreds {
            host: Some(socket),
            port: 5432,
            database: SANDBOX_DATABASE.to_owned(),
            user: spec.superuser.clone(),
            password: None,
            tls: TlsOptions::default(),
        },
        source: CredentialSource::Explicit,
        field_sources: FieldSources::default(),
        container: match held {
            Held::Box(boxed) => Some(boxed.identity.clone()),
            Held::Host(_) => None,
        },
        server,
        trail: Trail::default(),
        programs: crate::SeenPrograms::default(),
    }
}

fn executor(
    spec: &SandboxSpec,
    held: &Held,
    context: DbContext,
) -> Result<Arc<dyn PgExecutor>, ExecError> {
    let settings = ConnectionSettings::new(&spec.run_id);
    Ok(match held {
        Held::Box(boxed) => Arc::new(DockerPgExecutor::new(
            context,
            Arc::clone(&boxed.runtime),
            settings,
        )?),
        Held::Host(hosted) => Arc::new(HostPgExecutor::new(
            context,
            hosted.programs.clone(),
            settings,
        )),
    })
}

/// Why a start ended, before its log is read.
enum Cause {
    State(State),
    Server(ExecError),
    TooSlow,
    Interrupted,
}

impl Cause {
    fn explain(self, spec: &SandboxSpec, log: Vec<String>) -> SandboxError {
        let place = match &spec.place {
            SandboxPlace::Image { image, .. } => format!("image {image}"),
            SandboxPlace::Host { .. } => "this host".to_owned(),
        };
        let too_slow = |log| SandboxError::TooSlow {
            waited: spec.start_timeout,
            log,
        };
        let words = match self {
            Self::Interrupted => return SandboxError::Interrupted,
            Self::TooSlow => return too_slow(log),
            Self::Server(source) => return SandboxError::Server { source },
            Self::State(State::Refused(words)) => words,
            Self::State(_) => vec!["failed".to_owned(), "script".to_owned()],
        };
        let bytes = |kib: &str| kib.parse::<u64>().unwrap_or(0).saturating_mul(1024);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["missing"] => SandboxError::ProgramsMissing {
                place,
                major: spec.major,
            },
            ["noplace"] => SandboxError::NoPlace { place },
            ["space", needed, free, directory] => SandboxError::NoSpace {
                place,
                directory: directory.to_owned(),
                needed: bytes(needed),
                free: bytes(free),
            },
            ["failed", "timeout"] => too_slow(log),
            ["failed", step] => SandboxError::NotStarted {
                step: step.to_owned(),
                log,
            },
            _ => SandboxError::NotStarted {
                step: words.join(" "),
                log,
            },
        }
    }
}
