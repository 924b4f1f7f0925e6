//! Programs inside the server's container, through the engine's exec.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::OnceCell;

use super::drive::{Plan, Process, launch};
use super::environment::{CLEARED, variables};
use super::programs::{Installation, VERSIONED_DIRS, choose, parse_installation};
use super::scripts;
use super::sessions;
use super::space;
use super::stderr::StderrLog;
use super::types::{
    ConnectionSettings, Input, Invocation, PgExecutor, PgProgram, ProgramInfo, ReapReport,
    RunningProgram, ScratchDir, Transport,
};
use crate::context::DbContext;
use crate::executor::{ExecError, ProgramExit};
use crate::native::{NativeRoute, NoRoute, find};
use crate::runtime::{
    ContainerRuntime, ContainerState, ExecSession, ExecSpec, Frame, PutFile, RuntimeError,
};

/// How long the exit status may be late after the streams ended.
const EXIT_WAIT: Duration = Duration::from_secs(10);
/// How long ending a program may take in all.
const TERMINATE_WAIT: Duration = Duration::from_secs(5);
/// Marks the in-container process id on standard error.
const PID_MARK: &str = "pgstow-pid ";

/// Runs programs in one container, bound to its full id.
pub struct DockerPgExecutor {
    inner: Arc<Inner>,
}

struct Inner {
    context: DbContext,
    id: String,
    name: String,
    runtime: Arc<dyn ContainerRuntime>,
    settings: ConnectionSettings,
    programs: OnceCell<Programs>,
    native: OnceCell<Arc<NativeRoute>>,
}

/// What the search for programs found.
struct Programs {
    shell: bool,
    found: Vec<Installation>,
}

impl DockerPgExecutor {
    /// Binds to the container of a context. The context's server may still be unknown (version 0)
    /// while discovery tests credentials; then only psql can be run.
    ///
    /// # Errors
    /// When the context names no container.
    pub fn new(
        context: DbContext,
        runtime: Arc<dyn ContainerRuntime>,
        settings: ConnectionSettings,
    ) -> Result<Self, ExecError> {
        let Some(container) = &context.container else {
            return Err(ExecError::ContainerChanged {
                name: "(none)".to_owned(),
                id: String::new(),
                found: "the context names no container".to_owned(),
            });
        };
        let (id, name) = (container.id.clone(), container.name.clone());
        let seen = context.programs.0.clone();
        let programs = OnceCell::new_with(seen.map(|found| Programs { shell: true, found }));
        let native = OnceCell::new();
        Ok(Self {
            inner: Arc::new(Inner {
                context,
                id,
                name,
                runtime,
                settings,
                programs,
                native,
            }),
        })
    }

    /// Whether the container that was discovered is there and runs.
    ///
    /// # Errors
    /// [`ExecError::ContainerChanged`] with what was found instead, or the engine's failure.
    pub(crate) async fn check_running(&self) -> Result<(), ExecError> {
        match self.inner.runtime.inspect(&self.inner.id).await {
            Ok(now) if now.state == ContainerState::Running => Ok(()),
            Ok(_) | Err(RuntimeError::NotFound { .. }) => Err(self.inner.changed().await),
            Err(error) => Err(self.inner.failed("looking at the container", error)),
        }
    }

    /// Runs a constant script with positional arguments to its end and returns its output.
    pub(crate) async fn run_script(
        &self,
        script: &'static str,
        args: &[&str],
    ) -> Result<String, ExecError> {
        self.inner.script(script, args).await
    }

    /// Starts a program whose standard output goes into a FIFO of the container, where one is
    /// named; `wrap` then brings it back among the other output.
    pub(crate) async fn start_wrapped(
        &self,
        invocation: Invocation,
        into: Option<String>,
        wrap: impl FnOnce(Exec) -> Box<dyn Process>,
    ) -> Result<RunningProgram, ExecError> {
        let creds = invocation.database.as_ref().map(|database| {
            let mut creds = self.inner.context.creds.clone();
            creds.database.clone_from(database);
            creds
        });
        let wanted = Wanted {
            parameters: invocation.parameters(),
            program: invocation.program,
            args: invocation.args,
            database: invocation.database,
            stdin: matches!(invocation.input, Input::Stream(_)),
            application_name: invocation
                .application_name
                .unwrap_or_else(|| self.inner.settings.application_name.clone()),
            into,
        };
        let process = self.inner.start_process(wanted).await?;
        let plan = Plan {
            program: invocation.program,
            creds,
            input: invocation.input,
            cancel: invocation.cancel,
            stall_after: self.inner.settings.stall_after,
            on_stderr: invocation.on_stderr,
            busy: invocation.busy,
        };
        Ok(launch(wrap(process), plan))
    }
}

