//! What the server is asked of a copy: its tables, sequences, counts.

use dbexec::{ExecError, PgExecutor, query};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::restore::run_script;

/// Statements that one run of psql gets.
const BATCH: usize = 500;

/// A table or foreign table.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `SELECT count(*) …`, quoted by the server; `None` for a foreign table.
    pub(super) statement: Option<String>,
    /// Size on disk in bytes, with TOAST and without indexes.
    pub(super) bytes: u64,
    /// Whether an extension made it.
    pub(super) of_extension: bool,
}

/// A sequence.
#[derive(Debug, Deserialize)]
pub(super) struct Sequence {
    pub(super) schema: String,
    pub(super) name: String,
    /// `SELECT last_value, is_called …`, quoted by the server.
    pub(super) statement: String,
}

/// The copy as one query sees it.
#[derive(Debug, Deserialize)]
pub(super) struct Contents {
    pub(super) tables: Vec<Table>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) large_objects: u64,
    /// Whether the database's encoding is UTF-8.
    pub(super) utf8: bool,
}

// `to_json` of a name in the encoding of the database arrives as UTF-8: the session's encoding.
const CONTENTS: &str = "\
WITH relations AS ( \
  SELECT c.oid, n.nspname, c.relname, c.relkind, \
    EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
      AND d.objid = c.oid AND d.deptype = 'e') AS of_extension \
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
  WHERE c.relkind IN ('r', 'f', 'S') AND c.relpersistence <> 't' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast') \
SELECT \
  (SELECT coalesce(json_agg(json_build_object('oid', r.oid::bigint, 'schema', r.nspname, \
     'name', r.relname, 'bytes', CASE r.relkind WHEN 'r' THEN pg_catalog.pg_table_size(r.oid) ELSE 0 END, \
     'of_extension', r.of_extension, 'statement', CASE r.relkind WHEN 'r' THEN \
       pg_catalog.format('SELECT count(*) FROM ONLY %I.%I', r.nspname, r.relname) END) \
     ORDER BY r.nspname, r.relname), '[]') FROM relations AS r WHERE r.relkind <> 'S') AS tables, \
  (SELECT coalesce(json_agg(json_build_object('schema', r.nspname, 'name', r.relname, \
     'statement', pg_catalog.format('SELECT last_value, is_called FROM %I.%I', r.nspname, r.relname))), \
     '[]') FROM relations AS r WHERE r.relkind = 'S') AS sequences, \
  (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata) AS large_objects, \
  (SELECT pg_catalog.pg_encoding_to_char(encoding) = 'UTF8' FROM pg_catalog.pg_database \
   WHERE datname = current_database()) AS utf8";

/// Asks what there is.
pub(super) async fn contents(
    executor: &dyn PgExecutor,
    database: &str,
) -> Result<Contents, ExecError> {
    let name = "what the copy holds";
    let rows: Vec<Contents> = query::rows(executor, database, name, CONTENTS, &[]).await?;
    rows.into_iter().next().ok_or_else(|| ExecError::Query {
        query: name,
        database: database.to_owned(),
        message: "the server gave no row".to_owned(),
    })
}

/// Counts the rows of tables, in their order.
pub(super) async fn counts(
    executor: &dyn PgExecutor,
    database: &str,
    tables: &[&Table],
    cancel: &CancellationToken,
) -> Result<Vec<u64>, ExecError> {
    let statements: Vec<&str> = tables
        .iter()
        .filter_map(|table| table.statement.as_deref())
        .collect();
    let count = |line: &str| line.parse().ok();
    each(
        executor,
        database,
        "counting rows",
        &statements,
        count,
        cancel,
    )
    .await
}

/// Values of sequences, in their order.
pub(super) async fn values(
    executor: &dyn PgExecutor,
    database: &str,
    sequences: &[&Sequence],
    cancel: &CancellationToken,
) -> Result<Vec<(i64, bool)>, ExecError> {
    let statements: Vec<&str> = sequences
        .iter()
        .map(|sequence| sequence.statement.as_str())
        .collect();
    let value = |line: &str| {
        let (value, called) = line.split_once('|')?;
        Some((value.parse().ok()?, called == "t"))
    };
    let query = "reading sequences";
    each(executor, database, query, &statements, value, cancel).await
}

/// Runs statements that give one row each.
async fn each<T>(
    executor: &dyn PgExecutor,
    database: &str,
    query: &'static str,
    statements: &[&str],
    parse: impl Fn(&str) -> Option<T>,
    cancel: &CancellationToken,
) -> Result<Vec<T>, ExecError> {
    let mut found = Vec::with_capacity(statements.len());
    for batch in statements.chunks(BATCH) {
        let script = format!("SET row_security = off;\n{};\n", batch.join(";\n"));
        let output = run_script(executor, database, &script, cancel).await?;
        let rows: Vec<T> = output.lines().filter_map(&parse).collect();
        if rows.len() != batch.len() {
            return Err(ExecError::Query {
                query,
                database: database.to_owned(),
                message: format!("{} rows for {} statements", rows.len(), batch.len()),
            });
        }
        found.extend(rows);
    }
    Ok(found)
}
