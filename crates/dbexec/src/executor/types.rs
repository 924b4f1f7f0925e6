//! The executor trait and the values that cross it.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use crate::context::DbContext;
use crate::executor::ExecError;
use crate::native::{NativeRoute, NoRoute};

/// A client program of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PgProgram {
    /// `pg_dump`
    PgDump,
    /// `pg_dumpall`
    PgDumpall,
    /// `pg_restore`
    PgRestore,
    /// `psql`
    Psql,
}

impl PgProgram {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::PgDump, Self::PgDumpall, Self::PgRestore, Self::Psql];

    /// File name of the program.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
            Self::PgDumpall => "pg_dumpall",
            Self::PgRestore => "pg_restore",
            Self::Psql => "psql",
        }
    }
}

impl fmt::Display for PgProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a client program hands its bytes to pgstow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// `docker exec` in the server's container.
    Exec,
    /// A short-lived container of the same image in the server's network, which shares a spool
    /// directory with this process.
    Sidecar,
    /// A child process of this host.
    Host,
}

/// A program as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramInfo {
    /// Absolute path, or the bare name where the container's PATH finds it.
    pub path: String,
    /// Version as the program prints it, for example `15.18`.
    pub version: String,
    /// Major version.
    pub major: u32,
    /// Whether pg_dump/pg_restore of this version can compress with zstd (16 and later, when
    /// built with it).
    pub has_zstd: bool,
}

/// Where to look for PostgreSQL programs on this host.
#[derive(Debug, Clone, Default)]
pub struct HostPrograms {
    /// `--pg-bin-dir`: searched first and, when set, alone.
    pub bin_dir: Option<PathBuf>,
    /// Directories of `PATH`, in order.
    pub path_dirs: Vec<PathBuf>,
    /// Directory for scratch files (0700, made by the caller, on a real disk).
    pub scratch_root: PathBuf,
}

/// Settings of the connections that pgstow's programs make to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Sessions that pgstow may hold at once.
    pub max_connections: u32,
    /// `PGCONNECT_TIMEOUT`, whole seconds.
    pub connect_timeout: Duration,
    /// `--lock-wait-timeout` of pg_dump, `lock_timeout` of pgstow's own statements.
    pub lock_wait_timeout: Duration,
    /// `statement_timeout` of pgstow's own queries (never of a dump).
    pub statement_timeout: Duration,
    /// `tcp_keepalives_idle` of the server's half of TCP connections, whole seconds.
    pub keepalives_idle: Duration,
    /// `application_name` of every session: `pgstow-<run id>`.
    pub application_name: String,
    /// How long a program may move no byte before it is diagnosed (not: given up).
    pub stall_after: Duration,
}

impl ConnectionSettings {
    /// Defaults for one run.
    #[must_use]
    pub fn new(run_id: &str) -> Self {
        Self {
            max_connections: 4,
            connect_timeout: Duration::from_secs(10),
            lock_wait_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(60),
            keepalives_idle: Duration::from_secs(30),
            application_name: format!("pgstow-{run_id}"),
            stall_after: Duration::from_secs(60),
        }
    }
}

/// Standard input of a program.
pub enum Input {
    /// None: the program sees an empty file.
    Nothing,
    /// A stream; when it fails, the program is ended before it could see an end of file.
    Stream(Pin<Box<dyn AsyncRead + Send>>),
}

/// Takes lines of standard error; called from the program's own task, so it must not block.
pub type StderrWatch = Arc<dyn Fn(&str) + Send + Sync>;

