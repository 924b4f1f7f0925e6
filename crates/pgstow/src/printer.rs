//! Owns all output: results on standard output, messages on standard error.
//!
//! A message never tears a progress bar: while bars are drawn they are lifted for the moment.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use dbexec::EnvSnapshot;
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::args::ColorArg;
use crate::error::CommandError;

/// Bytes of output that are written at once.
const BUFFER: usize = 64 << 10;

/// How and where to print.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Results and errors as JSON on standard output.
    pub(crate) json: bool,
    /// No messages but warnings and errors; results in their shortest form.
    pub(crate) quiet: bool,
    /// Colours on standard error.
    color: bool,
    /// Colours on standard output, which may go elsewhere.
    color_results: bool,
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
    /// Looks at the terminal and at `NO_COLOR`, which an explicit `--color` overrules.
    pub(crate) fn new(json: bool, quiet: bool, color: ColorArg, env: &EnvSnapshot) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = env.get("TERM") == Some("dumb");
        let plain = dumb || env.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |terminal: bool| match color {
            ColorArg::Auto => terminal && !plain,
            ColorArg::Always => true,
            ColorArg::Never => false,
        };
        let bars = (terminal && !dumb && !json && !quiet)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self {
            json,
            quiet,
            color: colored(terminal),
            color_results: colored(io::stdout().is_terminal()),
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
        let line = harmless(line.as_ref());
        self.standard_output(|out| out.write_all(line.as_bytes()));
    }

    /// One JSON value on a line of standard output, flushed at once. A manifest of 100,000 tables is
    /// 20 MB, which are never in memory as a whole.
    pub(crate) fn json_line<T: Serialize + ?Sized>(&self, value: &T) {
        self.standard_output(|out| {
            serde_json::to_writer(out, value).map_err(|error| {
                if !error.is_io() {
                    tracing::error!(%error, "a result could not be written as JSON");
                }
                io::Error::from(error)
            })
        });
    }

    fn standard_output(&self, line: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let written = self.lifted(|| {
            // Standard output itself would look for line breaks in every few bytes.
            let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
            line(&mut out)?;
            out.write_all(b"\n")?;
            out.flush()
        });
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
        let text = harmless(text);
        let _ = self.lifted(|| writeln!(io::stderr().lock(), "{text}"));
    }

    fn lifted<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Text for standard error, with a colour where the terminal shows it.
    pub(crate) fn styled(&self, text: &str, style: Style) -> String {
        paint(self.color, text, style)
    }

    /// Text for standard output, with a colour where the terminal shows it.
    pub(crate) fn styled_result(&self, text: &str, style: Style) -> String {
        paint(self.color_results, text, style)
    }
}

fn paint(color: bool, text: &str, style: Style) -> String {
    match color {
        true => format!("{}{text}{RESET}", style.code()),
        false => text.to_owned(),
    }
}

const RESET: &str = "\u{1b}[0m";

impl Style {
    const ALL: [Self; 4] = [Self::Good, Self::Warning, Self::Bad, Self::Strong];

    fn code(self) -> &'static str {
        match self {
            Self::Good => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Bad => "\u{1b}[1;31m",
            Self::Strong => "\u{1b}[1m",
        }
    }
}

/// Text in which nothing moves the cursor, rewrites lines or turns the direction of writing:
/// names and the words of servers are data. Line breaks, tabs and our own colours stay.
fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let ours = |rest: &str| {
        Style::ALL
            .iter()
            .map(|style| style.code())
            .chain([RESET])
            .find(|code| rest.starts_with(code))
    };
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match ours(rest) {
            Some(code) => {
                safe.push_str(code);
                code.len()
            }
            None if harmful(c) => {
                safe.extend(c.escape_unicode());
                c.len_utf8()
            }
            None => {
                safe.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    Cow::Owned(safe)
}

fn harmful(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_cannot_drive_the_terminal() {
        for (text, safe) in [
            ("plain\ttext\nü", "plain\ttext\nü"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("gone\rback", "gone\\u{d}back"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
        ] {
            assert_eq!(harmless(text), safe);
        }
    }

    #[test]
    fn our_own_colours_stay() {
        for style in Style::ALL {
            let text = paint(true, "x", style);
            assert_eq!(harmless(&text), text);
            assert_eq!(paint(false, "x", style), "x");
        }
    }

    #[test]
    fn an_explicit_wish_overrules_the_environment() {
        let env: EnvSnapshot = [("NO_COLOR", "1")].into_iter().collect();
        let printer = |color| Printer::new(true, false, color, &env);
        assert!(printer(ColorArg::Always).color && printer(ColorArg::Always).color_results);
        assert!(!printer(ColorArg::Auto).color && !printer(ColorArg::Never).color);
    }
}
