//! The user's own checks of a restored database.

use dbexec::{ExecError, PgExecutor, PsqlSession};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Longest answer that is shown, characters.
const SHOWN: usize = 200;

/// A query of the user's, which has to return a single true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProof {
    /// The query.
    pub sql: String,
    /// Database of the backup that it ran in.
    pub database: String,
    /// Whether it returned a single true.
    pub passed: bool,
    /// What it returned instead, or the server's words.
    pub problem: Option<String>,
}

// The query travels as a value and is run by the server alone: psql never reads it, so that a
// backslash or a colon in it means nothing.
const SCRIPT: &str = "begin transaction read only;
select pg_catalog.format('select pg_catalog.row_to_json(pgstow_row) from (%s
) as pgstow_row', :'sql') \\gexec
rollback;";

/// Runs one query in the restored copy of a database.
pub(crate) async fn check(
    executor: &dyn PgExecutor,
    database: &str,
    copy: &str,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<CheckProof, ExecError> {
    let mut session = PsqlSession::open(executor, copy, cancel).await?;
    let query = sql.trim().trim_end_matches(';');
    let answer = session.run("a check", SCRIPT, &[("sql", query)]).await;
    let problem = match answer {
        Ok(text) => judge(&text),
        Err(ExecError::Query { message, .. }) => Some(message),
        Err(error) => return Err(error),
    };
    session.close().await?;
    Ok(CheckProof {
        sql: sql.to_owned(),
        database: database.to_owned(),
        passed: problem.is_none(),
        problem,
    })
}

/// What is wrong with an answer: rows as JSON, one after the other.
fn judge(text: &str) -> Option<String> {
    let rows: Result<Vec<serde_json::Map<String, serde_json::Value>>, _> =
        serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect();
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Some(format!("its answer was not understood: {error}")),
    };
    match rows.as_slice() {
        [row] if row.len() == 1 && row.values().all(|value| *value == true) => None,
        [row] => {
            let values: Vec<String> = row.values().map(ToString::to_string).collect();
            let shown: String = values.join(", ").chars().take(SHOWN).collect();
            Some(format!(
                "it returned {shown}, and a single true is expected"
            ))
        }
        rows => Some(format!(
            "it returned {} rows, and a single true is expected",
            rows.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_true_passes() {
        assert_eq!(judge("{\"?column?\":true}\n"), None);
        for wrong in [
            "{\"a\":false}",
            "{\"a\":null}",
            "{\"a\":\"t\"}",
            "{\"a\":1}",
            "{\"a\":true,\"b\":true}",
            "{\"a\":true}\n{\"a\":true}",
            "",
            "{}",
            "true",
        ] {
            assert!(judge(wrong).is_some(), "{wrong}");
        }
    }
}
