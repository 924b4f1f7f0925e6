//! One psql that is kept open: several scripts in one session of the server, so that a snapshot or
//! a lock is held while something else runs.
//!
//! Each script is followed by a random mark that psql prints, on both of its outputs, with the
//! state of the last error. What was printed before the mark is the answer. psql goes on after an
//! error of a statement; only the end of psql itself ends the session.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::executor::{
    ExecError, Input, Invocation, PgExecutor, PgProgram, ProgramOutput, RunningProgram,
};
use crate::query::{self, HELD, MAX_ANSWER, RowDecoder, Taking};

/// Bytes of a script that wait for psql.
const PIPE: usize = 64 * 1024;
/// Lines of standard error that are kept.
const MAX_LINES: usize = 400;
/// How long the words of an error may come after its state.
const WORDS_WAIT: Duration = Duration::from_secs(2);
/// SQLSTATE of no error.
const NO_ERROR: &str = "00000";
/// SQLSTATE of every statement in a transaction that failed before.
const FAILED_BEFORE: &str = "25P02";

/// The number of a session in this process: several of one run are told apart by it.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// An open session of psql.
///
/// Dropping it ends psql and its session of the server; [`PsqlSession::close`] also waits for
/// that.
pub struct PsqlSession {
    database: String,
    input: DuplexStream,
    /// `None` after psql ended.
    program: Option<RunningProgram>,
    busy: Arc<AtomicBool>,
    words: Arc<Words>,
    mark: String,
    /// Scripts that were sent.
    sent: u64,
    /// A script was sent and its answer was not read to its mark.
    torn: bool,
}

impl PsqlSession {
    /// Opens a session on a database, in UTF-8, without a timeout of statements, idle time or
    /// transactions, and with the settings' `lock_timeout`. Idle time is no stall. `cancel` ends it.
    ///
    /// # Errors
    /// The login's refusal, or the program's failure.
    pub async fn open(
        executor: &dyn PgExecutor,
        database: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, ExecError> {
        match Self::try_open(executor, database, cancel).await {
            // Without a shell psql is started directly, which the search for programs finds out.
            Err(ExecError::ProgramMissing { .. }) => {
                executor.program(PgProgram::Psql).await?;
                Self::try_open(executor, database, cancel).await
            }
            opened => opened,
        }
    }

    async fn try_open(
        executor: &dyn PgExecutor,
        database: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, ExecError> {
        let settings = executor.settings();
        let (input, reader) = tokio::io::duplex(PIPE);
        let args = ["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=0"];
        let mut args: Vec<String> = args.map(str::to_owned).into();
        args.extend(["-f".to_owned(), "-".to_owned()]);
        let mut invocation = Invocation::new(
            PgProgram::Psql,
            args,
            Some(database.to_owned()),
            Input::Stream(Box::pin(reader)),
            cancel.clone(),
        );
        let words = Arc::new(Words::default());
        let busy = Arc::new(AtomicBool::new(true));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        invocation.application_name = Some(format!("{}-s{number}", settings.application_name));
        invocation.busy = Some(Arc::clone(&busy));
        let watch = Arc::clone(&words);
        invocation.on_stderr = Some(Arc::new(move |line| watch.push(line)));
        let program = executor.start(invocation).await?;
        let mut session = Self {
            database: database.to_owned(),
            input,
            program: Some(program),
            busy,
            words,
            mark: format!("pgstow-mark-{:032x}", rand::random::<u128>()),
            sent: 0,
            torn: false,
        };
        let script = format!(
            "set client_encoding to 'UTF8';\n\
             set lock_timeout to {};\n\
             select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings\n\
             where name in ('statement_timeout', 'idle_in_transaction_session_timeout',\n\
                            'idle_session_timeout', 'transaction_timeout');\n",
            settings.lock_wait_timeout.as_millis()
        );
        session.run("open a session", &script, &[]).await?;
        Ok(session)
    }

    /// Runs a script and returns what it printed (unaligned, no headings). `vars` are psql
    /// variables for this script alone: use `:'name'` for a literal and `:"name"` for an
    /// identifier, so that values stay data.
    ///
    /// All statements are sent, also after one that failed; inside a transaction the server refuses
    /// the later ones by itself. A script that deals with an error (`\if :ERROR`) forgets it with
    /// `\set LAST_ERROR_SQLSTATE 00000`. A script has to be whole: an open quote or `\if` would
    /// swallow the mark, and psql would be waited for until the run is cancelled.
    ///
    /// # Errors
    /// [`ExecError::Query`] with the server's words when a statement failed: the session can go on.
    /// Any other error is psql's end. A script whose future was dropped half-way ends the session.
    pub async fn run(
        &mut self,
        name: &'static str,
        script: &str,
        vars: &[(&str, &str)],
    ) -> Result<String, ExecError> {
        self.run_taking(name, script, vars, &mut |_| {}).await
    }

    /// As [`PsqlSession::run`]; `taking` may take from the front of a long answer while it comes.
    async fn run_taking(
        &mut self,
        name: &'static str,
        script: &str,
        vars: &[(&str, &str)],
        taking: Taking<'_>,
    ) -> Result<String, ExecError> {
        if self.program.is_some() && self.torn {
            return Err(self.failed(name, "an earlier script was not read to its end"));
        }
        let mut text = String::with_capacity(script.len() + 256);
        let _ = writeln!(text, "\\set LAST_ERROR_SQLSTATE {NO_ERROR}");
        for (variable, value) in vars {
            let value = quote(value)
                .ok_or_else(|| self.failed(name, "a value holds a zero byte, which psql cannot"))?;
            let _ = writeln!(text, "\\set {variable} {value}");
        }
        self.sent += 1;
        let mark = format!("{}-{}", self.mark, self.sent);
        let _ = writeln!(text, "{script}{}", missing_end(script));
        for (variable, _) in vars {
            let _ = writeln!(text, "\\unset {variable}");
        }
        let _ = writeln!(text, "\\echo {mark} :LAST_ERROR_SQLSTATE\n\\warn {mark}");
        let Some(program) = &mut self.program else {
            return Err(self.failed(name, "the session is over"));
        };
        self.torn = true;
        self.busy.store(true, Ordering::Relaxed);
        // Both at once: psql may print much before it has read all. Where it ended, the reading
        // says why.
        let write = async { self.input.write_all(text.as_bytes()).await };
        let (_, answer) = tokio::join!(write, read_to_mark(&mut program.stdout, &mark, taking));
        self.busy.store(false, Ordering::Relaxed);
        let (answer, state) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.program = None;
                return Err(error.into_exec(name, &self.database));
            }
        };
        self.torn = false;
        if state == NO_ERROR {
            return String::from_utf8(answer)
                .map_err(|_| self.failed(name, "the answer is not UTF-8"));
        }
        let before = format!("{}-{}", self.mark, self.sent - 1);
        let words = self.words.between(&before, &mark).await;
        let words = complaint(&words, &state);
        Err(self.failed(name, &words))
    }

