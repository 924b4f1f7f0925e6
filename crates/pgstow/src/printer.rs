//! Owns all output: results on standard output, messages on standard error.
//!
//! A message never tears a progress bar: while bars are drawn they are lifted for the moment.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use dbexec::EnvSnapshot;
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::error::CommandError;

/// How and where to print.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Results and errors as JSON on standard output.
    pub(crate) json: bool,
    /// No messages but warnings and errors; results in their shortest form.
    pub(crate) quiet: bool,
    color: bool,
    bars: Option<MultiProgress>,
    failed: AtomicBool,
}

/// Marks that a terminal shows in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Warning,
    Bad,
    Strong,
}

impl Printer {
    /// Looks at the terminal and at `NO_COLOR`.
    pub(crate) fn new(json: bool, quiet: bool, env: &EnvSnapshot) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = env.get("TERM") == Some("dumb");
        let bars = (terminal && !dumb && !json && !quiet)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self {
            json,
            quiet,
            color: terminal && !dumb && env.get("NO_COLOR").is_none(),
            bars,
            failed: AtomicBool::new(false),
        }
    }

    /// The place for progress bars, on a terminal only.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// A line of a result on standard output.
    pub(crate) fn result(&self, line: impl AsRef<str>) {
        self.standard_output(line.as_ref().as_bytes());
    }

    /// One JSON value on a line of standard output, flushed at once.
    pub(crate) fn json_line<T: Serialize + ?Sized>(&self, value: &T) {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.standard_output(&bytes),
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                tracing::error!(%error, "a result could not be written as JSON");
            }
        }
    }

    fn standard_output(&self, bytes: &[u8]) {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.write_all(b"\n")?;
            out.flush()
        };
        let written = self.lifted(write);
        // A reader that has seen enough (`| head`) is no failure of the command.
        if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a result could not be written.
    pub(crate) fn output_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// What was chosen, what is going on: standard error, not with `--quiet`.
    pub(crate) fn message(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.standard_error(text.as_ref());
        }
    }

    /// Something to be read: standard error, also with `--quiet`.
    pub(crate) fn warning(&self, text: impl AsRef<str>) {
        let mark = self.styled("warning:", Style::Warning);
        self.standard_error(&format!("{mark} {}", text.as_ref()));
    }

    /// The command's failure: on standard error, and as an object on standard output with `--json`.
    pub(crate) fn error(&self, error: &CommandError) {
        let mut text = String::new();
        for (at, message) in error.messages.iter().enumerate() {
            let message = message.replace('\n', "\n  ");
            match at {
                0 => text = format!("{} {message}", self.styled("error:", Style::Bad)),
                _ => text.push_str(&format!("\n  caused by: {message}")),
            }
        }
        text.push_str(&format!("\n  code: {} (exit {})", error.code, error.exit));
        for hint in &error.hints {
            text.push_str(&format!(
                "\n  {} {hint}",
                self.styled("next:", Style::Strong)
            ));
        }
        self.standard_error(&text);
        if self.json {
            self.json_line(&error.json());
        }
    }

    fn standard_error(&self, text: &str) {
        // Where standard error is closed nothing can be told, and the work still counts.
        let _ = self.lifted(|| writeln!(io::stderr().lock(), "{text}"));
    }

    fn lifted<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Text with a colour where the terminal shows it.
    pub(crate) fn styled(&self, text: &str, style: Style) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match style {
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "1;31",
            Style::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
