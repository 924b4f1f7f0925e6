//! What a command fails with: code, messages from the outside in, and what to run next.

use std::error::Error;

use backup::BackupError;
use dbexec::{DiscoverError, ExecError, SandboxError};
use serde::Serialize;
use storage::StoreError;

use crate::exit::{self, codes};

/// The failure of a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// Stable code.
    pub(crate) code: &'static str,
    /// Exit code.
    pub(crate) exit: u8,
    /// What was tried, then what failed, down to the first cause; none repeats another.
    pub(crate) messages: Vec<String>,
    /// What to run or change next, one line each.
    pub(crate) hints: Vec<String>,
}

/// The error object of `--json`.
#[derive(Serialize)]
pub(crate) struct JsonError<'a> {
    error: JsonFields<'a>,
}

#[derive(Serialize)]
struct JsonFields<'a> {
    code: &'a str,
    message: &'a str,
    causes: &'a [String],
    hints: &'a [String],
    exit_code: u8,
}

impl CommandError {
    /// An error of the binary's own.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::build(code, vec![message.into()], Vec::new())
    }

    /// Arguments that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(codes::USAGE, message)
    }

    /// An error with its sources.
    pub(crate) fn caused(
        code: &'static str,
        message: impl Into<String>,
        cause: &dyn Error,
    ) -> Self {
        let mut messages = vec![message.into()];
        add_chain(cause, &mut messages);
        Self::build(code, messages, Vec::new())
    }

    /// Adds a step that helps; hints of the error itself come before the general one.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.insert(0, hint.into());
        self
    }

    fn build(code: &'static str, messages: Vec<String>, hints: Vec<String>) -> Self {
        let consequence = exit::consequence(code);
        let mut hints = hints;
        if hints.is_empty()
            && let Some(hint) = consequence.and_then(|consequence| consequence.hint)
        {
            hints.push(hint.to_owned());
        }
        Self {
            code,
            exit: consequence.map_or(exit::FAILED, |consequence| consequence.exit),
            messages,
            hints,
        }
    }

    fn of(code: &'static str, error: &dyn Error, hints: Vec<String>) -> Self {
        let mut messages = Vec::new();
        add_chain(error, &mut messages);
        Self::build(code, messages, hints)
    }

    /// The error object of `--json`.
    pub(crate) fn json(&self) -> JsonError<'_> {
        let (message, causes) = self
            .messages
            .split_first()
            .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        JsonError {
            error: JsonFields {
                code: self.code,
                message,
                causes,
                hints: &self.hints,
                exit_code: self.exit,
            },
        }
    }
}

/// Appends an error and its sources, leaving out what an outer message says already.
fn add_chain(error: &dyn Error, messages: &mut Vec<String>) {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !messages.iter().any(|message| message.contains(&text)) {
            messages.push(text);
        }
        next = error.source();
    }
}

/// An error with its sources on one line, for warnings.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut messages = Vec::new();
    add_chain(error, &mut messages);
    messages.join(": ")
}

impl From<DiscoverError> for CommandError {
    fn from(error: DiscoverError) -> Self {
        Self::of(error.code(), &error, error.hints())
    }
}

impl From<ExecError> for CommandError {
    fn from(error: ExecError) -> Self {
        Self::of(error.code(), &error, Vec::new())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::of(error.code(), &error, Vec::new())
    }
}

impl From<SandboxError> for CommandError {
    fn from(error: SandboxError) -> Self {
        Self::of(error.code(), &error, Vec::new())
    }
}

impl From<BackupError> for CommandError {
    fn from(error: BackupError) -> Self {
        let mut command = Self::of(error.code(), &error, own_hints(&error));
        // Found before anything began: the code says what would have failed, the exit code says
        // that nothing was tried.
        if matches!(error, BackupError::Preflight { .. }) {
            command.exit = exit::REFUSED;
        }
        command
    }
}

/// What the error itself knows about the way out.
fn own_hints(error: &BackupError) -> Vec<String> {
    match error {
        BackupError::RightsMissing { grants, .. } => grants.clone(),
        BackupError::Preflight { remedy, .. } | BackupError::RestoreRefused { remedy, .. } => {
            vec![remedy.clone()]
        }
        BackupError::EngineFailed { .. } => vec![
            "run it with --engine auto, which goes on with pg_dump alone, or --engine stock"
                .to_owned(),
        ],
        BackupError::ServerFull { .. } => vec![
            "look for what is full where the server runs: `df -h` inside its container; a /dev/shm \
             of 64 MB grows with docker run --shm-size, or shm_size in a compose file"
                .to_owned(),
        ],
        BackupError::RestoreFailed { source, .. }
        | BackupError::RestoreNeedsAttention { source, .. }
        | BackupError::Sandbox { source, .. } => own_hints(source),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);
    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|inner| inner as &dyn Error)
        }
    }

    #[test]
    fn a_chain_never_repeats_itself() {
        let inner = Layer("no route to host", None);
        let middle = Layer("connecting failed: no route to host", Some(Box::new(inner)));
        let outer = Layer("asking the server failed", Some(Box::new(middle)));
        let mut messages = Vec::new();
        add_chain(&outer, &mut messages);
        assert_eq!(
            messages,
            [
                "asking the server failed",
                "connecting failed: no route to host"
            ]
        );
    }

    #[test]
    fn the_json_object_has_its_five_fields() {
        let error = CommandError::usage("no such option").hint("try another");
        let value = serde_json::to_value(error.json()).unwrap();
        assert_eq!(value["error"]["code"], "USAGE");
        assert_eq!(value["error"]["message"], "no such option");
        assert_eq!(value["error"]["exit_code"], 2);
        assert_eq!(value["error"]["hints"][0], "try another");
        assert!(value["error"]["causes"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_refusal_keeps_the_remedy_and_its_exit_code() {
        let error = CommandError::from(BackupError::RestoreRefused {
            problem: "database \"copy\" exists".to_owned(),
            remedy: "choose another name".to_owned(),
        });
        assert_eq!(
            (error.exit, error.hints.as_slice()),
            (42, &["choose another name".to_owned()][..])
        );
    }
}