    /// Runs one SELECT and decodes each row from JSON, as [`query::rows`] does.
    ///
    /// # Errors
    /// As [`PsqlSession::run`].
    pub async fn rows<T: DeserializeOwned + Send>(
        &mut self,
        name: &'static str,
        select: &str,
        vars: &[(&str, &str)],
    ) -> Result<Vec<T>, ExecError> {
        let mut decoder = RowDecoder::new();
        let script = query::json_rows(select);
        let mut taking = |text: &mut Vec<u8>| decoder.take(text);
        let rest = self.run_taking(name, &script, vars, &mut taking).await?;
        decoder.finish(name, &self.database, rest.into_bytes())
    }

    /// Ends psql in peace and waits for its end; an open transaction is rolled back.
    ///
    /// # Errors
    /// The program's failure.
    pub async fn close(self) -> Result<(), ExecError> {
        let Self {
            mut input, program, ..
        } = self;
        let _ = input.shutdown().await;
        drop(input);
        match program {
            Some(program) => program.finish(PgProgram::Psql).await.map(drop),
            None => Ok(()),
        }
    }

    fn failed(&self, query: &'static str, message: &str) -> ExecError {
        ExecError::Query {
            query,
            database: self.database.clone(),
            message: message.to_owned(),
        }
    }
}

/// Why no mark was read.
enum Unread {
    Reading(std::io::Error),
    Ended,
    TooLong,
}

impl Unread {
    fn into_exec(self, name: &'static str, database: &str) -> ExecError {
        let message = match self {
            Self::Reading(error) => {
                return ExecError::from_io(error).unwrap_or_else(|source| ExecError::Spawn {
                    operation: "reading",
                    program: PgProgram::Psql,
                    source,
                });
            }
            Self::Ended => "psql ended in the middle of the script".to_owned(),
            Self::TooLong => format!("the answer is longer than {} MiB", MAX_ANSWER >> 20),
        };
        ExecError::Query {
            query: name,
            database: database.to_owned(),
            message,
        }
    }
}