/// One run of one program.
pub struct Invocation {
    /// Which program.
    pub program: PgProgram,
    /// Its arguments, without connection options: host, port, user and password travel by
    /// environment. Database names must not be positional arguments.
    pub args: Vec<String>,
    /// Database, by `PGDATABASE`; `None` for a run that makes no connection
    /// (`pg_restore -f …`), which then gets no credentials at all.
    ///
    /// `pg_restore` ignores `PGDATABASE`: give it `-d` with [`conninfo_dbname`] as well.
    pub database: Option<String>,
    /// Standard input.
    pub input: Input,
    /// Cancels the run: the program and its server session are ended and the reader gets
    /// [`ExecError::Interrupted`].
    pub cancel: CancellationToken,
    /// Told each line of standard error as it comes, before the program ends.
    pub on_stderr: Option<StderrWatch>,
    /// `application_name` of this run alone, in place of the settings': ending the run then ends
    /// no other session. It must begin with the settings' name and `-`, so that
    /// [`PgExecutor::reap`] finds what a killed pgstow left.
    pub application_name: Option<String>,
    /// Whether the program has work now. While it has none, it may be still as long as it likes;
    /// without this, silence is always looked into.
    pub busy: Option<Arc<std::sync::atomic::AtomicBool>>,
    /// Whether its sessions do not wait until each of their transactions is on the server's disk
    /// (`synchronous_commit = off`): for what counts only when a later transaction, which waits,
    /// says so.
    pub asynchronous_commit: bool,
}

impl Invocation {
    /// A run whose standard error is looked at when it has ended.
    #[must_use]
    pub fn new(
        program: PgProgram,
        args: Vec<String>,
        database: Option<String>,
        input: Input,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            program,
            args,
            database,
            input,
            cancel,
            on_stderr: None,
            application_name: None,
            busy: None,
            asynchronous_commit: false,
        }
    }

    /// Parameters of the server for its sessions, as `name=value`.
    pub(crate) fn parameters(&self) -> Vec<&'static str> {
        let mut parameters = Vec::new();
        if matches!(self.program, PgProgram::PgDump | PgProgram::PgDumpall) {
            // Their queries of the catalogue gain nothing from it, and a container's /dev/shm of 64 MB
            // may have no room for what the workers share.
            parameters.push("max_parallel_workers_per_gather=0");
        }
        if self.asynchronous_commit {
            parameters.push("synchronous_commit=off");
        }
        parameters
    }
}

/// Output of a program as a buffered reader. **The error is its last item**: `Ok(0)` comes only
/// after the exit status was read and was 0; otherwise the end is an `io::Error` that carries an
/// [`ExecError`] (see [`ExecError::from_io`]).
pub type ProgramOutput = Pin<Box<dyn tokio::io::AsyncBufRead + Send>>;

/// A program that was started.
pub struct RunningProgram {
    /// Its standard output; must be read to its end (or the program terminated).
    pub stdout: ProgramOutput,
    /// Completed by the executor when `stdout` reached its clean end.
    pub(crate) finished: tokio::sync::oneshot::Receiver<Finished>,
}

/// What is known of a program that ended with 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// Lines on standard error (warnings), bounded; the last ones are kept.
    pub stderr: Vec<String>,
    /// How many lines were dropped to keep the bound.
    pub stderr_dropped: u64,
}

impl RunningProgram {
    /// Pairs the output of a program with the notice of its clean end; for executors, also those
    /// of tests.
    #[must_use]
    pub fn new(stdout: ProgramOutput, finished: tokio::sync::oneshot::Receiver<Finished>) -> Self {
        Self { stdout, finished }
    }

    /// Reads what is left of standard output, throws it away and returns how the program ended.
    ///
    /// # Errors
    /// The program's failure, as [`ProgramOutput`] reports it.
    pub async fn finish(mut self, program: PgProgram) -> Result<Finished, ExecError> {
        let read = |source| {
            ExecError::from_io(source).unwrap_or_else(|source| ExecError::Spawn {
                operation: "reading",
                program,
                source,
            })
        };
        tokio::io::copy_buf(&mut self.stdout, &mut tokio::io::sink())
            .await
            .map_err(read)?;
        self.finished.await.map_err(|_| ExecError::ExitUnknown {
            program,
            reason: "its output ended without a status".to_owned(),
        })
    }
}

/// A private directory (0700) next to the programs, for directory archives and uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchDir {
    /// Absolute path as the programs see it.
    pub path: String,
    /// The same directory as this process sees it, when programs share our file system.
    pub local: Option<PathBuf>,
}

/// What [`PgExecutor::reap`] ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReapReport {
    /// Processes in the container or on this host.
    pub processes: u32,
    /// Server sessions.
    pub sessions: u32,
}

