//! Programs of this host, for servers that are not reached through a container.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::OnceCell;

use super::drive::{Plan, Process, launch};
use super::environment::variables;
use super::programs::{Installation, VERSIONED_DIRS, choose, parse_version};
use super::sessions;
use super::space;
use super::stderr::StderrLog;
use super::types::{
    ConnectionSettings, HostPrograms, Input, Invocation, PgExecutor, PgProgram, ProgramInfo,
    ReapReport, RunningProgram, ScratchDir, Transport,
};
use crate::context::DbContext;
use crate::executor::{ExecError, ProgramExit};
use crate::native::{NativeRoute, NoRoute, find};
use crate::runtime::Frame;

const EXIT_WAIT: Duration = Duration::from_secs(10);
/// How long a program may take to follow TERM before KILL.
const TERM_WAIT: Duration = Duration::from_secs(2);
const PIECE: usize = 64 * 1024;

/// Runs programs of this host with a cleared environment.
pub struct HostPgExecutor {
    inner: Arc<Inner>,
}

struct Inner {
    context: DbContext,
    host: HostPrograms,
    settings: ConnectionSettings,
    found: OnceCell<Vec<Installation>>,
    native: OnceCell<Arc<NativeRoute>>,
}

impl HostPgExecutor {
    /// For the server of a context; its version may still be unknown (0) while discovery tests
    /// credentials.
    #[must_use]
    pub fn new(context: DbContext, host: HostPrograms, settings: ConnectionSettings) -> Self {
        let (found, native) = (OnceCell::new(), OnceCell::new());
        Self {
            inner: Arc::new(Inner {
                context,
                host,
                settings,
                found,
                native,
            }),
        }
    }
}

impl Inner {
    fn search_dirs(&self) -> Vec<PathBuf> {
        if let Some(only) = &self.host.bin_dir {
            return vec![only.clone()];
        }
        // Versioned directories first: what PATH holds may be a wrapper that chooses by itself.
        let versioned = VERSIONED_DIRS.iter().flat_map(|pattern| expand(pattern));
        versioned
            .chain(self.host.path_dirs.iter().cloned())
            .collect()
    }

    /// Installations of this host, searched once; each is asked for its version.
    async fn found(&self) -> &[Installation] {
        self.found
            .get_or_init(|| async {
                let mut found = Vec::new();
                for dir in self.search_dirs() {
                    if let Some(installation) = look(&dir).await
                        && !found.contains(&installation)
                    {
                        found.push(installation);
                    }
                }
                found
            })
            .await
    }

    async fn resolve(&self, program: PgProgram) -> Result<ProgramInfo, ExecError> {
        let looked_in: Vec<String> = self
            .search_dirs()
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let server = &self.context.server;
        choose(
            self.found().await,
            program,
            server.major(),
            &server.version,
            &looked_in,
        )
    }

    fn command(
        &self,
        path: &str,
        database: Option<&str>,
        settings: &ConnectionSettings,
        parameters: &[&str],
    ) -> Command {
        let connection = database.map(|name| (&self.context.creds, name));
        let mut command = Command::new(path);
        command
            .env_clear()
            .process_group(0)
            .kill_on_drop(true)
            .current_dir("/");
        let dirs = self.host.path_dirs.iter();
        if let Ok(path) = dirs.map(PathBuf::as_path).collect::<PathList>().join() {
            command.env("PATH", path);
        }
        // No .pgpass, service file or history of whoever runs pgstow.
        command
            .env("HOME", "/nonexistent")
            .env("PGPASSFILE", "/dev/null")
            .env("PSQLRC", "/dev/null");
        command
            .env("PGSYSCONFDIR", "/nonexistent")
            .env("PGSERVICEFILE", "/dev/null");
        for (name, value) in variables(connection, settings, parameters) {
            command.env(name, value.expose_secret());
        }
        command
    }
}

/// Directories that become a PATH again.
struct PathList(Vec<PathBuf>);

