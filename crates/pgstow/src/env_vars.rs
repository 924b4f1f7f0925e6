//! Every environment variable of pgstow's own, declared once. Where a database is, the variables
//! of `dbexec::discover` say (`POSTGRES_*`, `DATABASE_URL`, `PG*`).

/// A variable and what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvVar {
    /// Its name.
    pub(crate) name: &'static str,
    /// One line for `--help`.
    pub(crate) doc: &'static str,
}

pub(crate) const DATA_DIR: EnvVar = EnvVar {
    name: "PGSTOW_DATA_DIR",
    doc: "directory of backups and state (as --data-dir)",
};
pub(crate) const CONFIG: EnvVar = EnvVar {
    name: "PGSTOW_CONFIG",
    doc: "configuration file (as --config)",
};
pub(crate) const LOG: EnvVar = EnvVar {
    name: "PGSTOW_LOG",
    doc: "filter of the log on standard error, for example debug or dbexec=trace",
};
pub(crate) const LOG_FORMAT: EnvVar = EnvVar {
    name: "PGSTOW_LOG_FORMAT",
    doc: "form of the log: text, or json (one object on each line)",
};
pub(crate) const METRICS_TEXTFILE: EnvVar = EnvVar {
    name: "PGSTOW_METRICS_TEXTFILE",
    doc: "file for Prometheus metrics (as --metrics-textfile)",
};
pub(crate) const TARGET: EnvVar = EnvVar {
    name: "PGSTOW_TARGET",
    doc: "the target when none is typed, in the same forms (as TARGET)",
};
pub(crate) const TARGET_CONTAINER: EnvVar = EnvVar {
    name: "TARGET_CONTAINER",
    doc: "name or id of the container (as --container)",
};
pub(crate) const IMAGE_PATTERN: EnvVar = EnvVar {
    name: "PGSTOW_IMAGE_PATTERN",
    doc: "only containers whose image matches this glob (as --image-pattern)",
};
pub(crate) const ALLOW_MIXED_SOURCES: EnvVar = EnvVar {
    name: "PGSTOW_ALLOW_MIXED_SOURCES",
    doc: "true: secrets of one source may go to a host that another named",
};
pub(crate) const PG_BIN_DIR: EnvVar = EnvVar {
    name: "PGSTOW_PG_BIN_DIR",
    doc: "directory of PostgreSQL's programs on this host (as --pg-bin-dir)",
};
pub(crate) const CONNECT_TIMEOUT: EnvVar = EnvVar {
    name: "PGSTOW_CONNECT_TIMEOUT",
    doc: "as --connect-timeout, for example 10s",
};
pub(crate) const LOCK_WAIT_TIMEOUT: EnvVar = EnvVar {
    name: "PGSTOW_LOCK_WAIT_TIMEOUT",
    doc: "as --lock-wait-timeout, for example 30s",
};
pub(crate) const STATEMENT_TIMEOUT: EnvVar = EnvVar {
    name: "PGSTOW_STATEMENT_TIMEOUT",
    doc: "as --statement-timeout, for example 60s",
};
pub(crate) const STALL_TIMEOUT: EnvVar = EnvVar {
    name: "PGSTOW_STALL_TIMEOUT",
    doc: "as --stall-timeout, for example 60s",
};
pub(crate) const MAX_CONNECTIONS: EnvVar = EnvVar {
    name: "PGSTOW_MAX_CONNECTIONS",
    doc: "as --max-connections, for example 4",
};
pub(crate) const FORMAT: EnvVar = EnvVar {
    name: "PGSTOW_FORMAT",
    doc: "format of backups (as --format)",
};
pub(crate) const ENGINE: EnvVar = EnvVar {
    name: "PGSTOW_ENGINE",
    doc: "who moves the rows of a backup: auto, parallel or stock (as --engine)",
};
pub(crate) const RESTORE_ENGINE: EnvVar = EnvVar {
    name: "PGSTOW_RESTORE_ENGINE",
    doc: "who moves the rows of a restore: auto, parallel or stock (as --engine)",
};
pub(crate) const JOBS: EnvVar = EnvVar {
    name: "PGSTOW_JOBS",
    doc: "movers or jobs of a backup (as --jobs)",
};
pub(crate) const VERIFY: EnvVar = EnvVar {
    name: "PGSTOW_VERIFY",
    doc: "check after a dump: none, hash, read or restore (as --verify)",
};
pub(crate) const FINGERPRINT_BUDGET: EnvVar = EnvVar {
    name: "PGSTOW_FINGERPRINT_BUDGET",
    doc: "bytes of tables that are fingerprinted in a run (as --fingerprint-budget)",
};
pub(crate) const KEEP_OLD: EnvVar = EnvVar {
    name: "PGSTOW_KEEP_OLD",
    doc: "how long a replaced database is kept (as --keep-old)",
};

/// All of them, in the order in which `--help` shows them.
pub(crate) const ALL: &[EnvVar] = &[
    DATA_DIR,
    CONFIG,
    LOG,
    LOG_FORMAT,
    METRICS_TEXTFILE,
    TARGET,
    TARGET_CONTAINER,
    IMAGE_PATTERN,
    ALLOW_MIXED_SOURCES,
    PG_BIN_DIR,
    CONNECT_TIMEOUT,
    LOCK_WAIT_TIMEOUT,
    STATEMENT_TIMEOUT,
    STALL_TIMEOUT,
    MAX_CONNECTIONS,
    FORMAT,
    ENGINE,
    JOBS,
    VERIFY,
    FINGERPRINT_BUDGET,
    RESTORE_ENGINE,
    KEEP_OLD,
];

/// The part of `--help` that lists them.
pub(crate) fn help() -> String {
    let width = ALL.iter().map(|var| var.name.len()).max().unwrap_or(0);
    let mut text = String::from("Environment:\n");
    for var in ALL {
        text.push_str(&format!("  {:width$}  {}\n", var.name, var.doc));
    }
    text.push_str(
        "  POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DATABASE, POSTGRES_USERNAME, POSTGRES_PASSWORD,\n  \
         DATABASE_URL and PG* name a server, each also as NAME_FILE; DOCKER_HOST and\n  \
         DOCKER_CONTEXT choose the container engine; NO_COLOR switches colours off\n",
    );
    text
}
