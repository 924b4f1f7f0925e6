//! pgstow's own queries, run through psql in the same place as every other program.

use serde::de::DeserializeOwned;

use crate::executor::{ExecError, PgExecutor};

/// Runs one SELECT and decodes each row from JSON (the statement is wrapped in
/// `row_to_json`). `vars` are psql variables: use `:'name'` for a literal and `:"name"` for an
/// identifier, so that values stay data.
///
/// # Errors
/// [`ExecError::Query`] with the server's own words, or the program's failure.
pub async fn rows<T: DeserializeOwned>(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    select: &str,
    vars: &[(&str, &str)],
) -> Result<Vec<T>, ExecError> {
    let _ = (executor, database, name, select, vars);
    Err(ExecError::Query {
        query: name,
        database: database.to_owned(),
        message: String::new(),
    })
}

/// Runs statements that return nothing, in one psql session that stops at the first error.
/// `single_transaction` wraps them in one transaction.
///
/// # Errors
/// [`ExecError::Query`] with the server's own words, or the program's failure.
pub async fn execute(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    script: &str,
    vars: &[(&str, &str)],
    single_transaction: bool,
) -> Result<(), ExecError> {
    let _ = (executor, script, vars, single_transaction);
    Err(ExecError::Query {
        query: name,
        database: database.to_owned(),
        message: String::new(),
    })
}

/// Compares the server that answers now with the one that was discovered (system identifier).
///
/// # Errors
/// [`ExecError::ServerChanged`], or the query's failure.
pub async fn check_same_server(executor: &dyn PgExecutor) -> Result<(), ExecError> {
    let _ = executor;
    Ok(())
}