impl Inner {
    fn failed(&self, operation: &'static str, source: RuntimeError) -> ExecError {
        ExecError::Runtime {
            operation,
            container: self.name.clone(),
            source,
        }
    }

    /// Puts a file next to the programs, through a program of the container: it then belongs to
    /// the user that the programs run as, and memory file systems are reached too.
    async fn put_by_exec(
        &self,
        path: &str,
        size: u64,
        mut content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError> {
        let operation = "copying a file into the container";
        let argv = ["sh", "-c", scripts::PUT_FILE, "pgstow", path]
            .map(str::to_owned)
            .into();
        let spec = ExecSpec {
            argv,
            stdin: true,
            ..ExecSpec::default()
        };
        let mut session = self.exec(&spec).await?;
        let Some(mut input) = session.input.take() else {
            let message = "the engine gave no standard input".to_owned();
            return Err(self.failed(operation, RuntimeError::Refused { operation, message }));
        };
        let feed = async {
            let fed = tokio::io::copy(&mut content, &mut input).await;
            let _ = input.shutdown().await;
            fed
        };
        let (fed, output) = tokio::join!(feed, self.collect(session, operation));
        let wrong = match (fed, output?.trim().parse::<u64>()) {
            (Ok(fed), Ok(stored)) if fed == size && stored == size => return Ok(()),
            (Err(error), _) => error.to_string(),
            (Ok(fed), stored) => {
                format!("{size} bytes were announced, {fed} were sent and {stored:?} arrived")
            }
        };
        Err(self.failed(
            operation,
            RuntimeError::Broken {
                operation,
                message: wrong,
            },
        ))
    }

    /// Starts an exec; a container that is gone, stopped or replaced is told apart.
    async fn exec(&self, spec: &ExecSpec) -> Result<ExecSession, ExecError> {
        match self.runtime.exec(&self.id, spec).await {
            Ok(session) => Ok(session),
            Err(RuntimeError::NotFound { .. }) => Err(self.changed().await),
            Err(RuntimeError::Refused { message, .. }) if is_stopped(&message) => {
                Err(self.changed().await)
            }
            Err(error) => Err(self.failed("starting a program", error)),
        }
    }

    async fn changed(&self) -> ExecError {
        let found = match self.runtime.inspect(&self.name).await {
            Ok(now) if now.id == self.id => match now.state {
                ContainerState::Running => "it runs again, but did not a moment ago".to_owned(),
                ContainerState::Paused => {
                    format!("it is paused; `docker unpause {}` continues it", self.name)
                }
                _ => format!("it is not running; `docker start {}` starts it", self.name),
            },
            Ok(now) => format!("another container ({}) has its name now", short(&now.id)),
            Err(RuntimeError::NotFound { .. }) => "no container has its name".to_owned(),
            Err(error) => format!("and asking for it failed: {error}"),
        };
        let id = short(&self.id).to_owned();
        ExecError::ContainerChanged {
            name: self.name.clone(),
            id,
            found,
        }
    }

    /// Runs a constant script with positional arguments to its end and returns its output.
    async fn script(&self, script: &'static str, args: &[&str]) -> Result<String, ExecError> {
        let words = [&["sh", "-c", script, "pgstow"][..], args].concat();
        let argv = words.into_iter().map(str::to_owned).collect();
        let spec = ExecSpec {
            argv,
            ..ExecSpec::default()
        };
        self.run_to_end(&spec, "running a script").await
    }

    async fn run_to_end(
        &self,
        spec: &ExecSpec,
        operation: &'static str,
    ) -> Result<String, ExecError> {
        let session = self.exec(spec).await?;
        self.collect(session, operation).await
    }

    /// Reads a short output to its end and insists on exit status 0.
    async fn collect(
        &self,
        mut session: ExecSession,
        operation: &'static str,
    ) -> Result<String, ExecError> {
        let (mut stdout, mut stderr) = (Vec::new(), StderrLog::default());
        while let Some(frame) = session.output.next().await {
            match frame.map_err(|error| self.failed(operation, error))? {
                Frame::Stdout(piece) if stdout.len() < 1 << 20 => stdout.extend_from_slice(&piece),
                Frame::Stdout(_) => {}
                Frame::Stderr(piece) => stderr.push(&piece),
            }
        }
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        match self.exit_status(&session.exec_id, PgProgram::Psql).await? {
            None => Ok(stdout),
            Some(exit) => {
                let mut words = stderr.finish().0;
                words.extend(stdout.lines().map(str::to_owned));
                let message = format!("{exit}: {}", words.join(" | "));
                Err(self.failed(operation, RuntimeError::Refused { operation, message }))
            }
        }
    }

    /// Reads the exit status; the only proof of how a program ended.
    async fn exit_status(
        &self,
        exec_id: &str,
        program: PgProgram,
    ) -> Result<Option<ProgramExit>, ExecError> {
        let deadline = Instant::now() + EXIT_WAIT;
        let mut pause = Duration::from_millis(2);
        loop {
            let status = match self.runtime.exec_status(exec_id).await {
                Ok(status) => status,
                // The engine forgets the execs of a container that was removed.
                Err(RuntimeError::NotFound { .. }) => return Err(self.changed().await),
                Err(error) => return Err(self.failed("reading the exit status", error)),
            };
            match status.exit_code {
                Some(code) if !status.running => return Ok(judge_exit(code)),
                _ if Instant::now() > deadline => {
                    let seconds = EXIT_WAIT.as_secs();
                    let reason = format!("the engine did not tell it within {seconds} s");
                    return Err(ExecError::ExitUnknown { program, reason });
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Programs of the container, searched once.
    pub(super) async fn programs(&self) -> Result<&Programs, ExecError> {
        self.programs
            .get_or_try_init(|| async {
                match self.script(scripts::FIND_PROGRAMS, VERSIONED_DIRS).await {
                    Ok(text) => {
                        let found = text.lines().filter_map(parse_installation).collect();
                        Ok(Programs { shell: true, found })
                    }
                    Err(ExecError::Runtime {
                        source: RuntimeError::Refused { message, .. },
                        ..
                    }) if is_missing_program(&message) => Ok(Programs {
                        shell: false,
                        found: self.programs_without_shell().await?,
                    }),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Tries the usual directories one by one, where there is no shell to search with.
    async fn programs_without_shell(&self) -> Result<Vec<Installation>, ExecError> {
        let major = self.context.server.major();
        let dirs = [
            format!("/usr/lib/postgresql/{major}/bin"),
            "/usr/local/bin".to_owned(),
            "/opt/bitnami/postgresql/bin".to_owned(),
            format!("/usr/pgsql-{major}/bin"),
            "/usr/bin".to_owned(),
        ];
        for dir in dirs {
            let argv = vec![format!("{dir}/pg_dump"), "--version".to_owned()];
            let spec = ExecSpec {
                argv,
                ..ExecSpec::default()
            };
            if let Ok(version) = self.run_to_end(&spec, "asking for a version").await {
                let all = "pg_dump pg_dumpall pg_restore psql";
                let line = format!("{dir}\t{}\t{all}\t-", version.trim());
                return Ok(parse_installation(&line).into_iter().collect());
            }
        }
        Ok(Vec::new())
    }

    async fn resolve(&self, program: PgProgram) -> Result<(ProgramInfo, bool), ExecError> {
        let programs = self.programs().await?;
        let looked_in: Vec<String> = std::iter::once(format!("PATH of container {}", self.name))
            .chain(VERSIONED_DIRS.iter().map(|&dir| dir.to_owned()))
            .collect();
        let server = &self.context.server;
        let info = choose(
            &programs.found,
            program,
            server.major(),
            &server.version,
            &looked_in,
        )?;
        Ok((info, programs.shell))
    }

    /// Builds the exec of an invocation.
    async fn spec(&self, wanted: &Wanted) -> Result<ExecSpec, ExecError> {
        let connection = wanted
            .database
            .as_deref()
            .map(|name| (&self.context.creds, name));
        let settings = ConnectionSettings {
            application_name: wanted.application_name.clone(),
            ..self.settings.clone()
        };
        let mut env = variables(connection, &settings, &wanted.parameters);
        let stdin = wanted.stdin;
        // psql of any version will do for queries, so the search for programs is not waited for.
        let direct = match self.programs.get() {
            Some(programs) if !programs.shell => true,
            _ if wanted.program == PgProgram::Psql => false,
            _ => !self.programs().await?.shell,
        };
        if direct {
            let (info, _) = self.resolve(wanted.program).await?;
            let mut argv = vec![info.path];
            argv.extend(wanted.args.iter().cloned());
            // Without a shell nothing can be unset; an empty host is libpq's default.
            if connection.is_some() && !env.iter().any(|(name, _)| name == "PGHOST") {
                env.push(("PGHOST".to_owned(), SecretString::from(String::new())));
            }
            return Ok(ExecSpec {
                argv,
                env,
                user: None,
                stdin,
            });
        }
        let path = match wanted.program {
            PgProgram::Psql => "psql".to_owned(),
            program => self.resolve(program).await?.0.path,
        };
        let keep: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        let unset: Vec<&str> = CLEARED
            .iter()
            .copied()
            .filter(|name| !keep.contains(name))
            .collect();
        let mut argv = vec!["sh".to_owned(), "-c".to_owned(), scripts::LAUNCH.to_owned()];
        let into = wanted.into.clone().unwrap_or_default();
        argv.extend(["pgstow".to_owned(), unset.join(" "), into, path]);
        argv.extend(wanted.args.iter().cloned());
        Ok(ExecSpec {
            argv,
            env,
            user: None,
            stdin,
        })
    }

    async fn start_process(self: &Arc<Self>, wanted: Wanted) -> Result<Exec, ExecError> {
        let spec = self.spec(&wanted).await?;
        let session = self.exec(&spec).await?;
        let inner = Arc::clone(self);
        let (program, connects) = (wanted.program, wanted.database.is_some());
        Ok(Exec {
            inner,
            program,
            session,
            pid: None,
            connects,
            application_name: wanted.application_name,
            noise: Vec::new(),
        })
    }
}

/// An invocation without its input, which travels apart.
struct Wanted {
    program: PgProgram,
    args: Vec<String>,
    database: Option<String>,
    stdin: bool,
    application_name: String,
    /// As in [`Invocation::parameters`].
    parameters: Vec<&'static str>,
    /// FIFO of the container that takes standard output in place of the engine's stream.
    into: Option<String>,
}

/// A program in the container.
pub(crate) struct Exec {
    inner: Arc<Inner>,
    program: PgProgram,
    session: ExecSession,
    pid: Option<String>,
    /// Whether it has a session on the server.
    connects: bool,
    application_name: String,
    /// The first standard error, until the process id was read from it.
    noise: Vec<u8>,
}

#[async_trait]
impl Process for Exec {
    async fn next(&mut self) -> Result<Option<Frame>, ExecError> {
        let Some(frame) = self.session.output.next().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|error| self.inner.failed("reading the output", error))?;
        match frame {
            Frame::Stderr(piece) if self.pid.is_none() && self.noise.len() < 256 => {
                self.noise.extend_from_slice(&piece);
                Ok(Some(Frame::Stderr(self.take_pid())))
            }
            frame => Ok(Some(frame)),
        }
    }

    async fn exit(&mut self) -> Result<Option<ProgramExit>, ExecError> {
        let exit = self
            .inner
            .exit_status(&self.session.exec_id, self.program)
            .await?;
        // Did it fail alone, or with its container? The program may notice first.
        for pause in [Duration::ZERO, Duration::from_millis(250)] {
            if exit.is_none() {
                break;
            }
            tokio::time::sleep(pause).await;
            let gone = match self.inner.runtime.inspect(&self.inner.id).await {
                Ok(now) => now.state == ContainerState::NotRunning,
                Err(RuntimeError::NotFound { .. }) => true,
                Err(_) => false,
            };
            if gone {
                return Err(self.inner.changed().await);
            }
        }
        Ok(exit)
    }

    async fn terminate(&mut self, _stderr: &mut StderrLog) {
        // The engine tells the end of no other exec of the container while output of an ended
        // one waits to be read; without its connection it throws the rest away.
        self.session.output = Box::pin(futures_util::stream::empty());
        let ending = async {
            let by_pid = async {
                if let Some(pid) = &self.pid {
                    let _ = self.inner.script(scripts::END_PROCESS, &[pid]).await;
                }
            };
            let by_session = sessions::end(&*self.inner, &self.application_name);
            let _ = tokio::join!(by_pid, by_session);
        };
        if tokio::time::timeout(TERMINATE_WAIT, ending).await.is_err() {
            tracing::warn!(container = %self.inner.name, "ending a program took too long");
        }
    }

    async fn diagnose(&mut self) -> Option<String> {
        match self.inner.runtime.inspect(&self.inner.id).await {
            Ok(now) if now.state == ContainerState::Paused => {
                let name = &self.inner.name;
                Some(format!(
                    "container {name} is paused; `docker unpause {name}` continues it"
                ))
            }
            Ok(now) if now.state == ContainerState::Running && !self.connects => None,
            Ok(now) if now.state == ContainerState::Running => {
                sessions::at_work(&*self.inner, &self.application_name).await
            }
            Ok(_) => Some(format!("container {} is not running", self.inner.name)),
            Err(error) => Some(format!("the container engine does not tell: {error}")),
        }
    }

    fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.session.input.take()
    }
}

impl Exec {
    /// Splits the process id off the first line of standard error.
    fn take_pid(&mut self) -> bytes::Bytes {
        let mark = PID_MARK.as_bytes();
        let shared = self.noise.len().min(mark.len());
        if self.noise[..shared] != mark[..shared] {
            // Not our wrapper: hand over what was held back, once.
            self.pid = Some(String::new());
            return std::mem::take(&mut self.noise).into();
        }
        let Some(end) = self.noise.iter().position(|byte| *byte == b'\n') else {
            return bytes::Bytes::new();
        };
        let line = String::from_utf8_lossy(&self.noise[mark.len()..end])
            .trim()
            .to_owned();
        let is_pid = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        self.pid = Some(if is_pid { line } else { String::new() });
        let rest = self.noise.split_off(end + 1);
        self.noise.clear();
        rest.into()
    }
}

#[async_trait]
impl sessions::RunPsql for Inner {
    async fn psql(&self, application_name: &str, sql: &str) -> Result<String, ExecError> {
        let settings = ConnectionSettings {
            application_name: application_name.to_owned(),
            ..self.settings.clone()
        };
        let creds = &self.context.creds;
        let env = variables(Some((creds, &creds.database)), &settings, &[]);
        let argv: Vec<String> = if !self.programs().await?.shell {
            let (info, _) = self.resolve(PgProgram::Psql).await?;
            [&info.path, "-XAtqw", "-c", sql].map(str::to_owned).into()
        } else {
            let unset = "PGSERVICE PGHOSTADDR PGPASSFILE PGSERVICEFILE";
            [
                "sh",
                "-c",
                scripts::LAUNCH,
                "pgstow",
                unset,
                "",
                "psql",
                "-XAtqw",
                "-c",
                sql,
            ]
            .map(str::to_owned)
            .into()
        };
        let spec = ExecSpec {
            argv,
            env,
            ..ExecSpec::default()
        };
        self.run_to_end(&spec, "asking the server").await
    }
}

#[async_trait]
impl PgExecutor for DockerPgExecutor {
    fn context(&self) -> &DbContext {
        &self.inner.context
    }

    fn settings(&self) -> &ConnectionSettings {
        &self.inner.settings
    }

    fn transport(&self) -> Transport {
        Transport::Exec
    }

    async fn program(&self, program: PgProgram) -> Result<ProgramInfo, ExecError> {
        Ok(self.inner.resolve(program).await?.0)
    }

    async fn start(&self, invocation: Invocation) -> Result<RunningProgram, ExecError> {
        self.start_wrapped(invocation, None, |process| Box::new(process))
            .await
    }

    async fn scratch_create(&self) -> Result<ScratchDir, ExecError> {
        let text = self.inner.script(scripts::MAKE_SCRATCH, &[]).await?;
        let path = text.trim().to_owned();
        if !path.starts_with('/') {
            let message = format!("no directory for scratch files was made: {path:?}");
            let operation = "making a scratch directory";
            let source = RuntimeError::Refused { operation, message };
            return Err(self.inner.failed(operation, source));
        }
        Ok(ScratchDir { path, local: None })
    }

    async fn scratch_put(
        &self,
        dir: &ScratchDir,
        name: &str,
        size: u64,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError> {
        if self.inner.programs().await?.shell {
            let path = format!("{}/{name}", dir.path);
            return self.inner.put_by_exec(&path, size, content).await;
        }
        let path = format!("{}/{name}", dir.path);
        let (directory, name) = path.rsplit_once('/').unwrap_or(("/", name));
        let (directory, name) = (directory.to_owned(), name.to_owned());
        let file = PutFile {
            directory,
            name,
            size,
            mode: 0o600,
        };
        let put = self
            .inner
            .runtime
            .put_file(&self.inner.id, &file, content)
            .await;
        put.map_err(|error| {
            self.inner
                .failed("copying a file into the container", error)
        })
    }

    async fn scratch_tar(
        &self,
        dir: &ScratchDir,
        name: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ExecError> {
        let path = format!("{}/{name}", dir.path);
        let tar = self.inner.runtime.get_tar(&self.inner.id, &path).await;
        tar.map_err(|error| {
            self.inner
                .failed("copying files out of the container", error)
        })
    }

    async fn scratch_remove(&self, dir: &ScratchDir) -> Result<(), ExecError> {
        self.inner
            .script(scripts::REMOVE_SCRATCH, &[&dir.path])
            .await
            .map(drop)
    }

    async fn reap(&self, application_name: &str) -> Result<ReapReport, ExecError> {
        let shell = self.inner.programs().await?.shell;
        let processes = if shell {
            let text = self
                .inner
                .script(scripts::REAP, &[application_name])
                .await?;
            text.trim().parse().unwrap_or(0)
        } else {
            0
        };
        let sessions = sessions::end_run(&*self.inner, application_name).await?;
        Ok(ReapReport {
            processes,
            sessions,
        })
    }

    async fn native(&self) -> Result<Arc<NativeRoute>, NoRoute> {
        let inner = &self.inner;
        let searching = async || {
            let (runtime, creds) = (&inner.runtime, &inner.context.creds);
            let routes = find::container_candidates(&**runtime, &inner.id, creds).await?;
            let keeper = find::Keeper::Container {
                runtime: Arc::clone(runtime),
                id: inner.id.clone(),
            };
            find::find(self, routes, keeper).await
        };
        inner.native.get_or_try_init(searching).await.cloned()
    }

    async fn free_bytes(&self, directory: &str) -> Result<Option<u64>, ExecError> {
        match self.inner.script(scripts::FREE_SPACE, &[directory]).await {
            Ok(text) => Ok(space::parse_df(&text)),
            // No such directory, no df, no shell.
            Err(ExecError::Runtime {
                source: RuntimeError::Refused { .. },
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A status above 128 is how shells and engines report a signal.
fn judge_exit(code: i64) -> Option<ProgramExit> {
    match code {
        0 => None,
        129..=192 => i32::try_from(code - 128).ok().map(ProgramExit::Signal),
        _ => Some(ProgramExit::Code(code)),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn is_stopped(message: &str) -> bool {
    message.contains("is not running")
        || message.contains("is paused")
        || message.contains("is restarting")
}

fn is_missing_program(message: &str) -> bool {
    message.contains("executable file not found") || message.contains("no such file or directory")
}
