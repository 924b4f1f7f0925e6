//! Counts the rows of every table and compares them with the archive.

use std::collections::{BTreeMap, BTreeSet};

use archive::TableData;
use dbexec::{ExecError, NativeError, NativeRoute, PgExecutor, query};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{parallel, psql};

/// Tables that one run of psql counts, which takes as long to start as it takes to count hundreds of
/// small ones.
const BATCH: usize = 5_000;

/// What there is to count: a table, or all large objects.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Listed {
    Table(Table),
    LargeObjects { number: u64 },
}

/// A table and how it is counted.
#[derive(Debug, Deserialize)]
struct Table {
    schema: String,
    name: String,
    /// `SELECT count(*) …`, quoted by the server; `None` for a foreign table, whose rows are
    /// elsewhere.
    statement: Option<String>,
    /// Whether an extension made it: its rows are partly the extension's own.
    of_extension: bool,
}

/// Rows after a restore.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    /// Large objects.
    large_objects: u64,
    /// Foreign tables.
    foreign: BTreeSet<(String, String)>,
    /// Rows by schema and table, with whether an extension made the table.
    by_table: BTreeMap<(String, String), (u64, bool)>,
}

impl Counts {
    /// Where rows were counted in another way.
    pub(crate) fn of(tables: u64, rows: u64) -> Self {
        Self {
            tables,
            rows,
            ..Self::default()
        }
    }
}

/// Counts every table that holds rows of its own. `known`: what the server said of tables while
/// they were filled, in a database that nobody else used since.
pub(crate) async fn count(
    executor: &dyn PgExecutor,
    route: Option<&NativeRoute>,
    database: &str,
    known: &BTreeMap<(String, String), u64>,
    cancel: &CancellationToken,
) -> Result<Counts, ExecError> {
    const SELECT: &str = "\
SELECT 'large_objects' AS kind, NULL AS schema, NULL AS name, NULL AS statement, \
  false AS of_extension, count(*) AS number FROM pg_catalog.pg_largeobject_metadata \
UNION ALL \
SELECT 'table', n.nspname, c.relname, \
  CASE c.relkind WHEN 'r' THEN pg_catalog.format('SELECT count(*) FROM ONLY %I.%I', n.nspname, c.relname) END, \
  EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
    AND d.objid = c.oid AND d.deptype = 'e'), NULL \
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'f') AND c.relpersistence <> 't' \
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast' \
ORDER BY schema, name";
    let mut large_objects = 0;
    let mut tables = Vec::new();
    let name = "listing the tables";
    for listed in query::rows_over(route, executor, database, name, SELECT, &[]).await? {
        match listed {
            Listed::Table(table) => tables.push(table),
            Listed::LargeObjects { number } => large_objects = number,
        }
    }
    let (tables, foreign): (Vec<_>, Vec<_>) = tables
        .into_iter()
        .partition(|table| table.statement.is_some());
    let mut counts = Counts {
        tables: tables.len() as u64,
        large_objects,
        foreign: foreign
            .into_iter()
            .map(|table| (table.schema, table.name))
            .collect(),
        ..Counts::default()
    };
    let (told, tables): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| {
        !table.of_extension && known.contains_key(&(table.schema.clone(), table.name.clone()))
    });
    for table in told {
        let key = (table.schema, table.name);
        let rows = known.get(&key).copied().unwrap_or_default();
        counts.rows += rows;
        counts.by_table.insert(key, (rows, false));
    }
    let mut tables = tables.into_iter();
    loop {
        // Taken out: of 100,000 tables nothing is held twice.
        let batch: Vec<_> = tables.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let numbers = match over_session(route, executor, database, &batch, cancel).await {
            Some(numbers) => numbers,
            None => over_psql(executor, database, &batch, cancel).await?,
        };
        if numbers.len() != batch.len() {
            return Err(ExecError::Query {
                query: "counting rows",
                database: database.to_owned(),
                message: format!("{} counts for {} tables", numbers.len(), batch.len()),
            });
        }
        for (table, rows) in batch.into_iter().zip(numbers) {
            counts.rows += rows;
            let key = (table.schema, table.name);
            counts.by_table.insert(key, (rows, table.of_extension));
        }
    }
    Ok(counts)
}

/// Before the first count.
const SETTINGS: &str = "SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET row_security = off;";

