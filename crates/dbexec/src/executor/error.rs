//! What goes wrong while a PostgreSQL program is started, fed, read or ended.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::{codes, executor::PgProgram, native::NativeError, runtime::RuntimeError};

/// How a program ended, when it did not end with 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramExit {
    /// Exit status.
    Code(i64),
    /// Ended by a signal (on this host, or 128+n in a container).
    Signal(i32),
}

impl fmt::Display for ProgramExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(9) => write!(f, "signal 9 (killed; often out of memory)"),
            Self::Signal(15) => write!(f, "signal 15 (terminated)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Errors of executors and of pgstow's own queries. Messages carry the server's own words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The container engine failed while `operation` was tried.
    #[error("{operation} in container {container} failed")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// Container name.
        container: String,
        /// The engine's failure.
        #[source]
        source: RuntimeError,
    },
    /// The container that was discovered is gone, stopped or was replaced.
    #[error("container {name} ({id}) that was discovered is no longer there: {found}")]
    ContainerChanged {
        /// Its name.
        name: String,
        /// Its id, shortened.
        id: String,
        /// What was found instead.
        found: String,
    },
    /// The container that client programs ran in is gone; the server may well be there.
    #[error("container {name}, in which the client programs ran, is gone: {found}")]
    SidecarLost {
        /// Its name.
        name: String,
        /// What was found.
        found: String,
    },
    /// Another server answers where the discovered one was.
    #[error("another server answers at {target}: system identifier {found}, expected {expected}")]
    ServerChanged {
        /// Where.
        target: String,
        /// Identifier that was discovered.
        expected: String,
        /// Identifier that answers now.
        found: String,
    },
    /// A program is not installed where it has to run.
    #[error("{program} was not found; looked in {}", looked_in.join(", "))]
    ProgramMissing {
        /// Which.
        program: PgProgram,
        /// Places that were searched.
        looked_in: Vec<String>,
    },
    /// All installed versions are older than the server.
    #[error("{program} {installed} is older than the server ({server})")]
    ProgramTooOld {
        /// Which.
        program: PgProgram,
        /// Newest version that is installed.
        installed: String,
        /// Version of the server.
        server: String,
    },
    /// The program could not be started or talked to on this host.
    #[error("{operation} {program} failed")]
    Spawn {
        /// `starting`, `reading`, `writing to`, `waiting for`.
        operation: &'static str,
        /// Which.
        program: PgProgram,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// The program ended with a failure.
    #[error("{program} failed with {exit}: {}", last_lines(stderr))]
    Failed {
        /// Which.
        program: PgProgram,
        /// How it ended.
        exit: ProgramExit,
        /// The end of its standard error, bounded, without secrets.
        stderr: Vec<String>,
    },
    /// The program's end could not be learnt within the bounded wait.
    #[error("the exit status of {program} could not be learnt: {reason}")]
    ExitUnknown {
        /// Which.
        program: PgProgram,
        /// What was seen.
        reason: String,
    },
    /// Nothing moved for too long and the diagnosis found no work going on.
    #[error("{program} moved no byte for {} s: {diagnosis}", idle.as_secs())]
    Stalled {
        /// Which.
        program: PgProgram,
        /// How long nothing moved.
        idle: Duration,
        /// What was found: container paused, server not answering, ….
        diagnosis: String,
    },
    /// The run was cancelled; the program and its server session were ended.
    #[error("{program} was interrupted")]
    Interrupted {
        /// Which.
        program: PgProgram,
    },
    /// The data that was to be fed into the program could not be read; the program was ended, so
    /// that it cannot mistake the cut for the end.
    #[error("the input of {program} could not be read")]
    Input {
        /// Which.
        program: PgProgram,
        /// The reader's failure.
        #[source]
        source: io::Error,
    },
    /// The server refused the login.
    #[error("the server refused user {user:?} on database {database:?}: {message}")]
    CredentialsRefused {
        /// User.
        user: String,
        /// Database.
        database: String,
        /// The server's own words.
        message: String,
    },
    /// No server answers.
    #[error("no server answers at {address}: {message}")]
    ServerUnreachable {
        /// Where.
        address: String,
        /// The client's own words.
        message: String,
    },
    /// TLS failed.
    #[error("TLS with {address} failed: {message}")]
    Tls {
        /// Where.
        address: String,
        /// The client's own words.
        message: String,
    },
    /// A transaction pooler answers instead of the server.
    #[error("a transaction pooler answers at {address}; this work needs one session: {evidence}")]
    Pooler {
        /// Where.
        address: String,
        /// How it was recognised.
        evidence: String,
    },
    /// A query of pgstow's own failed, or gave something that could not be understood.
    #[error("query {query:?} on database {database:?} failed: {message}")]
    Query {
        /// Short name of the query.
        query: &'static str,
        /// Database.
        database: String,
        /// The server's own words.
        message: String,
    },
    /// A file operation next to the programs failed.
    #[error("{operation} {path} failed")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: String,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// A session of pgstow's own failed.
    #[error("a session with the server failed")]
    Native {
        /// How.
        #[source]
        source: Box<NativeError>,
    },
}

