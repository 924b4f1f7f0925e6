//! Every key of the configuration: its type and its variable.

use crate::env_vars::{self, EnvVar};

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// `30s`, `2m`, `1m 30s`.
    Duration,
    /// A whole number in a range.
    Number(i64, i64),
    /// `2GB`, `500MiB`, `0`.
    Size,
    /// true or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
    /// A reference to a secret.
    Secret,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// Type.
    pub(crate) kind: Kind,
    /// Its variable, where it has one.
    pub(crate) env: Option<EnvVar>,
}

const fn key(name: &'static str, kind: Kind, env: Option<EnvVar>) -> Key {
    Key { name, kind, env }
}

const SSL_MODES: Kind = Kind::Choice(&[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
]);

const ENGINES: Kind = Kind::Choice(&["auto", "parallel", "stock"]);

/// All keys, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    key("data_dir", Kind::Path, Some(env_vars::DATA_DIR)),
    key(
        "metrics_textfile",
        Kind::Path,
        Some(env_vars::METRICS_TEXTFILE),
    ),
    key("log", Kind::Text, Some(env_vars::LOG)),
    key(
        "log_format",
        Kind::Choice(&["text", "json"]),
        Some(env_vars::LOG_FORMAT),
    ),
    key("target.name", Kind::Text, Some(env_vars::TARGET)),
    key(
        "target.container",
        Kind::Text,
        Some(env_vars::TARGET_CONTAINER),
    ),
    key(
        "target.image_pattern",
        Kind::Text,
        Some(env_vars::IMAGE_PATTERN),
    ),
    key("target.host", Kind::Text, None),
    key("target.port", Kind::Number(1, 65535), None),
    key("target.dbname", Kind::Text, None),
    key("target.username", Kind::Text, None),
    key("target.password", Kind::Secret, None),
    key("target.sslmode", SSL_MODES, None),
    key("target.sslrootcert", Kind::Path, None),
    key("target.sslcert", Kind::Path, None),
    key("target.sslkey", Kind::Path, None),
    key("target.sslcrl", Kind::Path, None),
    key(
        "target.allow_mixed_sources",
        Kind::Switch,
        Some(env_vars::ALLOW_MIXED_SOURCES),
    ),
    key(
        "connection.connect_timeout",
        Kind::Duration,
        Some(env_vars::CONNECT_TIMEOUT),
    ),
    key(
        "connection.lock_wait_timeout",
        Kind::Duration,
        Some(env_vars::LOCK_WAIT_TIMEOUT),
    ),
    key(
        "connection.statement_timeout",
        Kind::Duration,
        Some(env_vars::STATEMENT_TIMEOUT),
    ),
    key(
        "connection.stall_timeout",
        Kind::Duration,
        Some(env_vars::STALL_TIMEOUT),
    ),
    key(
        "connection.max_connections",
        Kind::Number(1, 1000),
        Some(env_vars::MAX_CONNECTIONS),
    ),
    key(
        "programs.pg_bin_dir",
        Kind::Path,
        Some(env_vars::PG_BIN_DIR),
    ),
    key(
        "backup.format",
        Kind::Choice(&["custom", "directory", "plain"]),
        Some(env_vars::FORMAT),
    ),
    key("backup.engine", ENGINES, Some(env_vars::ENGINE)),
    key("backup.jobs", Kind::Number(1, 256), Some(env_vars::JOBS)),
    key(
        "backup.verify",
        Kind::Choice(&["none", "hash", "read", "restore"]),
        Some(env_vars::VERIFY),
    ),
    key("backup.exclude_table_data", Kind::List, None),
    key(
        "backup.fingerprint_budget",
        Kind::Size,
        Some(env_vars::FINGERPRINT_BUDGET),
    ),
    key("restore.engine", ENGINES, Some(env_vars::RESTORE_ENGINE)),
    key("restore.keep_old", Kind::Duration, Some(env_vars::KEEP_OLD)),
];

/// Section of names for targets; its keys are the user's.
pub(crate) const TARGETS: &str = "targets";

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that looks most like a mistyped one.
pub(crate) fn suggestion(unknown: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    KEYS.iter()
        .map(|key| {
            let whole = strsim::jaro_winkler(unknown, key.name);
            let tail = strsim::jaro_winkler(&last(unknown), &last(key.name));
            (key.name, whole.max(tail))
        })
        .filter(|(_, score)| *score > 0.8)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}