/// Rows of each table, asked over a session of ours. `None`: psql has to be asked, whose words are
/// those that people know; it also tells that the run was cancelled.
async fn over_session(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    tables: &[Table],
    cancel: &CancellationToken,
) -> Option<Vec<u64>> {
    let route = route?;
    let mut session = route.open(database, "count").await.ok()?;
    let canceller = session.canceller();
    let counting = async {
        session.batch(SETTINGS).await?;
        let mut numbers = Vec::new();
        for statement in tables.iter().filter_map(|table| table.statement.as_deref()) {
            let answer = session.query(statement).await?;
            numbers.extend(parallel::number(&answer));
        }
        Ok::<_, NativeError>(numbers)
    };
    let after = executor.settings().stall_after;
    let counted = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        counted = route.while_there(database, after, counting) => Some(counted),
    };
    match counted {
        Some(Ok(numbers)) => {
            session.close().await;
            Some(numbers)
        }
        Some(Err(why)) => {
            tracing::debug!(%why, "psql counts instead");
            None
        }
        None => {
            // When this fails too, the drop of the database ends the session.
            let _ = canceller.cancel().await;
            None
        }
    }
}

async fn over_psql(
    executor: &dyn PgExecutor,
    database: &str,
    tables: &[Table],
    cancel: &CancellationToken,
) -> Result<Vec<u64>, ExecError> {
    let statements = tables.iter().filter_map(|table| table.statement.as_deref());
    let script: String = statements
        .flat_map(|statement| [statement, ";\n"])
        .collect();
    let script = format!("SET row_security = off;\n{script}");
    let output = psql::run(executor, database, &script, cancel).await?;
    let numbers = output.lines().filter_map(|line| line.parse().ok());
    Ok(numbers.collect())
}

/// Differences between what the archive holds and what is there, in words. A table may have
/// several entries in an archive; their sum counts.
pub(crate) fn compare(
    tables: &[TableData],
    large_objects: Option<u64>,
    counts: &Counts,
) -> Vec<String> {
    let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for table in tables {
        // Names that could not be read as text cannot be looked up.
        if let (Some(rows), false) = (table.rows, table.lossy) {
            *expected.entry((&table.schema, &table.name)).or_default() += rows;
        }
    }
    // Tables whose names cannot be told are compared by the sum of their rows.
    let unnamed: Vec<u64> = tables
        .iter()
        .filter(|table| table.lossy)
        .filter_map(|table| table.rows)
        .collect();
    let mut differences = Vec::new();
    if !unnamed.is_empty() {
        let wanted: u64 = unnamed.iter().sum();
        let others = counts
            .by_table
            .iter()
            .filter(|((schema, name), (_, extension))| {
                !extension && !expected.contains_key(&(schema.as_str(), name.as_str()))
            });
        let found: u64 = others.map(|(_, (rows, _))| rows).sum();
        if found != wanted {
            differences.push(format!(
                "tables with names that are not ASCII have {found} rows, and the archive holds \
                 {wanted} rows for them"
            ));
        }
    }
    if let Some(expected) = large_objects
        && expected != counts.large_objects
    {
        differences.push(format!(
            "{} large objects are there, and the archive holds {expected}",
            counts.large_objects
        ));
    }
    for ((schema, name), rows) in expected {
        let key = (schema.to_owned(), name.to_owned());
        match counts.by_table.get(&key) {
            Some((found, of_extension)) => {
                let enough = if *of_extension {
                    *found >= rows
                } else {
                    *found == rows
                };
                if !enough {
                    differences.push(format!(
                        "table {schema}.{name} has {found} rows, and the archive holds {rows}"
                    ));
                }
            }
            // Partitioned roots hold no rows of their own.
            None if rows == 0 || counts.foreign.contains(&key) => {}
            None => differences.push(format!(
                "table {schema}.{name} is not there as an ordinary table, and the archive holds \
                 {rows} rows for it"
            )),
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str, rows: u64) -> TableData {
        TableData {
            dump_id: 1,
            oid: 1,
            schema: "s".into(),
            name: name.into(),
            bytes: 0,
            rows: Some(rows),
            fingerprint: None,
            lossy: false,
        }
    }

    #[test]
    fn lost_rows_are_seen_and_split_entries_are_summed() {
        let mut counts = Counts::default();
        let key = |name: &str| ("s".to_owned(), name.to_owned());
        counts.by_table.insert(key("a"), (5, false));
        counts.by_table.insert(key("x"), (5, true));
        assert!(compare(&[data("a", 2), data("a", 3), data("x", 1)], None, &counts).is_empty());
        assert_eq!(compare(&[data("a", 6)], None, &counts).len(), 1);
        assert_eq!(compare(&[data("a", 4)], None, &counts).len(), 1);
        assert_eq!(compare(&[data("x", 6)], None, &counts).len(), 1);
        assert_eq!(compare(&[], Some(1), &counts).len(), 1);
        assert_eq!(compare(&[data("gone", 1)], None, &counts).len(), 1);
    }
}