/// Reads to the line of a mark and returns what stood before it, and the state after it.
async fn read_to_mark(
    output: &mut ProgramOutput,
    mark: &str,
    taking: Taking<'_>,
) -> Result<(Vec<u8>, String), Unread> {
    let mark = format!("{mark} ");
    let mut text: Vec<u8> = Vec::new();
    let mut total = 0;
    loop {
        let from = text.len().saturating_sub(mark.len() + 8);
        let piece = output.fill_buf().await.map_err(Unread::Reading)?;
        if piece.is_empty() {
            return Err(Unread::Ended);
        }
        let length = piece.len();
        text.extend_from_slice(piece);
        output.consume(length);
        // psql prints nothing after the line of the mark until it is given more.
        if text.ends_with(b"\n")
            && let Some(at) = find(&text[from..], mark.as_bytes())
        {
            let state = String::from_utf8_lossy(&text[from + at + mark.len()..])
                .trim()
                .to_owned();
            text.truncate(from + at);
            return Ok((text, state));
        }
        total += length as u64;
        if total > MAX_ANSWER {
            return Err(Unread::TooLong);
        }
        if text.len() > HELD {
            taking(&mut text);
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

/// Lines of standard error, with the marks between the scripts.
#[derive(Default)]
struct Words {
    lines: Mutex<VecDeque<String>>,
    more: Notify,
}

impl Words {
    fn push(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
        drop(lines);
        self.more.notify_one();
    }

    /// The lines between two marks; waits a bounded time for the second one.
    async fn between(&self, before: &str, after: &str) -> Vec<String> {
        let whole = async {
            while !self.has(after) {
                self.more.notified().await;
            }
        };
        // psql older than 13 prints no mark here; its words are there all the same.
        let _ = tokio::time::timeout(WORDS_WAIT, whole).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let start = lines
            .iter()
            .rposition(|line| line == before)
            .map_or(0, |at| at + 1);
        lines
            .iter()
            .skip(start)
            .take_while(|line| *line != after)
            .cloned()
            .collect()
    }

    fn has(&self, mark: &str) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(|line| line == mark)
    }
}

/// The first error's own lines, without `psql:<stdin>:7: ` before them; what the server repeats
/// for each later statement of a failed transaction says nothing.
fn complaint(lines: &[String], state: &str) -> String {
    let is_error = |line: &str| {
        ["ERROR:  ", "FATAL:  "]
            .iter()
            .any(|word| line.contains(word))
    };
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| match line.strip_prefix("psql:<stdin>:") {
            Some(rest) => rest.split_once(": ").map_or(rest, |(_, words)| words),
            None => line,
        })
        .skip_while(|line| !is_error(line))
        .collect();
    let count = lines
        .iter()
        .skip(1)
        .position(|line| {
            is_error(line) || line.starts_with("NOTICE:") || line.starts_with("WARNING:")
        })
        .map_or(lines.len(), |at| at + 1);
    match lines.get(..count.min(8)) {
        Some(first) if !first.is_empty() => first.join(" | "),
        _ if state == FAILED_BEFORE => "an earlier statement of the transaction failed".to_owned(),
        _ => format!("SQLSTATE {state}"),
    }
}

/// The semicolon that the last statement lacks: without it psql would keep the statement, and the
/// next script would be part of it.
fn missing_end(script: &str) -> &'static str {
    let last = script.trim_end().lines().last().unwrap_or_default();
    let is_command = last.trim_start().starts_with('\\');
    if is_command || last.is_empty() || last.ends_with(';') {
        ""
    } else {
        // On a line of its own: the last one may be a comment.
        "\n;"
    }
}

/// A value as one argument of a psql command. `None` for what psql cannot hold.
fn quote(value: &str) -> Option<String> {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for character in value.chars() {
        match character {
            '\0' => return None,
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_values() {
        assert_eq!(quote("a'b\\c\nd").as_deref(), Some(r"'a\'b\\c\nd'"));
        assert_eq!(quote("a\0b"), None);
    }

    #[test]
    fn a_statement_is_ended() {
        for whole in [
            "select 1;",
            "select 1; \n",
            "",
            "select 1\n\\gset x_",
            "\\echo x",
        ] {
            assert_eq!(missing_end(whole), "", "{whole}");
        }
        for open in ["select 1", "select 1 -- one", "commit\n"] {
            assert_eq!(missing_end(open), "\n;", "{open}");
        }
    }

    #[test]
    fn the_first_error_speaks() {
        let lines = [
            "psql:<stdin>:3: NOTICE:  x",
            "psql:<stdin>:7: ERROR:  relation \"t\" does not exist",
            "LINE 1: select * from t",
            "psql:<stdin>:8: ERROR:  current transaction is aborted",
        ]
        .map(str::to_owned);
        assert_eq!(
            complaint(&lines, FAILED_BEFORE),
            "ERROR:  relation \"t\" does not exist | LINE 1: select * from t"
        );
        assert_eq!(complaint(&[], "42P01"), "SQLSTATE 42P01");
    }

    #[tokio::test]
    async fn a_mark_is_found_at_every_split() {
        let text = "row one\nrow two\nmark-1 42P01\n";
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            let reader = tokio::io::AsyncReadExt::chain(head.as_bytes(), tail.as_bytes());
            let mut output: ProgramOutput = Box::pin(reader);
            let (answer, state) = read_to_mark(&mut output, "mark-1", &mut |_| {})
                .await
                .ok()
                .unwrap();
            assert_eq!(answer, b"row one\nrow two\n", "split at {at}");
            assert_eq!(state, "42P01");
        }
    }
}
