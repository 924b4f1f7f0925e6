//! Counts the rows of every table and compares them with the archive.

use std::collections::BTreeMap;

use archive::{Name, TableData};
use dbexec::{ExecError, NativeError, NativeRoute, PgExecutor, query};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{create::quoted, parallel, psql};
use crate::attest::{own_name, shared_name};

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

/// A table. Of 100,000 tables nothing is held that can be told again.
#[derive(Debug, Deserialize)]
struct Table {
    #[serde(deserialize_with = "shared_name")]
    schema: Name,
    #[serde(deserialize_with = "own_name")]
    name: Name,
    /// Whether its rows are elsewhere.
    foreign: bool,
    /// Whether an extension made it: its rows are partly the extension's own.
    of_extension: bool,
    /// Its rows, once they were counted.
    #[serde(skip)]
    rows: u64,
}

impl Table {
    fn key(&self) -> (&str, &str) {
        (&self.schema, &self.name)
    }

    /// Counts the rows that are its own.
    fn statement(&self) -> String {
        let (schema, name) = (quoted(&self.schema), quoted(&self.name));
        format!("SELECT count(*) FROM ONLY {schema}.{name};\n")
    }
}

/// Rows after a restore.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    /// Large objects.
    large_objects: u64,
    /// Each table, by schema and name; foreign tables have no rows.
    by_table: Vec<Table>,
}

impl Counts {
    fn place(&self, key: (&str, &str)) -> Option<usize> {
        let found = self
            .by_table
            .binary_search_by(|table| table.key().cmp(&key));
        found.ok()
    }

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
SELECT 'large_objects' AS kind, NULL AS schema, NULL AS name, false AS foreign, \
  false AS of_extension, count(*) AS number FROM pg_catalog.pg_largeobject_metadata \
UNION ALL \
SELECT 'table', n.nspname, c.relname, \
  c.relkind = 'f', \
  EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
    AND d.objid = c.oid AND d.deptype = 'e'), NULL \
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'f') AND c.relpersistence <> 't' \
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast' \
ORDER BY schema, name";
    let mut large_objects = 0;
    let name = "listing the tables";
    let listed: Vec<Listed> =
        query::rows_over(route, executor, database, name, SELECT, &[]).await?;
    // In the room of the list.
    let mut by_table: Vec<Table> = listed
        .into_iter()
        .filter_map(|listed| match listed {
            Listed::Table(table) => Some(table),
            Listed::LargeObjects { number } => {
                large_objects = number;
                None
            }
        })
        .collect();
    // The order of names in the server need not be the one here.
    by_table.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    let mut counts = Counts {
        large_objects,
        by_table,
        ..Counts::default()
    };
    let mut left = counts.by_table.iter_mut().filter(|table| !table.foreign);
    loop {
        let mut batch = Vec::new();
        for table in left.by_ref() {
            counts.tables += 1;
            match told(known, table) {
                Some(rows) => {
                    table.rows = rows;
                    counts.rows += rows;
                }
                None => batch.push(table),
            }
            if batch.len() == BATCH {
                break;
            }
        }
        if batch.is_empty() {
            break;
        }
        let statements: Vec<_> = batch.iter().map(|table| table.statement()).collect();
        let numbers = match over_session(route, executor, database, &statements, cancel).await {
            Some(numbers) => numbers,
            None => over_psql(executor, database, &statements, cancel).await?,
        };
        if numbers.len() != batch.len() {
            return Err(ExecError::Query {
                query: "counting rows",
                database: database.to_owned(),
                message: format!("{} counts for {} tables", numbers.len(), batch.len()),
            });
        }
        for (table, rows) in batch.into_iter().zip(numbers) {
            table.rows = rows;
            counts.rows += rows;
        }
    }
    Ok(counts)
}

/// What the server said of a table while it was filled.
fn told(known: &BTreeMap<(String, String), u64>, table: &Table) -> Option<u64> {
    if known.is_empty() || table.of_extension {
        return None;
    }
    let key = (table.schema.to_string(), table.name.to_string());
    known.get(&key).copied()
}

/// Before the first count.
const SETTINGS: &str = "SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET row_security = off;";

/// Rows of each table, asked over a session of ours. `None`: psql has to be asked, whose words are
/// those that people know; it also tells that the run was cancelled.
async fn over_session(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    statements: &[String],
    cancel: &CancellationToken,
) -> Option<Vec<u64>> {
    let route = route?;
    let mut session = route.open(database, "count").await.ok()?;
    let canceller = session.canceller();
    let counting = async {
        session.batch(SETTINGS).await?;
        let mut numbers = Vec::new();
        for statement in statements {
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
    statements: &[String],
    cancel: &CancellationToken,
) -> Result<Vec<u64>, ExecError> {
    let script = format!("SET row_security = off;\n{}", statements.concat());
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
    // By the place of the table, where it is there.
    let mut expected: Vec<Option<u64>> = vec![None; counts.by_table.len()];
    let mut others: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for table in tables {
        // Names that could not be read as text cannot be looked up.
        if let (Some(rows), false) = (table.rows, table.lossy) {
            let key: (&str, &str) = (&table.schema, &table.name);
            match counts.place(key) {
                Some(place) => *expected[place].get_or_insert(0) += rows,
                None => *others.entry(key).or_default() += rows,
            }
        }
    }
    let there = || counts.by_table.iter().zip(&expected);
    // Tables whose names cannot be told are compared by the sum of their rows.
    let unnamed: Vec<u64> = tables
        .iter()
        .filter(|table| table.lossy)
        .filter_map(|table| table.rows)
        .collect();
    let mut differences = Vec::new();
    if !unnamed.is_empty() {
        let wanted: u64 = unnamed.iter().sum();
        let unknown = there().filter(|(table, expected)| !table.of_extension && expected.is_none());
        let found: u64 = unknown.map(|(table, _)| table.rows).sum();
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
    for (table, expected) in there() {
        // Foreign tables hold their rows elsewhere.
        let Some(rows) = expected.filter(|_| !table.foreign) else {
            continue;
        };
        let enough = if table.of_extension {
            table.rows >= rows
        } else {
            table.rows == rows
        };
        if !enough {
            differences.push(format!(
                "table {}.{} has {} rows, and the archive holds {rows}",
                table.schema, table.name, table.rows
            ));
        }
    }
    // Partitioned roots hold no rows of their own.
    for ((schema, name), rows) in others.into_iter().filter(|(_, rows)| *rows > 0) {
        differences.push(format!(
            "table {schema}.{name} is not there as an ordinary table, and the archive holds {rows} \
             rows for it"
        ));
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
        let table = |name: &str, foreign, of_extension, rows| Table {
            schema: "s".into(),
            name: name.into(),
            foreign,
            of_extension,
            rows,
        };
        let counts = Counts {
            by_table: vec![
                table("a", false, false, 5),
                table("f", true, false, 0),
                table("x", false, true, 5),
            ],
            ..Counts::default()
        };
        assert!(compare(&[data("a", 2), data("a", 3), data("x", 1)], None, &counts).is_empty());
        assert!(compare(&[data("f", 7)], None, &counts).is_empty());
        assert_eq!(compare(&[data("a", 6)], None, &counts).len(), 1);
        assert_eq!(compare(&[data("a", 4)], None, &counts).len(), 1);
        assert_eq!(compare(&[data("x", 6)], None, &counts).len(), 1);
        assert_eq!(compare(&[], Some(1), &counts).len(), 1);
        assert_eq!(compare(&[data("gone", 1)], None, &counts).len(), 1);
    }
}
