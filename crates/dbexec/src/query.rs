//! pgstow's own queries, run through psql in the same place as every other program.
//!
//! Statements travel on standard input, values as psql variables, rows come back as JSON, one a
//! line, and a closing mark says that no row was lost on the way.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::context::{DbMode, ServerIdentity};
use crate::executor::{ExecError, Input, Invocation, PgExecutor, PgProgram};

/// Last line of every script: a stream that was cut after the program ended would lack it.
const END_MARK: &str = "pgstow-end-of-output";
/// Most bytes that a query of ours may answer with: 100,000 tables with long names.
pub(crate) const MAX_ANSWER: u64 = 64 << 20;

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
    let settings = executor.settings();
    // Here and not in the environment: a restored script runs through psql too.
    let script = format!(
        "set statement_timeout to {}; set lock_timeout to {};\n{}",
        settings.statement_timeout.as_millis(),
        settings.lock_wait_timeout.as_millis(),
        json_rows(select)
    );
    let text = run(executor, database, name, &script, vars, false).await?;
    decode_rows(name, database, &text)
}

/// A SELECT as a statement that answers each row in JSON.
pub(crate) fn json_rows(select: &str) -> String {
    let select = select.trim().trim_end_matches(';');
    format!("select pg_catalog.row_to_json(pgstow_row) from (\n{select}\n) pgstow_row;\n")
}

