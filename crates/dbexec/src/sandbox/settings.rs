//! Parameters of a throw-away server.

use std::collections::BTreeMap;

/// Parameters that name files and addresses of the source, or suit its machine alone.
const NOT_TAKEN: &[&str] = &[
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "autovacuum_work_mem",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "krb_server_keyfile",
    "lc_messages",
    "maintenance_work_mem",
    "min_dynamic_shared_memory",
    "port",
    "primary_conninfo",
    "recovery_end_command",
    "restore_command",
    "shared_buffers",
    "stats_temp_directory",
    "summarize_wal",
    "temp_tablespaces",
    "work_mem",
];
/// Beginnings of such parameters.
const NOT_TAKEN_PREFIXES: &[&str] = &[
    "bonjour",
    "listen_",
    "log_",
    "logging_",
    "recovery_target",
    "shared_memory",
    "ssl",
    "syslog_",
    "unix_socket_",
];

/// What the server gets as arguments: first what suits a server that is thrown away, then the
/// source's, then what makes it one; the last of a name counts.
pub(crate) fn arguments(source: &BTreeMap<String, String>, memory_bytes: u64) -> Vec<String> {
    let mib = memory_bytes >> 20;
    let taken: Vec<(&str, &str)> = source
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| is_taken(name))
        .collect();
    let mut list: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| list.push((name.to_owned(), value.to_owned()));
    set(
        "shared_buffers",
        &format!("{}MB", (mib / 4).clamp(16, 1024)),
    );
    set(
        "maintenance_work_mem",
        &format!("{}MB", (mib / 16).clamp(16, 512)),
    );
    set("max_connections", "50");
    for (name, value) in &taken {
        set(name, value);
    }
    for (name, value) in [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
        ("synchronous_standby_names", ""),
        ("autovacuum", "off"),
        ("jit", "off"),
        ("huge_pages", "off"),
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_permissions", "0700"),
        ("ssl", "off"),
        ("archive_mode", "off"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("log_line_prefix", ""),
        ("log_checkpoints", "off"),
        ("cluster_name", "pgstow-sandbox"),
    ] {
        set(name, value);
    }
    if !taken.iter().any(|(name, _)| *name == "wal_level") {
        set("wal_level", "minimal");
        set("max_wal_senders", "0");
    }
    let preloaded = |library: &str| {
        taken.iter().any(|(name, value)| {
            *name == "shared_preload_libraries"
                && value
                    .split(',')
                    .any(|word| word.trim().trim_matches('"') == library)
        })
    };
    // Jobs that a restored database brings along must not change it, nor reach out, while it is
    // compared.
    if preloaded("pg_cron") {
        set("cron.launch_active_jobs", "off");
    }
    if preloaded("timescaledb") {
        set("timescaledb.max_background_workers", "0");
    }
    list.into_iter()
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

fn is_taken(name: &str) -> bool {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'));
    is_name
        && !NOT_TAKEN.contains(&name)
        && !NOT_TAKEN_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// The part of an environment that says how text is written.
pub(crate) fn locale(env: &[(String, String)]) -> Vec<(String, String)> {
    let is_locale = |name: &str| name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_");
    env.iter()
        .filter(|(name, value)| is_locale(name) && !value.contains('\0'))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn last<'a>(list: &'a [String], name: &str) -> Option<&'a str> {
        list.iter()
            .rev()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    #[test]
    fn the_source_says_what_is_loaded_and_not_where_to_listen() {
        let source = source(&[
            ("shared_preload_libraries", "pg_stat_statements, pg_cron"),
            ("shared_buffers", "8GB"),
            ("listen_addresses", "*"),
            ("ssl_key_file", "/etc/key"),
            ("data_directory", "/var/lib/x"),
            ("fsync", "on"),
            ("-c evil", "x"),
            ("cron.database_name", "shop"),
        ]);
        let list = arguments(&source, 1 << 30);
        assert_eq!(
            last(&list, "shared_preload_libraries"),
            Some("pg_stat_statements, pg_cron")
        );
        assert_eq!(last(&list, "shared_buffers"), Some("256MB"));
        assert_eq!(last(&list, "listen_addresses"), Some(""));
        assert_eq!(last(&list, "fsync"), Some("off"));
        assert_eq!(last(&list, "cron.database_name"), Some("shop"));
        assert_eq!(last(&list, "cron.launch_active_jobs"), Some("off"));
        assert_eq!(last(&list, "timescaledb.max_background_workers"), None);
        for name in ["ssl_key_file", "data_directory", "-c evil"] {
            assert_eq!(last(&list, name), None, "{name}");
        }
        assert_eq!(last(&list, "wal_level"), Some("minimal"));
    }

    #[test]
    fn a_source_with_logical_decoding_keeps_its_level() {
        let list = arguments(&source(&[("wal_level", "logical")]), 1 << 30);
        assert_eq!(last(&list, "wal_level"), Some("logical"));
        assert_eq!(last(&list, "max_wal_senders"), None);
    }

    #[test]
    fn nothing_of_the_environment_but_the_locale() {
        let env = [
            ("LANG", "de_DE.utf8"),
            ("POSTGRES_PASSWORD", "x"),
            ("LC_TIME", "C"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let names: Vec<String> = locale(&env).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["LANG", "LC_TIME"]);
    }
}
