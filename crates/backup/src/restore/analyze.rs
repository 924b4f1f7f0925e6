//! ANALYZE after a restore, which must not log in at other servers: over several sessions where the
//! rows went over them, else in one session of psql.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use dbexec::{NativeError, NativeRoute, NativeSession, PgExecutor};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{fill::exec, psql};
use crate::BackupError;

/// From so many bytes on a table is a statement of its own.
const ALONE: i64 = 4 << 20;
/// Smaller tables of one statement.
const TOGETHER: usize = 40;
/// Before the first statement.
const SETTINGS: &str = "SET statement_timeout = 0;\nSET lock_timeout = 0;\n\
                        SET default_transaction_read_only = off;\n\
                        SET client_min_messages = error;";
/// As [`SETTINGS`], and pg_restore is not waited for.
const BESIDE: &str = "SET statement_timeout = 0;\nSET lock_timeout = 10;\n\
                      SET default_transaction_read_only = off;\n\
                      SET client_min_messages = error;";
/// What is to be analyzed, the largest first. Parents of foreign tables are left out as in
/// [`SCRIPT`]; a partition comes with its parent, unless that is left out; catalogues that all
/// databases share have nothing of the restored one.
const TABLES: &str = "\
WITH RECURSIVE far(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION
  SELECT i.inhparent FROM far JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = far.oid
)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
  CASE c.relkind WHEN 'p'
    THEN (SELECT coalesce(sum(pg_catalog.pg_relation_size(t.relid)), 0)::int8
          FROM pg_catalog.pg_partition_tree(c.oid) AS t)
    ELSE pg_catalog.pg_relation_size(c.oid) END AS bytes,
  c.relkind = 'r' AND NOT c.relhassubclass AND NOT c.relispartition
    AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS x
      WHERE x.indrelid = c.oid AND x.indexprs IS NOT NULL)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext AS x
      WHERE x.stxrelid = c.oid) AS plain
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared
  AND c.oid NOT IN (SELECT oid FROM far)
  AND NOT (c.relispartition AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS i
    WHERE i.inhrelid = c.oid AND i.inhparent IN (SELECT oid FROM far)))
ORDER BY 2 DESC, 1";

/// For messages.
const LISTING: &str = "listing what to analyze";

#[derive(Debug, Deserialize)]
struct Table {
    /// Quoted.
    name: String,
    bytes: i64,
    /// A table of its own, all of whose statistics are those of its columns.
    plain: bool,
}