impl<'a> FromIterator<&'a Path> for PathList {
    fn from_iter<I: IntoIterator<Item = &'a Path>>(dirs: I) -> Self {
        Self(dirs.into_iter().map(Path::to_owned).collect())
    }
}

impl PathList {
    fn join(self) -> Result<std::ffi::OsString, std::env::JoinPathsError> {
        std::env::join_paths(self.0)
    }
}

/// Directories that match a pattern with one `*`.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| PathBuf::from(format!("{}{after}", entry.path().display())))
        .collect();
    found.sort();
    found
}

/// What a directory holds; `None` when it holds no PostgreSQL program that answers.
async fn look(dir: &Path) -> Option<Installation> {
    let all = [
        PgProgram::PgDump,
        PgProgram::PgDumpall,
        PgProgram::PgRestore,
        PgProgram::Psql,
    ];
    let programs: Vec<PgProgram> = all
        .into_iter()
        .filter(|program| dir.join(program.as_str()).is_file())
        .collect();
    let first = dir.join(programs.first()?.as_str());
    // Debian's wrapper only chooses among the versioned directories, and takes a perl to do so.
    if fs::read_link(&first).is_ok_and(|target| target.ends_with("pg_wrapper")) {
        return None;
    }
    let (text, _) = ask(&first, &["--version"]).await?;
    let (version, major) = parse_version(&text)?;
    // An unknown compression is refused before the attempt to connect.
    let has_zstd = major >= 16
        && ask(&dir.join("pg_dump"), &["-w", "-Fc", "--compress=zstd:1"])
            .await
            .is_some_and(|(_, errors)| errors.contains(NOWHERE));
    Some(Installation {
        dir: dir.display().to_string(),
        version,
        programs,
        has_zstd,
    })
}

const NOWHERE: &str = "/nonexistent/pgstow";

/// Runs a program that needs no server and returns its output and errors.
async fn ask(program: &Path, args: &[&str]) -> Option<(String, String)> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PGHOST", NOWHERE);
    // A wrapper of the distribution needs these to find anything.
    command
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(10), command.kill_on_drop(true).output());
    let output = output.await.ok()?.ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

/// A child process.
struct HostProcess {
    inner: Arc<Inner>,
    program: PgProgram,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out_buffer: BytesMut,
    err_buffer: BytesMut,
    connects: bool,
    application_name: String,
}

#[async_trait]
impl Process for HostProcess {
    async fn next(&mut self) -> Result<Option<Frame>, ExecError> {
        loop {
            if self.stdout.is_none() && self.stderr.is_none() {
                return Ok(None);
            }
            let Self {
                stdout,
                stderr,
                out_buffer,
                err_buffer,
                ..
            } = self;
            out_buffer.reserve(PIECE);
            err_buffer.reserve(4096);
            let (is_stdout, read) = tokio::select! {
                read = read_or_wait(stdout, out_buffer) => (true, read),
                read = read_or_wait(stderr, err_buffer) => (false, read),
            };
            let read = read.map_err(|source| ExecError::Spawn {
                operation: "reading",
                program: self.program,
                source,
            })?;
            match (is_stdout, read) {
                (true, 0) => self.stdout = None,
                (false, 0) => self.stderr = None,
                (true, _) => return Ok(Some(Frame::Stdout(self.out_buffer.split().freeze()))),
                (false, _) => return Ok(Some(Frame::Stderr(self.err_buffer.split().freeze()))),
            }
        }
    }

    async fn exit(&mut self) -> Result<Option<ProgramExit>, ExecError> {
        let program = self.program;
        match tokio::time::timeout(EXIT_WAIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(None),
            Ok(Ok(status)) => Ok(Some(status.signal().map_or_else(
                || ProgramExit::Code(status.code().map_or(-1, i64::from)),
                ProgramExit::Signal,
            ))),
            Ok(Err(source)) => Err(ExecError::Spawn {
                operation: "waiting for",
                program,
                source,
            }),
            Err(_) => Err(ExecError::ExitUnknown {
                program,
                reason: format!("it closed its output but did not end within {EXIT_WAIT:?}"),
            }),
        }
    }

