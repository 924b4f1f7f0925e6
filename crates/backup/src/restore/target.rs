//! What the preflight asks the target server.

use std::collections::{BTreeMap, BTreeSet};

use dbexec::PgExecutor;
use serde::Deserialize;

use crate::BackupError;

/// File systems whose free space is asked for.
const MOST_DIRECTORIES: usize = 8;

/// The target as one query saw it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Target {
    /// `server_version_num`.
    pub(crate) version_num: u32,
    /// Whether the server is a standby.
    pub(crate) in_recovery: bool,
    /// The role that restores.
    pub(crate) role: String,
    /// Whether it may create databases.
    pub(crate) create_database: bool,
    /// Whether it may create roles.
    pub(crate) create_role: bool,
    /// Whether the database of the request exists.
    pub(crate) database_exists: bool,
    /// Roles.
    pub(crate) roles: BTreeSet<String>,
    /// Tablespaces.
    pub(crate) tablespaces: BTreeSet<String>,
    /// Locales of the C library that the server knows.
    pub(crate) locales: BTreeSet<String>,
    /// Whether it was built with ICU.
    pub(crate) icu: bool,
    /// Available extensions.
    pub(crate) extensions: BTreeMap<String, AvailableExtension>,
    /// Whether the role that restores may do everything.
    pub(crate) is_superuser: bool,
    /// Roles that it may give objects to.
    pub(crate) may_become: BTreeSet<String>,
    /// Sessions that the server takes from roles like this one, and those it has.
    pub(crate) sessions: Sessions,
    /// Locks that one transaction may hold on objects, together with all others.
    pub(crate) lock_table: u64,
    /// `dynamic_shared_memory_type`: where sessions share memory (`posix`, `sysv`, `mmap`).
    pub(crate) dynamic_shared_memory: String,
    /// Directory of the cluster; `None` when the role may not see it.
    pub(crate) data_directory: Option<String>,
    /// Directories of other tablespaces.
    pub(crate) tablespace_locations: BTreeMap<String, String>,
    /// Free bytes by directory, where the executor can tell; filled by [`ask`].
    #[serde(skip)]
    pub(crate) free: BTreeMap<String, u64>,
}

/// An extension that could be created.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct AvailableExtension {
    /// Version of a plain `CREATE EXTENSION`.
    pub(crate) default_version: String,
    /// Every version that can be created.
    pub(crate) versions: Vec<String>,
    /// Whether the role that restores may create it.
    pub(crate) may_create: bool,
}

/// Connections of the target.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Sessions {
    /// `max_connections` without what is reserved for others.
    pub(crate) most: i64,
    /// Open now, without this one.
    pub(crate) open: i64,
}

impl Target {
    pub(crate) fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Whether a locale of the C library is known, whatever its spelling of the encoding.
    pub(crate) fn has_locale(&self, locale: &str) -> bool {
        let wanted = normalised(locale);
        matches!(wanted.as_str(), "" | "c" | "posix")
            || self.locales.iter().any(|known| normalised(known) == wanted)
    }
}

/// `de_DE.UTF-8` and `de_DE.utf8` are the same locale.
fn normalised(locale: &str) -> String {
    locale.to_ascii_lowercase().replace('-', "")
}

/// Asks the target everything at once.
pub(crate) async fn ask(executor: &dyn PgExecutor, database: &str) -> Result<Target, BackupError> {
    const SELECT: &str = "\
SELECT current_setting('server_version_num')::int AS version_num, \
       pg_is_in_recovery() AS in_recovery, \
       r.rolname AS role, \
       r.rolcreatedb OR r.rolsuper AS create_database, \
       r.rolcreaterole OR r.rolsuper AS create_role, \
       EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = :'name') AS database_exists, \
       (SELECT json_agg(rolname) FROM pg_catalog.pg_roles) AS roles, \
       (SELECT json_agg(spcname) FROM pg_catalog.pg_tablespace) AS tablespaces, \
       (SELECT json_agg(l) FROM (SELECT collcollate::text AS l FROM pg_catalog.pg_collation \
          WHERE collprovider = 'c' AND collcollate IS NOT NULL \
          UNION SELECT datcollate::text FROM pg_catalog.pg_database \
          UNION SELECT datctype::text FROM pg_catalog.pg_database) AS locales) AS locales, \
       EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collprovider = 'i') AS icu, \
       (SELECT coalesce(json_object_agg(e.name, json_build_object( \
          'default_version', e.default_version, 'versions', e.versions, \
          'may_create', e.may_create)), '{}') \
        FROM (SELECT v.name, max(a.default_version) AS default_version, \
                json_agg(v.version) AS versions, \
                bool_or(r.rolsuper OR v.trusted OR NOT v.superuser) AS may_create \
              FROM pg_catalog.pg_available_extension_versions AS v \
              JOIN pg_catalog.pg_available_extensions AS a ON a.name = v.name \
              GROUP BY v.name) AS e) AS extensions, \
       r.rolsuper AS is_superuser, \
       (SELECT json_agg(o.rolname) FROM pg_catalog.pg_roles AS o \
        WHERE r.rolsuper OR pg_catalog.pg_has_role(o.oid, \
          CASE WHEN current_setting('server_version_num')::int >= 160000 \
               THEN 'SET' ELSE 'MEMBER' END)) AS may_become, \
       json_build_object( \
          'most', current_setting('max_connections')::int \
             - CASE WHEN r.rolsuper THEN 0 \
                    ELSE current_setting('superuser_reserved_connections')::int END, \
          'open', (SELECT greatest(0, sum(numbackends) - 1) \
                   FROM pg_catalog.pg_stat_database)) AS sessions, \
       current_setting('max_locks_per_transaction')::int8 * (current_setting('max_connections')::int8 \
          + current_setting('max_prepared_transactions')::int8) AS lock_table, \
       current_setting('dynamic_shared_memory_type') AS dynamic_shared_memory, \
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS data_directory, \
       (SELECT coalesce(json_object_agg(spcname, pg_catalog.pg_tablespace_location(oid)), '{}') \
        FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')) \
          AS tablespace_locations \
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user";
    let own = executor.context().creds.database.clone();
    let rows = dbexec::query::rows(
        executor,
        &own,
        "what the target has",
        SELECT,
        &[("name", database)],
    )
    .await
    .map_err(|source| BackupError::Exec {
        operation: format!("asking the target what it has (database {own:?})"),
        source,
    })?;
    let target: Option<Target> = rows.into_iter().next();
    let mut target = target.ok_or_else(|| BackupError::Exec {
        operation: "asking the target what it has".to_owned(),
        source: dbexec::ExecError::Query {
            query: "what the target has",
            database: own,
            message: "the role that logged in is not in pg_roles".to_owned(),
        },
    })?;
    let directories = target
        .data_directory
        .iter()
        .chain(target.tablespace_locations.values());
    let directories: BTreeSet<String> = directories.cloned().collect();
    for directory in directories.into_iter().take(MOST_DIRECTORIES) {
        // What cannot be told is not held against the restore; the plan says so.
        match executor.free_bytes(&directory).await {
            Ok(Some(bytes)) => {
                target.free.insert(directory, bytes);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, directory, "free space is not known"),
        }
    }
    Ok(target)
}
