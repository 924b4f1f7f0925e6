//! Server sessions of ours: whether they work, and ending them.

use std::time::Duration;

use async_trait::async_trait;

use crate::executor::ExecError;

/// `application_name` of the sessions that look after others.
const WARDEN: &str = "pgstow-warden";
/// How long the server may take to say what our sessions do.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Runs one statement through psql, apart from the programs that are looked after.
#[async_trait]
pub(crate) trait RunPsql: Send + Sync {
    /// Runs a statement and returns what psql printed.
    async fn psql(&self, application_name: &str, sql: &str) -> Result<String, ExecError>;
}

/// Ends the sessions with exactly this `application_name` and returns how many there were.
pub(crate) async fn end(server: &dyn RunPsql, application_name: &str) -> Result<u32, ExecError> {
    end_where(server, application_name, &format!("= '{application_name}'")).await
}

/// Ends all sessions of a run: those that have its `application_name`, and those that begin with
/// it and `-`.
pub(crate) async fn end_run(
    server: &dyn RunPsql,
    application_name: &str,
) -> Result<u32, ExecError> {
    // No `_` or `%` in a name that is let through: nothing to escape.
    let condition = format!("~~ any (array['{application_name}', '{application_name}-%'])");
    end_where(server, application_name, &condition).await
}

async fn end_where(
    server: &dyn RunPsql,
    application_name: &str,
    condition: &str,
) -> Result<u32, ExecError> {
    // Run ids hold letters, digits and '-' alone; anything else is not ours to end.
    if !application_name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Ok(0);
    }
    let sql = format!(
        "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity \
         where application_name {condition} and pid <> pg_backend_pid()"
    );
    let text = server.psql(WARDEN, &sql).await?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// `None` when a session with this `application_name` is at work, also when it waits for a lock; else what is wrong.
pub(crate) async fn at_work(server: &dyn RunPsql, name: &str) -> Option<String> {
    let sql = format!(
        "select count(*) from pg_stat_activity where application_name = '{}'",
        name.replace('\'', "''")
    );
    match tokio::time::timeout(ANSWER_WAIT, server.psql(WARDEN, &sql)).await {
        Ok(Ok(text)) if text.trim() != "0" => None,
        Ok(Ok(_)) => Some("the server has no session of this run any more".to_owned()),
        Ok(Err(error)) => Some(format!("the server does not answer: {error}")),
        Err(_) => Some(format!(
            "the server gave no answer for {} s",
            ANSWER_WAIT.as_secs()
        )),
    }
}
