//! What pg_restore says on standard error, judged by a table that was reviewed by hand: a message
//! is either known to be harmless, with the reason, or fatal. What is not in the table is fatal.
//!
//! pg_restore runs with `LC_ALL=C`, so its own words are known. The server's words are in its
//! `lc_messages`; in another language nothing of the table matches and every error is fatal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dbexec::{
    ExecError, PgProgram,
    executor::{Finished, ProgramExit, StderrWatch},
};
use tokio_util::sync::CancellationToken;

/// Lines of a fatal message that are kept.
const MOST_LINES: usize = 12;
/// Different harmless messages that are listed.
const MOST_LISTED: usize = 50;

/// A failed statement that does no harm.
struct Harmless {
    /// The server's message, whole.
    message: &'static str,
    /// The statement, whole: the same message on another statement is fatal.
    statement: &'static str,
    /// Why it does no harm.
    reason: &'static str,
}

/// The table of failed statements. Each row has a test.
const HARMLESS: &[Harmless] = &[
    // pg_dump --schema public, and every pg_dump before 11.
    Harmless {
        message: "schema \"public\" already exists",
        statement: "CREATE SCHEMA public;",
        reason: "every new database has this schema; its owner, comment and privileges are set \
                 all the same",
    },
    // The same dumps, restored by a role that does not own the schema.
    Harmless {
        message: "must be owner of schema public",
        statement: "COMMENT ON SCHEMA public IS 'standard public schema';",
        reason: "the schema of a new database has this very comment",
    },
    // pg_dump before 11.
    Harmless {
        message: "must be owner of extension plpgsql",
        statement: "COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language';",
        reason: "the extension of a new database has this very comment",
    },
    // pg_restore 17 and later with a server before 17.
    Harmless {
        message: "unrecognized configuration parameter \"transaction_timeout\"",
        statement: "SET transaction_timeout = 0;",
        reason: "it switches off a limit that this server does not have",
    },
];

/// How a warning of pg_restore's own begins, and what is thought of it.
enum Warning {
    /// The total of what was said before.
    Total,
    /// Said on, with a reason.
    Harmless(&'static str),
    /// Objects or rows are missing.
    Fatal,
}

/// The table of warnings. Others are said on as they are: pg_restore itself goes on after them,
/// and what they could mean is found by the comparison of the rows.
const WARNINGS: &[(&str, Warning)] = &[
    ("errors ignored on restore: ", Warning::Total),
    (
        "archive is compressed, but this installation does not support compression",
        Warning::Fatal,
    ),
    // Of the list of entries (-L), which is ours.
    ("line ignored: ", Warning::Fatal),
    (
        "ftell mismatch with expected position",
        Warning::Harmless("pg_restore uses the position that it found itself"),
    ),
    (
        "invalid creation date in header",
        Warning::Harmless("the date is shown to people and not used"),
    ),
];

/// Judges lines as they come.
#[derive(Default)]
pub(crate) struct Judge {
    /// Errors that are harmless if their statement is the right one, oldest first. There may be
    /// several: the lines of parallel jobs mix.
    pending: Vec<String>,
    /// Harmless messages with their reasons, and how often each came.
    harmless: BTreeMap<String, u64>,
    /// Number of errors among them.
    harmless_errors: u64,
    /// The first fatal message with the lines that belong to it.
    fatal: Vec<String>,
    /// Whether lines without a prefix belong to the fatal message.
    in_fatal: bool,
    /// What pg_restore counted, at its end.
    total: Option<u64>,
}

impl Judge {
    /// Takes a line; returns whether something fatal was said so far.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(error) = line.strip_prefix("pg_restore: error: ") {
            self.error(line, error);
        } else if let Some(warning) = line.strip_prefix("pg_restore: warning: ") {
            self.warning(line, warning);
        } else if let Some(statement) = line.strip_prefix("Command was: ") {
            self.statement(line, statement);
        } else if line.starts_with("pg_restore: ") {
            // Details and hints belong to what was said before; `while …` and `from TOC entry …`
            // come before an error.
            let belongs =
                line.starts_with("pg_restore: detail: ") || line.starts_with("pg_restore: hint: ");
            self.in_fatal &= belongs;
            self.more(line);
        } else {
            self.more(line);
        }
        !self.fatal.is_empty()
    }

    fn error(&mut self, line: &str, error: &str) {
        let message = error
            .strip_prefix("could not execute query: ERROR:")
            .map(str::trim_start);
        match message.filter(|message| HARMLESS.iter().any(|row| row.message == *message)) {
            Some(message) => {
                self.in_fatal = false;
                self.pending.push(message.to_owned());
            }
            None => self.fatal(line),
        }
    }

    fn warning(&mut self, line: &str, warning: &str) {
        self.in_fatal = false;
        let row = WARNINGS
            .iter()
            .find(|(start, _)| warning.starts_with(start));
        match row {
            Some((start, Warning::Total)) => self.total = warning[start.len()..].parse().ok(),
            Some((_, Warning::Fatal)) => self.fatal(line),
            Some((_, Warning::Harmless(reason))) => {
                self.harmless(format!("{line} (harmless: {reason})"));
            }
            None => self.harmless(line.to_owned()),
        }
    }

    /// The statement of an error.
    fn statement(&mut self, line: &str, statement: &str) {
        if self.in_fatal {
            self.more(line);
            return;
        }
        let row = |message: &str| {
            HARMLESS
                .iter()
                .find(|row| row.message == message && row.statement == statement)
        };
        let found = self
            .pending
            .iter()
            .enumerate()
            .find_map(|(at, message)| Some((at, row(message)?)));
        if let Some((at, row)) = found {
            self.pending.remove(at);
            self.harmless_errors += 1;
            self.harmless(format!(
                "pg_restore: error: {}, on {} (harmless: {})",
                row.message, row.statement, row.reason
            ));
        } else if !self.pending.is_empty() {
            let message = self.pending.remove(0);
            self.fatal(&format!("pg_restore: error: {message}"));
            self.more(line);
        }
    }

    fn harmless(&mut self, message: String) {
        if self.harmless.len() < MOST_LISTED || self.harmless.contains_key(&message) {
            *self.harmless.entry(message).or_default() += 1;
        }
    }

    fn fatal(&mut self, line: &str) {
        self.in_fatal = true;
        self.more(line);
    }

    fn more(&mut self, line: &str) {
        if self.in_fatal && self.fatal.len() < MOST_LINES {
            self.fatal.push(line.to_owned());
        }
    }

    /// The harmless messages, for people.
    fn listed(&self) -> Vec<String> {
        self.harmless
            .iter()
            .map(|(message, times)| match times {
                1 => message.clone(),
                times => format!("{message} ({times} times)"),
            })
            .collect()
    }

    /// Whether an exit status of 1 is explained by harmless errors alone: pg_restore came to its
    /// end, and every error that it counted was judged.
    fn explains_failure(&self) -> bool {
        // Jobs say errors that the leader does not count, never the other way round.
        self.fatal.is_empty()
            && self.pending.is_empty()
            && self
                .total
                .is_some_and(|total| total > 0 && total <= self.harmless_errors)
    }
}