    async fn terminate(&mut self, _stderr: &mut StderrLog) {
        let group = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(group) = group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        if tokio::time::timeout(TERM_WAIT, self.child.wait())
            .await
            .is_err()
        {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait().await;
        }
        if self.connects {
            let ending = sessions::end(&*self.inner, &self.application_name);
            let _ = tokio::time::timeout(TERM_WAIT, ending).await;
        }
    }

    async fn diagnose(&mut self) -> Option<String> {
        if self.connects {
            sessions::at_work(&*self.inner, &self.application_name).await
        } else {
            None
        }
    }

    fn take_input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.child
            .stdin
            .take()
            .map(|stdin| Box::pin(stdin) as Pin<Box<dyn AsyncWrite + Send>>)
    }
}

/// Reads a pipe; waits for ever when it is closed already.
async fn read_or_wait<R: AsyncRead + Unpin>(
    pipe: &mut Option<R>,
    buffer: &mut BytesMut,
) -> std::io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read_buf(buffer).await,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl sessions::RunPsql for Inner {
    async fn psql(&self, application_name: &str, sql: &str) -> Result<String, ExecError> {
        let info = self.resolve(PgProgram::Psql).await?;
        let settings = ConnectionSettings {
            application_name: application_name.to_owned(),
            ..self.settings.clone()
        };
        let database = &self.context.creds.database;
        let mut command = self.command(&info.path, Some(database), &settings, &[]);
        command.args(["-XAtqw", "-c", sql]).stdin(Stdio::null());
        let program = PgProgram::Psql;
        let output = command.output().await.map_err(|source| ExecError::Spawn {
            operation: "starting",
            program,
            source,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr)
            .lines()
            .map(str::to_owned)
            .collect();
        let exit = ProgramExit::Code(output.status.code().map_or(-1, i64::from));
        Err(super::classify::failure(
            program,
            exit,
            stderr,
            Some(&self.context.creds),
        ))
    }
}

#[async_trait]
impl PgExecutor for HostPgExecutor {
    fn context(&self) -> &DbContext {
        &self.inner.context
    }

    fn settings(&self) -> &ConnectionSettings {
        &self.inner.settings
    }

    fn transport(&self) -> Transport {
        Transport::Host
    }

    async fn program(&self, program: PgProgram) -> Result<ProgramInfo, ExecError> {
        self.inner.resolve(program).await
    }

    async fn start(&self, invocation: Invocation) -> Result<RunningProgram, ExecError> {
        let program = invocation.program;
        let parameters = invocation.parameters();
        let info = self.inner.resolve(program).await?;
        let database = invocation.database.as_deref();
        let settings = ConnectionSettings {
            application_name: invocation
                .application_name
                .unwrap_or_else(|| self.inner.settings.application_name.clone()),
            ..self.inner.settings.clone()
        };
        let mut command = self
            .inner
            .command(&info.path, database, &settings, &parameters);
        command
            .args(&invocation.args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.stdin(match invocation.input {
            Input::Nothing => Stdio::null(),
            Input::Stream(_) => Stdio::piped(),
        });
        let mut child = command.spawn().map_err(|source| ExecError::Spawn {
            operation: "starting",
            program,
            source,
        })?;
        let process = HostProcess {
            inner: Arc::clone(&self.inner),
            program,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            out_buffer: BytesMut::new(),
            err_buffer: BytesMut::new(),
            connects: invocation.database.is_some(),
            application_name: settings.application_name,
        };
        let creds = invocation.database.map(|database| {
            let mut creds = self.inner.context.creds.clone();
            creds.database = database;
            creds
        });
        let stall_after = self.inner.settings.stall_after;
        let plan = Plan {
            program,
            creds,
            input: invocation.input,
            cancel: invocation.cancel,
            stall_after,
            on_stderr: invocation.on_stderr,
            busy: invocation.busy,
        };
        Ok(launch(Box::new(process), plan))
    }

    async fn scratch_create(&self) -> Result<ScratchDir, ExecError> {
        let root = &self.inner.host.scratch_root;
        let path = root.join(format!(
            "pgstow-scratch.{}",
            self.inner.settings.application_name
        ));
        // Several in one run: the first free number.
        for number in 0..1000 {
            let path = path.with_extension(format!("{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let text = path.display().to_string();
                    return Ok(ScratchDir {
                        path: text,
                        local: Some(path),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(file_error("making directory", &path, source)),
            }
        }
        Err(file_error(
            "making directory",
            &path,
            std::io::ErrorKind::AlreadyExists.into(),
        ))
    }

    async fn scratch_put(
        &self,
        dir: &ScratchDir,
        name: &str,
        size: u64,
        mut content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError> {
        let path = Path::new(&dir.path).join(name);
        let wrap = |source| file_error("writing", &path, source);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(parent)
                .map_err(wrap)?;
        }
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let mut file = tokio::fs::File::from_std(file.map_err(wrap)?);
        let copied = tokio::io::copy(&mut content, &mut file)
            .await
            .map_err(wrap)?;
        file.flush().await.map_err(wrap)?;
        if copied == size {
            return Ok(());
        }
        let message = format!("{copied} bytes came, {size} were announced");
        Err(wrap(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            message,
        )))
    }

    async fn scratch_tar(
        &self,
        dir: &ScratchDir,
        name: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ExecError> {
        let path = Path::new(&dir.path).join(name);
        let reason = "a scratch directory of this host is read in place, not as a tar stream";
        Err(file_error(
            "archiving",
            &path,
            std::io::Error::other(reason),
        ))
    }

    async fn scratch_remove(&self, dir: &ScratchDir) -> Result<(), ExecError> {
        let path = Path::new(&dir.path);
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file_error("removing", path, error))
            }
            _ => Ok(()),
        }
    }

    async fn reap(&self, application_name: &str) -> Result<ReapReport, ExecError> {
        let processes = reap_processes(application_name);
        let sessions = sessions::end_run(&*self.inner, application_name).await?;
        Ok(ReapReport {
            processes,
            sessions,
        })
    }

    async fn native(&self) -> Result<Arc<NativeRoute>, NoRoute> {
        let searching = async || {
            let routes = find::host_routes(&self.inner.context.creds).map_err(NoRoute::because)?;
            find::find(self, routes, find::Keeper::Nobody).await
        };
        self.inner.native.get_or_try_init(searching).await.cloned()
    }

    async fn free_bytes(&self, directory: &str) -> Result<Option<u64>, ExecError> {
        let host = self.inner.context.creds.host.as_deref();
        let is_local = host.is_none_or(|host| host.is_empty() || host.starts_with('/'));
        // Through a socket the server is of this host; that it sees other files, because it runs in
        // a container that shares the socket, shows in the directory not being here.
        Ok(is_local
            .then(|| space::free(Path::new(directory)))
            .flatten())
    }
}

/// Ends processes of this host whose environment carries our `application_name`.
fn reap_processes(application_name: &str) -> u32 {
    let exact = format!("PGAPPNAME={application_name}");
    let longer = format!("{exact}-");
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let mut count = 0;
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_string_lossy()
            .parse()
            .ok()
            .and_then(Pid::from_raw);
        let (Some(pid), Ok(environ)) = (pid, fs::read(entry.path().join("environ"))) else {
            continue;
        };
        let ours = environ
            .split(|byte| *byte == 0)
            .any(|pair| pair == exact.as_bytes() || pair.starts_with(longer.as_bytes()));
        if ours && kill_process(pid, Signal::KILL).is_ok() {
            count += 1;
        }
    }
    count
}

fn file_error(operation: &'static str, path: &Path, source: std::io::Error) -> ExecError {
    ExecError::File {
        operation,
        path: path.display().to_string(),
        source,
    }
}