impl From<NativeError> for ExecError {
    fn from(source: NativeError) -> Self {
        Self::Native {
            source: Box::new(source),
        }
    }
}

impl ExecError {
    /// The failure of a query over a session of ours, as psql tells it where the session can go on.
    #[must_use]
    pub fn of_query(query: &'static str, database: &str, source: NativeError) -> Self {
        match &source {
            NativeError::Server {
                severity,
                message,
                detail,
                hint,
                ..
            } if &**severity == "ERROR" => {
                let mut message = format!("ERROR:  {message}");
                for (name, more) in [("DETAIL", detail), ("HINT", hint)] {
                    if let Some(more) = more {
                        message.push_str(&format!(" | {name}:  {more}"));
                    }
                }
                Self::Query {
                    query,
                    database: database.to_owned(),
                    message,
                }
            }
            _ => source.into(),
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Runtime { source, .. } => source.code(),
            Self::ContainerChanged { .. } | Self::ServerChanged { .. } => codes::CONTAINER_CHANGED,
            Self::SidecarLost { .. } => codes::RUNTIME_FAILED,
            Self::ProgramMissing { .. } => codes::PROGRAM_MISSING,
            Self::ProgramTooOld { .. } => codes::PROGRAM_TOO_OLD,
            Self::Stalled { .. } => codes::PROGRAM_STALLED,
            Self::Interrupted { .. } => codes::INTERRUPTED,
            Self::CredentialsRefused { .. } => codes::CREDENTIALS_REFUSED,
            Self::ServerUnreachable { .. } => codes::SERVER_UNREACHABLE,
            Self::Tls { .. } => codes::TLS_FAILED,
            Self::Pooler { .. } => codes::POOLER_IN_THE_WAY,
            Self::Native { source } => source.code(),
            Self::Query { .. } => codes::QUERY_FAILED,
            Self::Spawn { .. }
            | Self::Failed { .. }
            | Self::ExitUnknown { .. }
            | Self::Input { .. }
            | Self::File { .. } => codes::PROGRAM_FAILED,
        }
    }

    /// Wraps the error for a reader: it travels as the last item of [`super::ProgramOutput`].
    #[must_use]
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Takes an `ExecError` back out of a reader's error, or returns the error as it was.
    ///
    /// # Errors
    /// The untouched `io::Error`, when it carries no `ExecError`.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let inner = error
                .into_inner()
                .and_then(|inner| inner.downcast::<Self>().ok());
            inner.map_or_else(
                || Err(io::Error::other("the error of a program was lost")),
                |inner| Ok(*inner),
            )
        } else {
            Err(error)
        }
    }
}

/// The last lines, or those from the last error on, where it was longer ago: pg_dump shows the whole
/// statement behind it.
fn last_lines(stderr: &[String]) -> String {
    const SHOWN: usize = 5;
    if stderr.is_empty() {
        return "it said nothing on standard error".to_owned();
    }
    let is_error = |line: &String| {
        let marks = ["error:", "ERROR:", "FATAL:", "PANIC:"];
        marks.iter().any(|mark| line.contains(mark))
    };
    let end = stderr.len().saturating_sub(SHOWN);
    let from = match stderr.iter().rposition(is_error) {
        Some(at) => at.min(end),
        None => end,
    };
    stderr[from..stderr.len().min(from + SHOWN)].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_over_a_session_fails_in_the_words_of_psql() {
        let server = |severity: &str| NativeError::Server {
            sqlstate: "55006".to_owned(),
            severity: severity.into(),
            message: "it is in use".to_owned(),
            detail: Some("There is 1 other session.".into()),
            hint: None,
            context: None,
        };
        let error = ExecError::of_query("dropping", "d", server("ERROR"));
        let shown = error.to_string();
        let words = "ERROR:  it is in use | DETAIL:  There is 1 other session.";
        assert!(shown.ends_with(words), "{shown}");
        // The session is gone.
        let error = ExecError::of_query("dropping", "d", server("FATAL"));
        assert!(matches!(error, ExecError::Native { .. }), "{error:?}");
    }

    #[test]
    fn the_error_is_shown_before_the_statement_that_failed() {
        let lines = |count: usize| -> Vec<String> {
            (0..count).map(|line| format!("LEFT JOIN {line}")).collect()
        };
        let mut stderr = lines(2);
        stderr.push("pg_dump: error: query failed: ERROR:  no room".to_owned());
        stderr.extend(lines(9));
        let shown = last_lines(&stderr);
        assert!(shown.starts_with("pg_dump: error: query failed"), "{shown}");
        assert!(shown.ends_with("LEFT JOIN 3"), "{shown}");
        // Near the end, what came before it is shown as well.
        assert_eq!(last_lines(&stderr[..3]), stderr[..3].join(" | "));
        assert_eq!(last_lines(&lines(7)), lines(7)[2..].join(" | "));
    }
}
