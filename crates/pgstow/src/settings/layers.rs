//! The layers of the configuration and where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dbexec::EnvSnapshot;
use serde::Serialize;

use super::keys::{self, KEYS, Key, Kind};
use crate::{error::CommandError, exit::codes};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "origin", content = "name")]
pub(crate) enum Origin {
    /// Compiled in.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable.
    Environment(&'static str),
    /// An argument.
    Argument(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

/// Where a secret is; never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretRef {
    /// Value of a variable.
    Env(String),
    /// Content of a file.
    File(PathBuf),
    /// First line that a program prints.
    Command(Vec<String>),
}

/// A value that has the type of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Text, path, choice or duration as written.
    Text(String),
    /// Whole number.
    Number(i64),
    /// true or false.
    Switch(bool),
    /// Texts.
    List(Vec<String>),
    /// Reference to a secret.
    Secret(SecretRef),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::List(list) => write!(f, "{list:?}"),
            Self::Secret(SecretRef::Env(name)) => write!(f, "{{ env = {name:?} }}"),
            Self::Secret(SecretRef::File(path)) => write!(f, "{{ file = {path:?} }}"),
            Self::Secret(SecretRef::Command(argv)) => write!(f, "{{ command = {argv:?} }}"),
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sourced {
    /// The value.
    pub(crate) value: Value,
    /// Where it came from.
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

/// The winning value of each key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    /// By key.
    pub(crate) values: BTreeMap<&'static str, Sourced>,
    /// Names for targets.
    pub(crate) targets: BTreeMap<String, Sourced>,
}

fn invalid(message: impl Into<String>) -> CommandError {
    CommandError::new(codes::INVALID_CONFIG, message)
}

impl Layers {
    /// Puts a layer of TOML on top.
    ///
    /// # Errors
    /// Text that is no TOML, unknown keys, values of a wrong type.
    pub(crate) fn add_toml(&mut self, text: &str, origin: &Origin) -> Result<(), CommandError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Never the line itself: it may hold a password that was written here by mistake.
            let line = error.span().map_or(1, |span| {
                let before = &text.as_bytes()[..span.start.min(text.len())];
                1 + before.iter().filter(|byte| **byte == b'\n').count()
            });
            invalid(format!(
                "{origin} is not TOML: line {line}: {}",
                error.message()
            ))
        })?;
        for (name, value) in table {
            match value {
                toml::Value::Table(section) if name == keys::TARGETS => {
                    self.add_targets(section, origin)?;
                }
                toml::Value::Table(section) if keys::find(&name).is_none() => {
                    for (inner, value) in section {
                        self.add_entry(&format!("{name}.{inner}"), value, origin)?;
                    }
                }
                value => self.add_entry(&name, value, origin)?,
            }
        }
        Ok(())
    }

    fn add_targets(&mut self, section: toml::Table, origin: &Origin) -> Result<(), CommandError> {
        for (name, value) in section {
            let toml::Value::String(text) = value else {
                return Err(invalid(format!("targets.{name} in {origin} is no text")));
            };
            if name.contains(['/', ':']) {
                return Err(invalid(format!(
                    "targets.{name:?} in {origin}: a name holds no / and no :"
                )));
            }
            self.targets.insert(
                name,
                Sourced {
                    value: Value::Text(text),
                    origin: origin.clone(),
                },
            );
        }
        Ok(())
    }

    fn add_entry(
        &mut self,
        name: &str,
        value: toml::Value,
        origin: &Origin,
    ) -> Result<(), CommandError> {
        let Some(key) = keys::find(name) else {
            let error = invalid(format!("{origin} has an unknown key {name:?}"));
            return Err(match keys::suggestion(name) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error,
            });
        };
        let value = from_toml(key, value)
            .map_err(|problem| invalid(format!("{name} in {origin}: {problem}")))?;
        self.set(key, value, origin.clone());
        Ok(())
    }

    /// Puts the variables on top.
    ///
    /// # Errors
    /// A variable whose value has the wrong type; the value is not repeated.
    pub(crate) fn add_environment(&mut self, env: &EnvSnapshot) -> Result<(), CommandError> {
        for key in KEYS {
            let Some(var) = key.env else { continue };
            let Some(text) = env.get(var.name) else {
                continue;
            };
            let value = from_text(key.kind, text)
                .map_err(|problem| invalid(format!("{}: {problem}", var.name)))?;
            self.set(key, value, Origin::Environment(var.name));
        }
        Ok(())
    }

    /// Puts one argument on top.
    ///
    /// # Errors
    /// A usage error when its value has the wrong type.
    pub(crate) fn add_argument(
        &mut self,
        name: &'static str,
        flag: &'static str,
        value: Option<Value>,
    ) -> Result<(), CommandError> {
        let (Some(value), Some(key)) = (value, keys::find(name)) else {
            return Ok(());
        };
        let value = match value {
            Value::Text(text) => from_text(key.kind, &text)
                .map_err(|problem| CommandError::usage(format!("{flag}: {problem}")))?,
            other => check(key.kind, other)
                .map_err(|problem| CommandError::usage(format!("{flag}: {problem}")))?,
        };
        self.set(key, value, Origin::Argument(flag));
        Ok(())
    }

    fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        self.values.insert(key.name, Sourced { value, origin });
    }

    /// Origin of a key's value.
    pub(crate) fn origin(&self, name: &str) -> Option<&Origin> {
        self.values.get(name).map(|sourced| &sourced.origin)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.values.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match self.values.get(name)?.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        matches!(
            self.values.get(name).map(|s| &s.value),
            Some(Value::Switch(true))
        )
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.values.get(name).map(|s| &s.value) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&SecretRef> {
        match &self.values.get(name)?.value {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// A duration; its text was checked when it was set.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(|text| parse_duration(text).ok())
    }

    /// A size in bytes; its text was checked when it was set.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| parse_size(text).ok())
    }
}