/// Decodes what [`json_rows`] answered.
pub(crate) fn decode_rows<T: DeserializeOwned>(
    name: &'static str,
    database: &str,
    text: &str,
) -> Result<Vec<T>, ExecError> {
    // A row may be printed over several lines.
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| ExecError::Query {
            query: name,
            database: database.to_owned(),
            message: format!("the answer was not understood ({error}): {}", shorten(text)),
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
    run(executor, database, name, script, vars, single_transaction)
        .await
        .map(drop)
}

/// As [`execute`], each statement for itself; returns what the script printed.
///
/// # Errors
/// As [`execute`].
pub async fn answer(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    script: &str,
    vars: &[(&str, &str)],
) -> Result<String, ExecError> {
    run(executor, database, name, script, vars, false).await
}

/// Runs a script; where psql could not be started, once more after the search for programs has
/// told how it can be (without a shell it has to be started directly).
async fn run(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    script: &str,
    vars: &[(&str, &str)],
    single_transaction: bool,
) -> Result<String, ExecError> {
    match run_once(executor, database, name, script, vars, single_transaction).await {
        Err(ExecError::ProgramMissing { .. }) => {
            executor.program(PgProgram::Psql).await?;
            run_once(executor, database, name, script, vars, single_transaction).await
        }
        answer => answer,
    }
}

async fn run_once(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    script: &str,
    vars: &[(&str, &str)],
    single_transaction: bool,
) -> Result<String, ExecError> {
    let failed = |message: String| ExecError::Query {
        query: name,
        database: database.to_owned(),
        message,
    };
    let mut args: Vec<String> = ["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]
        .map(str::to_owned)
        .into();
    for (variable, value) in vars {
        args.extend(["-v".to_owned(), format!("{variable}={value}")]);
    }
    if single_transaction {
        args.push("--single-transaction".to_owned());
    }
    args.extend(["-f".to_owned(), "-".to_owned()]);
    let input =
        format!("set client_encoding to 'UTF8';\n{script}\n\\echo {END_MARK}\n").into_bytes();
    let invocation = Invocation::new(
        PgProgram::Psql,
        args,
        Some(database.to_owned()),
        Input::Stream(Box::pin(std::io::Cursor::new(input))),
        CancellationToken::new(),
    );
    let running = executor.start(invocation).await?;
    let mut answer = Vec::new();
    let mut limited = running.stdout.take(MAX_ANSWER + 1);
    if let Err(error) = limited.read_to_end(&mut answer).await {
        return Err(match ExecError::from_io(error) {
            Ok(ExecError::Failed { stderr, .. }) => failed(stderr.join(" | ")),
            Ok(error) => error,
            Err(source) => ExecError::Spawn {
                operation: "reading",
                program: PgProgram::Psql,
                source,
            },
        });
    }
    if answer.len() as u64 > MAX_ANSWER {
        return Err(failed(format!(
            "the answer is longer than {} MiB",
            MAX_ANSWER >> 20
        )));
    }
    let text =
        String::from_utf8(answer).map_err(|_| failed("the answer is not UTF-8".to_owned()))?;
    match text
        .strip_suffix('\n')
        .and_then(|text| text.strip_suffix(END_MARK))
    {
        Some(rows) => Ok(rows.to_owned()),
        None => Err(failed("the answer was cut before its end".to_owned())),
    }
}

fn shorten(line: &str) -> String {
    line.chars().take(200).collect()
}

#[derive(Deserialize)]
struct Identity {
    version_num: u32,
    version: String,
    system_identifier: Option<String>,
    in_recovery: bool,
    is_superuser: bool,
}

/// Asks the server who it is. A role that may not read the control file learns everything but the
/// system identifier.
///
/// # Errors
/// The login's refusal, or the query's failure.
pub async fn server_identity(
    executor: &dyn PgExecutor,
    database: &str,
) -> Result<ServerIdentity, ExecError> {
    let select = |identifier: &str| {
        format!(
            "select current_setting('server_version_num')::int as version_num,
                    current_setting('server_version') as version,
                    {identifier} as system_identifier,
                    pg_catalog.pg_is_in_recovery() as in_recovery,
                    (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
                      as is_superuser"
        )
    };
    let name = "server identity";
    let full = select("(select system_identifier::text from pg_catalog.pg_control_system())");
    let answer = match rows::<Identity>(executor, database, name, &full, &[]).await {
        Err(ExecError::Query { message, .. }) if message.contains("pg_control_system") => {
            rows::<Identity>(executor, database, name, &select("null::text"), &[]).await?
        }
        answer => answer?,
    };
    let Some(found) = answer.into_iter().next() else {
        let message = "the server gave no row".to_owned();
        return Err(ExecError::Query {
            query: name,
            database: database.to_owned(),
            message,
        });
    };
    Ok(ServerIdentity {
        version_num: found.version_num,
        version: found.version,
        system_identifier: found.system_identifier,
        in_recovery: found.in_recovery,
        is_superuser: found.is_superuser,
    })
}

/// Compares the server that answers now with the one that was discovered (system identifier, and
/// major version where the identifier may not be read).
///
/// # Errors
/// [`ExecError::ServerChanged`], or the query's failure.
pub async fn check_same_server(executor: &dyn PgExecutor) -> Result<(), ExecError> {
    let context = executor.context();
    let now = server_identity(executor, &context.creds.database).await?;
    let key = |server: &ServerIdentity| {
        let unknown = format!("(not readable) of major {}", server.major());
        server.system_identifier.clone().unwrap_or(unknown)
    };
    let (expected, found) = (key(&context.server), key(&now));
    if expected == found {
        return Ok(());
    }
    Err(ExecError::ServerChanged {
        target: context.target_name(),
        expected,
        found,
    })
}

/// Refuses a transaction pooler, which would spread a dump's one session over several. A pooler
/// answers for its own administration database, which a server does not have.
///
/// # Errors
/// [`ExecError::Pooler`].
pub async fn check_no_pooler(executor: &dyn PgExecutor) -> Result<(), ExecError> {
    let context = executor.context();
    if context.mode == DbMode::InContainer {
        return Ok(());
    }
    let (address, pooler) = (context.target_name(), "pgbouncer");
    let failure = match run(executor, pooler, "pooler", "show version;", &[], false).await {
        // A database may be called so; a server has no setting `version`.
        Ok(_) => "it answers SHOW VERSION".to_owned(),
        Err(error @ ExecError::Pooler { .. }) => return Err(error),
        Err(ExecError::CredentialsRefused { message, .. }) => message,
        Err(ExecError::Query { message, .. }) => message,
        Err(_) => return Ok(()),
    };
    let words = failure.to_ascii_lowercase();
    if failure.starts_with("it answers")
        || words.contains("not allowed")
        || words.contains("pgbouncer cannot")
        || words.contains("unsupported pkt")
    {
        return Err(ExecError::Pooler {
            address,
            evidence: failure,
        });
    }
    Ok(())
}
