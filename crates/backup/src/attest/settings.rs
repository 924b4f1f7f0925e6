//! Which parameters of a server a throw-away copy of it needs to be like it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A row of `pg_settings`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ServerSetting {
    pub(crate) name: String,
    pub(crate) value: String,
    /// `source` of `pg_settings`.
    pub(crate) source: String,
}

/// Preloaded libraries, room for locks and workers, and how values are written as text.
const ALWAYS: &[&str] = &[
    "shared_preload_libraries",
    "session_preload_libraries",
    "local_preload_libraries",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_worker_processes",
    "wal_level",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "bytea_output",
    "xmlbinary",
    "xmloption",
    "default_text_search_config",
    "default_table_access_method",
    "default_toast_compression",
];

/// Where a value of an extension's parameter must come from: somebody chose it for the server.
const CHOSEN: &[&str] = &["configuration file", "command line", "environment variable"];

/// Words in a name that make its value suspect.
const SUSPECT: &[&str] = &[
    "pass",
    "secret",
    "key",
    "token",
    "credential",
    "conninfo",
    "auth",
    "license",
];

/// Chooses from all parameters. Empty values are left out, and so is everything that may hold a
/// secret.
pub(crate) fn choose(all: &[ServerSetting]) -> BTreeMap<String, String> {
    let libraries: Vec<String> = all
        .iter()
        .filter(|setting| setting.name.ends_with("_preload_libraries"))
        .flat_map(|setting| libraries(&setting.value))
        .collect();
    all.iter()
        .filter(|setting| !setting.value.is_empty())
        .filter(|setting| match setting.name.split_once('.') {
            None => ALWAYS.contains(&setting.name.as_str()),
            Some((class, _)) => {
                CHOSEN.contains(&setting.source.as_str())
                    && libraries.iter().any(|library| owns(library, class))
                    && !may_be_secret(setting)
            }
        })
        .map(|setting| (setting.name.clone(), setting.value.clone()))
        .collect()
}

/// Names of a list of libraries, without directory and quotes.
fn libraries(list: &str) -> Vec<String> {
    list.split(',')
        .map(|item| item.trim().trim_matches('"'))
        .map(|item| item.rsplit('/').next().unwrap_or(item))
        .map(|item| item.trim_end_matches(".so").to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// Whether a library defines parameters of this class: most use their own name, some leave out
/// what says that they are for PostgreSQL (`pg_cron` has `cron.`).
fn owns(library: &str, class: &str) -> bool {
    library == class
        || library.strip_prefix("pg_") == Some(class)
        || library.strip_prefix("pg") == Some(class)
        || library.strip_suffix("_preload") == Some(class)
        || library.strip_suffix("_bgw") == Some(class)
}

fn may_be_secret(setting: &ServerSetting) -> bool {
    let name = setting.name.to_ascii_lowercase();
    let value = setting.value.to_ascii_lowercase();
    SUSPECT.iter().any(|word| name.contains(word))
        || value.contains("password=")
        || value.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, source: &str) -> ServerSetting {
        ServerSetting {
            name: name.to_owned(),
            value: value.to_owned(),
            source: source.to_owned(),
        }
    }

    #[test]
    fn parameters_of_preloaded_libraries_are_kept_and_secrets_are_not() {
        let file = "configuration file";
        let all = [
            setting(
                "shared_preload_libraries",
                "pg_cron, \"$libdir/auto_explain\",timescaledb.so",
                "command line",
            ),
            setting("session_preload_libraries", "", "default"),
            setting("bytea_output", "escape", file),
            setting("work_mem", "4096", file),
            setting("cron.database_name", "shop", file),
            setting("cron.host", "localhost", "default"),
            setting("auto_explain.log_min_duration", "5", "command line"),
            setting("timescaledb.max_background_workers", "16", file),
            setting("timescaledb.license", "x", file),
            setting("cron.api_token", "t", file),
            setting("cron.where", "host=h password=p", file),
            setting("cron.url", "postgres://u:p@h/d", file),
            setting("pgaudit.log", "all", file),
        ];
        let chosen = choose(&all);
        let names: Vec<_> = chosen.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "auto_explain.log_min_duration",
                "bytea_output",
                "cron.database_name",
                "shared_preload_libraries",
                "timescaledb.max_background_workers",
            ]
        );
        assert_eq!(chosen["bytea_output"], "escape");
    }
}