/// Reads `30s`, `2m`, `500ms`, `1m 30s`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write for example 30s, 2m or 1m 30s");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    let duration = Duration::try_from(signed).map_err(|_| wrong())?;
    if duration.is_zero() {
        return Err("the time must be longer than zero".to_owned());
    }
    Ok(duration)
}

/// Reads `2GB`, `500 MB`, `1GiB`, `0`: bytes, with a unit of 1000 or 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write for example 2GB, 500MiB or 0");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A text of a variable or argument as a value of a kind.
fn from_text(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Number(..) => {
            let number = text.trim().parse().map_err(|_| "it is no whole number")?;
            check(kind, Value::Number(number))
        }
        Kind::Switch => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(Value::Switch(true)),
            "0" | "false" | "no" | "off" => Ok(Value::Switch(false)),
            _ => Err("it is neither true nor false".to_owned()),
        },
        _ => check(kind, Value::Text(text.to_owned())),
    }
}

fn from_toml(key: &Key, value: toml::Value) -> Result<Value, String> {
    let value = match value {
        toml::Value::String(text) => Value::Text(text),
        toml::Value::Integer(number) => Value::Number(number),
        toml::Value::Boolean(on) => Value::Switch(on),
        toml::Value::Array(items) => Value::List(texts(items)?),
        toml::Value::Table(table) if key.kind == Kind::Secret => Value::Secret(reference(table)?),
        other => return Err(format!("a {} does not fit", other.type_str())),
    };
    check(key.kind, value)
}

fn texts(items: Vec<toml::Value>) -> Result<Vec<String>, String> {
    items
        .into_iter()
        .map(|item| match item {
            toml::Value::String(text) => Ok(text),
            other => Err(format!(
                "the list holds a {} instead of texts",
                other.type_str()
            )),
        })
        .collect()
}

fn reference(table: toml::Table) -> Result<SecretRef, String> {
    const FORMS: &str =
        "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\"] }";
    if table.len() != 1 {
        return Err(FORMS.to_owned());
    }
    match table.into_iter().next() {
        Some((name, toml::Value::String(text))) if name == "env" => Ok(SecretRef::Env(text)),
        Some((name, toml::Value::String(text))) if name == "file" => {
            Ok(SecretRef::File(PathBuf::from(text)))
        }
        Some((name, toml::Value::Array(items))) if name == "command" && !items.is_empty() => {
            Ok(SecretRef::Command(texts(items)?))
        }
        _ => Err(FORMS.to_owned()),
    }
}

/// Whether a value fits a kind.
fn check(kind: Kind, value: Value) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Secret, Value::Text(_)) => Err(
            "a secret is not written here; refer to it: { env = \"NAME\" }, { file = \"PATH\" } or \
             { command = [\"PROGRAM\"] }"
                .to_owned(),
        ),
        (Kind::Duration, Value::Text(text)) => parse_duration(&text).map(|_| Value::Text(text)),
        (Kind::Size, Value::Text(text)) => parse_size(&text).map(|_| Value::Text(text)),
        (Kind::Choice(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
            Err(format!("{text:?} is not one of {}", words.join(", ")))
        }
        (Kind::Text | Kind::Path | Kind::Choice(_), value @ Value::Text(_)) => Ok(value),
        (Kind::Number(least, most), Value::Number(number)) => {
            if (least..=most).contains(&number) {
                Ok(Value::Number(number))
            } else {
                Err(format!("{number} is not between {least} and {most}"))
            }
        }
        (Kind::Switch, value @ Value::Switch(_))
        | (Kind::List, value @ Value::List(_))
        | (Kind::Secret, value @ Value::Secret(_)) => Ok(value),
        (kind, _) => Err(format!("the value has the wrong type; it takes {}", words(kind))),
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Path | Kind::Choice(_) => "a text",
        Kind::Duration => "a time such as \"30s\"",
        Kind::Size => "a size such as \"2GB\"",
        Kind::Number(..) => "a whole number",
        Kind::Switch => "true or false",
        Kind::List => "a list of texts",
        Kind::Secret => "a reference to a secret",
    }
}

/// The text of a configuration file; `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read, or is missing although the user named it.
pub(crate) fn read_file(path: &Path, named: bool) -> Result<Option<String>, CommandError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(None),
        Err(error) => Err(CommandError::caused(
            codes::INVALID_CONFIG,
            format!("reading the configuration file {} failed", path.display()),
            &error,
        )),
    }
}
