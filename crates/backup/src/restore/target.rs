//! What the preflight asks the target server.

use std::collections::{BTreeMap, BTreeSet};

use dbexec::PgExecutor;
use serde::Deserialize;

use crate::BackupError;

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
    /// Available extensions with their versions.
    pub(crate) extensions: BTreeMap<String, Vec<String>>,
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
       (SELECT coalesce(json_object_agg(name, versions), '{}') FROM (SELECT name, \
          json_agg(version) AS versions FROM pg_catalog.pg_available_extension_versions \
          GROUP BY name) AS e) AS extensions \
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
    rows.into_iter().next().ok_or_else(|| BackupError::Exec {
        operation: "asking the target what it has".to_owned(),
        source: dbexec::ExecError::Query {
            query: "what the target has",
            database: own,
            message: "the role that logged in is not in pg_roles".to_owned(),
        },
    })
}