/// Gathers the statistics of large tables over one session, while pg_restore makes what comes
/// after the rows; `enough`: nothing more is begun. Returns the tables that have them, quoted. A
/// table that pg_restore works on is left to [`run`], and so is whatever fails here.
pub(super) async fn beside(
    route: &Result<Arc<NativeRoute>, String>,
    database: &str,
    enough: &CancellationToken,
    stop: &CancellationToken,
) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    let Ok(route) = route else {
        return done;
    };
    let Ok(mut session) = route.open(database, "analyze").await else {
        return done;
    };
    let canceller = session.canceller();
    let working = async {
        session.batch(BESIDE).await?;
        let tables: Vec<Table> = session.rows(LISTING, TABLES, &[]).await?;
        let large = |table: &Table| table.plain && table.bytes >= ALONE;
        for table in tables.into_iter().filter(large) {
            if enough.is_cancelled() {
                break;
            }
            match session.batch(&format!("ANALYZE {}", table.name)).await {
                Ok(()) => {
                    done.insert(table.name);
                }
                Err(NativeError::Server { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = working => Some(ended),
    };
    match ended {
        Some(Ok(())) => session.close().await,
        Some(Err(error)) => tracing::debug!(%error, "ANALYZE beside pg_restore ended"),
        // When this fails too, the drop of the database ends the session.
        None => drop(canceller.cancel().await),
    }
    done
}

/// Gathers the statistics of everything but what is `done`. `sessions`: those that filled, 0 where
/// none did.
///
/// # Errors
/// The server's, and [`BackupError::Interrupted`].
pub(super) async fn run(
    executor: &dyn PgExecutor,
    database: &str,
    sessions: u32,
    done: &BTreeSet<String>,
    cancel: &CancellationToken,
) -> Result<(), BackupError> {
    let mut opened = open(executor, database, sessions).await;
    let Some(first) = opened.first_mut() else {
        psql::run(executor, database, SCRIPT, cancel)
            .await
            .map_err(|source| exec("ANALYZE", source))?;
        return Ok(());
    };
    let failed = |source: NativeError| exec("ANALYZE", source.into());
    let tables: Result<Vec<Table>, _> = first.rows(LISTING, TABLES, &[]).await;
    let tables = without(tables.map_err(failed)?, done);
    let work = Arc::new(Mutex::new(statements(tables)));
    let stop = cancel.child_token();
    let _guard = stop.clone().drop_guard();
    let mut running = JoinSet::new();
    for session in opened {
        running.spawn(statement_by_statement(
            session,
            Arc::clone(&work),
            stop.clone(),
        ));
    }
    let mut result = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.unwrap_or_else(|panic| {
            Err(NativeError::Over {
                reason: panic.to_string(),
            })
        });
        if ended.is_err() {
            stop.cancel();
            result = result.and(ended.map_err(failed));
        }
    }
    if cancel.is_cancelled() {
        return Err(BackupError::Interrupted {
            operation: "ANALYZE".to_owned(),
        });
    }
    result
}

/// Opens so many sessions, or as many as there may be: the database has its connection limit by
/// now.
async fn open(executor: &dyn PgExecutor, database: &str, wanted: u32) -> Vec<NativeSession> {
    let mut opened = Vec::new();
    if wanted == 0 {
        return opened;
    }
    let Ok(route) = executor.native().await else {
        return opened;
    };
    for number in 1..=wanted {
        let Ok(mut session) = route.open(database, &format!("analyze-{number}")).await else {
            break;
        };
        if session.batch(SETTINGS).await.is_err() {
            break;
        }
        opened.push(session);
    }
    opened
}

/// What has no statistics yet, or lacks those of expressions and of several columns together: what
/// they are gathered for came after the rows.
fn without(tables: Vec<Table>, done: &BTreeSet<String>) -> Vec<Table> {
    let due = |table: &Table| !(table.plain && done.contains(&table.name));
    tables.into_iter().filter(due).collect()
}

/// One statement for each large table, and some for many small ones.
fn statements(tables: Vec<Table>) -> VecDeque<String> {
    let (large, small): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| table.bytes >= ALONE);
    let names = |tables: &[Table]| {
        let names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
        format!("ANALYZE {}", names.join(", "))
    };
    let alone = large.chunks(1).map(names);
    alone.chain(small.chunks(TOGETHER).map(names)).collect()
}

async fn statement_by_statement(
    mut session: NativeSession,
    work: Arc<Mutex<VecDeque<String>>>,
    stop: CancellationToken,
) -> Result<(), NativeError> {
    let canceller = session.canceller();
    let working = async {
        loop {
            let next = work
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match next {
                Some(statement) => session.batch(&statement).await?,
                None => return Ok(()),
            }
        }
    };
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        result = working => Some(result),
    };
    match result {
        Some(Ok(())) => {
            session.close().await;
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => {
            // When this fails too, the drop of the database ends the session.
            let _ = canceller.cancel().await;
            Ok(())
        }
    }
}

/// A script for psql. `ANALYZE` of everything leaves foreign tables out but not the parents of
/// foreign tables, whose statistics are gathered from all children: those are left out here.
const SCRIPT: &str = "\
SET default_transaction_read_only = off;
WITH RECURSIVE far(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION
  SELECT i.inhparent FROM far JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = far.oid
)
SELECT count(*) > 0 AS far FROM far
\\gset
\\if :far
WITH RECURSIVE far(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION
  SELECT i.inhparent FROM far JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = far.oid
)
SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared
    AND c.oid NOT IN (SELECT oid FROM far)
\\gexec
\\else
ANALYZE;
\\endif";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_are_statements_of_their_own() {
        let table = |name: &str, bytes| Table {
            name: name.to_owned(),
            bytes,
            plain: true,
        };
        let mut tables = vec![table("s.large", ALONE), table("s.\"B\"", ALONE)];
        tables.extend((0..TOGETHER).map(|number| table(&format!("s.t{number}"), 0)));
        tables.push(table("s.last", 0));
        let statements = statements(tables);
        assert_eq!(statements.len(), 4);
        assert_eq!(statements[0], "ANALYZE s.large");
        assert_eq!(statements[1], "ANALYZE s.\"B\"");
        assert!(statements[2].starts_with("ANALYZE s.t0, s.t1, "));
        assert_eq!(statements[3], "ANALYZE s.last");
    }

    #[test]
    fn statistics_of_expressions_are_gathered_when_they_are_there() {
        let table = |name: &str, plain| Table {
            name: name.to_owned(),
            bytes: ALONE,
            plain,
        };
        let tables = vec![
            table("s.done", true),
            table("s.expressions", false),
            table("s.left", true),
        ];
        let done = BTreeSet::from(["s.done".to_owned(), "s.expressions".to_owned()]);
        let left: Vec<_> = without(tables, &done)
            .into_iter()
            .map(|table| table.name)
            .collect();
        assert_eq!(left, ["s.expressions", "s.left"]);
    }
}
