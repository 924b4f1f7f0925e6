//! Extensions that are created before pg_restore does it: in the source's version, or because
//! their tables must not be filled while they watch. Every name is a variable of psql.

use dbexec::{ExecError, PgExecutor, query};

use super::extensions::Early;

/// Creates the extensions; pg_restore's `CREATE EXTENSION IF NOT EXISTS` then passes over them.
pub(super) async fn create(
    executor: &dyn PgExecutor,
    database: &str,
    early: &Early,
) -> Result<(), ExecError> {
    let mut text = String::new();
    let mut vars = Vec::new();
    let mut var = |value: &str| {
        let name = format!("v{}", vars.len());
        vars.push((name.clone(), value.to_owned()));
        name
    };
    for extension in &early.extensions {
        text.push_str(&format!(
            "CREATE EXTENSION IF NOT EXISTS :\"{}\"",
            var(&extension.name)
        ));
        if let Some(schema) = &extension.schema {
            text.push_str(&format!(" WITH SCHEMA :\"{}\"", var(schema)));
        }
        if let Some(version) = &extension.version {
            text.push_str(&format!(" VERSION :'{}'", var(version)));
        }
        text.push_str(";\n");
    }
    if let Some(schema) = &early.timescaledb {
        // Kept in the database's settings, so that the sessions of pg_restore see it.
        text.push_str(&format!(
            "SELECT :\"{}\".timescaledb_pre_restore();\n",
            var(schema)
        ));
    }
    run(executor, database, "creating the extensions", &text, &vars).await
}

/// What an extension wants to be told when its tables are filled.
pub(super) async fn finish(
    executor: &dyn PgExecutor,
    database: &str,
    early: &Early,
) -> Result<(), ExecError> {
    let Some(schema) = &early.timescaledb else {
        return Ok(());
    };
    run(
        executor,
        database,
        "timescaledb_post_restore()",
        "SELECT :\"schema\".timescaledb_post_restore();\n",
        &[("schema".to_owned(), schema.clone())],
    )
    .await
}

async fn run(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    text: &str,
    vars: &[(String, String)],
) -> Result<(), ExecError> {
    // The database may have default_transaction_read_only already.
    let text = format!("SET default_transaction_read_only = off;\n{text}");
    let vars: Vec<_> = vars
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    query::execute(executor, database, name, &text, &vars, false).await
}