/// Runs PostgreSQL's programs next to one server. The only way in which backup and restore start
/// a process.
#[async_trait]
pub trait PgExecutor: Send + Sync {
    /// The server this executor is bound to.
    fn context(&self) -> &DbContext;
    /// Settings of its connections.
    fn settings(&self) -> &ConnectionSettings;
    /// How bytes travel.
    fn transport(&self) -> Transport;
    /// Whether programs see this process's file system (so that `pg_restore -j` can read the
    /// store's file in place).
    fn shares_files(&self) -> bool {
        self.transport() == Transport::Host
    }
    /// Finds a program of the right major (lowest that is not older than the server).
    ///
    /// # Errors
    /// [`ExecError::ProgramMissing`], [`ExecError::ProgramTooOld`].
    async fn program(&self, program: PgProgram) -> Result<ProgramInfo, ExecError>;
    /// Starts a program. Its failure, also the failure to start, may arrive as the last item of
    /// its output.
    ///
    /// # Errors
    /// When it could not be started, or the container is not the one that was discovered.
    async fn start(&self, invocation: Invocation) -> Result<RunningProgram, ExecError>;
    /// Makes a scratch directory.
    ///
    /// # Errors
    /// When there is no writable place.
    async fn scratch_create(&self) -> Result<ScratchDir, ExecError>;
    /// Puts a file of exactly `size` bytes into a scratch directory (or a subdirectory of it,
    /// when `name` holds one slash), mode 0600.
    ///
    /// # Errors
    /// When the content ends early, is longer, or cannot be written.
    async fn scratch_put(
        &self,
        dir: &ScratchDir,
        name: &str,
        size: u64,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError>;
    /// A file or directory of a scratch directory as a tar stream (for executors that do not
    /// share our file system; others may read `dir.local`).
    ///
    /// # Errors
    /// When it cannot be read.
    async fn scratch_tar(
        &self,
        dir: &ScratchDir,
        name: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ExecError>;
    /// Removes a scratch directory with what is in it.
    ///
    /// # Errors
    /// When something stays behind.
    async fn scratch_remove(&self, dir: &ScratchDir) -> Result<(), ExecError>;
    /// Ends processes and server sessions that carry this `application_name`, or it and `-` and
    /// more (leftovers of a run of ours that was killed).
    ///
    /// # Errors
    /// When the server or the container cannot be asked.
    async fn reap(&self, application_name: &str) -> Result<ReapReport, ExecError>;
    /// Bytes that are free, for whom is not root, in the file system that holds a directory *as the
    /// server sees it*. `None` where that cannot be learnt: a server at another host, a directory
    /// that is not there or may not be looked into, an image without `df`.
    ///
    /// # Errors
    /// When the container cannot be asked at all.
    async fn free_bytes(&self, directory: &str) -> Result<Option<u64>, ExecError> {
        let _ = directory;
        Ok(None)
    }
    /// Opens native sessions to the same server: tries the routes in order of cost, proves that the
    /// server is the one that the programs reach, and remembers the winner (a failure is not
    /// remembered).
    ///
    /// # Errors
    /// Why there is no such route; no failure of the run.
    async fn native(&self) -> Result<Arc<NativeRoute>, NoRoute> {
        Err(NoRoute::because("this executor opens no native sessions"))
    }
}

/// `dbname='…'` for programs that take a connection string: the name is data, whatever it holds.
#[must_use]
pub fn conninfo_dbname(database: &str) -> String {
    let mut quoted = String::with_capacity(database.len() + 10);
    quoted.push_str("dbname='");
    for character in database.chars() {
        if matches!(character, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_sessions_follow_from_the_program_and_its_commits() {
        let of = |program: PgProgram, asynchronous: bool| {
            let cancel = CancellationToken::new();
            let mut run = Invocation::new(program, Vec::new(), None, Input::Nothing, cancel);
            run.asynchronous_commit = asynchronous;
            run.parameters()
        };
        let (serial, off) = (
            "max_parallel_workers_per_gather=0",
            "synchronous_commit=off",
        );
        assert_eq!(of(PgProgram::PgDump, false), [serial]);
        assert_eq!(of(PgProgram::PgDumpall, false), [serial]);
        assert_eq!(of(PgProgram::PgRestore, true), [off]);
        assert!(of(PgProgram::PgRestore, false).is_empty());
        assert!(of(PgProgram::Psql, false).is_empty());
    }
}