/// A [`Judge`] that listens to a running program and says when it has to be ended.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    judge: Arc<Mutex<Judge>>,
    /// Cancelled at the first fatal message.
    pub(crate) fatal: CancellationToken,
}

impl Listener {
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For [`dbexec::Invocation::on_stderr`].
    pub(crate) fn watch(&self) -> StderrWatch {
        let listener = self.clone();
        Arc::new(move |line| {
            if listener.judge().line(line) {
                listener.fatal.cancel();
            }
        })
    }

    /// Harmless messages so far, for people.
    pub(crate) fn harmless(&self) -> Vec<String> {
        self.judge().listed()
    }

    /// What the end of pg_restore means. `cancelled` says whether somebody else than the listener
    /// ended it.
    ///
    /// # Errors
    /// The failure, with the fatal message where there is one.
    pub(crate) fn outcome(
        &self,
        ended: Result<Finished, ExecError>,
        cancelled: bool,
    ) -> Result<Vec<String>, ExecError> {
        let judge = self.judge();
        if !judge.fatal.is_empty() && !cancelled {
            let exit = match ended {
                Err(ExecError::Failed { exit, .. }) => exit,
                Err(ExecError::Interrupted { .. }) | Ok(_) => ProgramExit::Code(1),
                // A lost connection or container explains more than what it made fail.
                Err(other) => return Err(other),
            };
            return Err(ExecError::Failed {
                program: PgProgram::PgRestore,
                exit,
                stderr: judge.fatal.clone(),
            });
        }
        match ended {
            Ok(_) => Ok(judge.listed()),
            Err(ExecError::Failed {
                exit: ProgramExit::Code(1),
                ..
            }) if judge.explains_failure() => Ok(judge.listed()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(lines: &[&str]) -> Result<Finished, ExecError> {
        Err(ExecError::Failed {
            program: PgProgram::PgRestore,
            exit: ProgramExit::Code(1),
            stderr: lines.iter().map(|line| (*line).to_owned()).collect(),
        })
    }

    fn outcome(text: &str) -> Result<Vec<String>, String> {
        let listener = Listener::default();
        let watch = listener.watch();
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        for line in &lines {
            watch(line);
        }
        listener
            .outcome(failed(&lines), false)
            .map_err(|error| error.to_string())
    }

    /// As pg_restore 13 writes it.
    fn said(row: &Harmless) -> String {
        format!(
            "pg_restore: while PROCESSING TOC:\n\
             pg_restore: from TOC entry 4; 2615 2200 SCHEMA public postgres\n\
             pg_restore: error: could not execute query: ERROR:  {}\nCommand was: {}\n\n\n",
            row.message, row.statement
        )
    }

    #[test]
    fn each_harmless_row_is_harmless_on_its_own_statement_alone() {
        for row in HARMLESS {
            let text = format!(
                "{}pg_restore: warning: errors ignored on restore: 1",
                said(row)
            );
            let listed = outcome(&text).unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert!(listed[0].contains(row.message) && listed[0].contains(row.reason));
            let other = text.replace(row.statement, "ALTER TABLE t ADD CHECK (true);");
            let error = outcome(&other).unwrap_err();
            assert!(
                error.contains(row.message) && error.contains("ADD CHECK"),
                "{error}"
            );
            // In another language it is not recognised.
            let other = text.replace(row.message, "Schema »public« existiert bereits");
            outcome(&other).unwrap_err();
            // Somebody ended pg_restore before its end.
            outcome(&said(row)).unwrap_err();
        }
    }

    #[test]
    fn statements_of_functions_that_set_the_parameter_are_fatal() {
        let text = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\n\
             Command was: CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql\n    SET transaction_timeout TO '0'\n    AS $$select 1$$;\n\
             pg_restore: warning: errors ignored on restore: 1";
        assert!(outcome(text).unwrap_err().contains("CREATE FUNCTION"));
    }

    #[test]
    fn what_is_not_known_is_fatal_and_keeps_its_detail() {
        let text = "pg_restore: error: COPY failed for table \"u\": ERROR:  duplicate key value violates unique constraint \"u_pkey\"\n\
             DETAIL:  Key (a)=(1) already exists.\nCONTEXT:  COPY u, line 1\n\
             pg_restore: from TOC entry 2911; 2606 16392 CONSTRAINT u u_pkey postgres\nlast";
        let listener = Listener::default();
        let watch = listener.watch();
        watch("pg_restore: warning: something new");
        assert!(!listener.fatal.is_cancelled());
        for line in text.lines() {
            watch(line);
            assert!(listener.fatal.is_cancelled(), "at the first line");
        }
        let error = listener.outcome(
            Err(ExecError::Interrupted {
                program: PgProgram::PgRestore,
            }),
            false,
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("duplicate key") && error.contains("Key (a)=(1)"));
        assert!(!error.contains("last"), "{error}");
        assert_eq!(listener.harmless(), ["pg_restore: warning: something new"]);
        // Cancelled by the user meanwhile: that is what is said.
        let error = listener.outcome(
            Err(ExecError::Interrupted {
                program: PgProgram::PgRestore,
            }),
            true,
        );
        assert!(matches!(error, Err(ExecError::Interrupted { .. })));
    }

    #[test]
    fn lines_of_parallel_jobs_mix() {
        let (schema, timeout) = (&HARMLESS[0], &HARMLESS[3]);
        let text = format!(
            "pg_restore: error: could not execute query: ERROR:  {}\n\
             pg_restore: error: could not execute query: ERROR:  {}\n\
             pg_restore: error: could not execute query: ERROR:  {}\n\
             Command was: {}\nCommand was: {}\nCommand was: {}\n\
             pg_restore: warning: errors ignored on restore: 2",
            timeout.message,
            schema.message,
            timeout.message,
            timeout.statement,
            timeout.statement,
            schema.statement
        );
        let listed = outcome(&text).unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().any(|message| message.ends_with("(2 times)")));
    }

    #[test]
    fn errors_that_were_not_seen_are_fatal() {
        let text = format!(
            "{}pg_restore: warning: errors ignored on restore: 2",
            said(&HARMLESS[0])
        );
        outcome(&text).unwrap_err();
        outcome("pg_restore: warning: errors ignored on restore: 1").unwrap_err();
        outcome("").unwrap_err();
    }

    #[test]
    fn each_warning_of_the_table() {
        for (start, kind) in WARNINGS {
            let listener = Listener::default();
            listener.watch()(&format!("pg_restore: warning: {start}7 x"));
            let outcome = listener.outcome(Ok(Finished::default()), false);
            match kind {
                Warning::Total => assert_eq!(outcome.unwrap(), Vec::<String>::new()),
                Warning::Harmless(reason) => assert!(outcome.unwrap()[0].contains(reason)),
                Warning::Fatal => assert!(outcome.unwrap_err().to_string().contains(start)),
            }
        }
        // A success in spite of an error would be a contradiction.
        let listener = Listener::default();
        listener.watch()("pg_restore: error: could not do it");
        listener
            .outcome(Ok(Finished::default()), false)
            .unwrap_err();
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut judge = Judge::default();
        for number in 0..100_000 {
            judge.line(&format!("pg_restore: warning: number {number}"));
            judge.line("a line more");
        }
        judge.line("pg_restore: error: at last");
        for _ in 0..100_000 {
            judge.line("a line more");
        }
        assert_eq!(judge.listed().len(), MOST_LISTED);
        assert_eq!(judge.fatal.len(), MOST_LINES);
    }
}
