//! pgstow's own queries, run through psql in the same place as every other program.
//!
//! Statements travel on standard input, values as psql variables, rows come back as JSON, one a
//! line, and a closing mark says that no row was lost on the way.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncBufReadExt;
use tokio_util::sync::CancellationToken;

use crate::context::{DbMode, RunningServer, ServerIdentity};
use crate::executor::{ExecError, Input, Invocation, PgExecutor, PgProgram};
use crate::native::{NativeError, NativeRoute};

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
pub async fn rows<T: DeserializeOwned + Send>(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    select: &str,
    vars: &[(&str, &str)],
) -> Result<Vec<T>, ExecError> {
    // Here and not in the environment: a restored script runs through psql too.
    let script = format!("{}\n{}", before(executor), json_rows(select));
    let mut decoder = RowDecoder::new();
    let mut taking = |text: &mut Vec<u8>| decoder.take(text);
    let rest = run(
        executor,
        database,
        name,
        &script,
        vars,
        false,
        Some(&mut taking),
    )
    .await?;
    decoder.finish(name, database, rest.into_bytes())
}

/// Before a query of ours. What the workers of a parallel one share may find no room in a
/// container's /dev/shm.
fn before(executor: &dyn PgExecutor) -> String {
    let settings = executor.settings();
    format!(
        "set statement_timeout to {}; set lock_timeout to {}; \
         set max_parallel_workers_per_gather to 0;",
        settings.statement_timeout.as_millis(),
        settings.lock_wait_timeout.as_millis(),
    )
}

/// As [`rows`], over a session of our own where a route is given: a psql in a container takes
/// twenty times as long to start as such a query takes. Where the session fails, or says nothing for
/// longer than the server lets a statement run, psql is asked: its words are those that people know,
/// and a server that is silent is looked after there.
///
/// # Errors
/// As [`rows`].
pub async fn rows_over<T: DeserializeOwned + Send>(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    select: &str,
    vars: &[(&str, &str)],
) -> Result<Vec<T>, ExecError> {
    if let Some(route) = route {
        let asking = async {
            let mut session = route.open(database, "ask").await?;
            session.batch(&before(executor)).await?;
            let rows = session.rows(name, select, vars).await?;
            session.close().await;
            Ok::<_, NativeError>(rows)
        };
        let settings = executor.settings();
        let longest = settings.connect_timeout + settings.statement_timeout;
        match tokio::time::timeout(longest, asking).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(why)) => tracing::debug!(name, %why, "psql is asked instead"),
            Err(_elapsed) => tracing::debug!(name, "no answer: psql is asked instead"),
        }
    }
    rows(executor, database, name, select, vars).await
}

/// A SELECT as a statement that answers each row in JSON.
pub(crate) fn json_rows(select: &str) -> String {
    let select = select.trim().trim_end_matches(';');
    format!("select pg_catalog.row_to_json(pgstow_row) from (\n{select}\n) pgstow_row;\n")
}

/// Decodes what [`json_rows`] answers while it comes: 100,000 rows are not held as text as well.
pub(crate) struct RowDecoder<T> {
    rows: Vec<T>,
    wrong: Option<String>,
}

impl<T: DeserializeOwned + Send> RowDecoder<T> {
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            wrong: None,
        }
    }

    /// Takes the rows off the front that are there whole. What is left is the beginning of a row, or
    /// no row.
    pub(crate) fn take(&mut self, text: &mut Vec<u8>) {
        if self.wrong.is_some() {
            text.clear();
            return;
        }
        let mut taken = 0;
        // A row may be printed over several lines.
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<T>();
        // The line that ends an answer is no row.
        while text[taken..].trim_ascii_start().first() == Some(&b'{') {
            match values.next() {
                Some(Ok(row)) => {
                    self.rows.push(row);
                    taken = values.byte_offset();
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => {
                    let rest = String::from_utf8_lossy(&text[taken..]);
                    self.wrong = Some(format!("({error}): {}", shorten(&rest)));
                    break;
                }
                None => break,
            }
        }
        text.drain(..taken);
    }

    /// All rows; `rest` is what stood before the end of the answer and was not taken.
    pub(crate) fn finish(
        mut self,
        name: &'static str,
        database: &str,
        mut rest: Vec<u8>,
    ) -> Result<Vec<T>, ExecError> {
        self.take(&mut rest);
        if self.wrong.is_none() && !rest.trim_ascii().is_empty() {
            self.wrong = Some(shorten(&String::from_utf8_lossy(&rest)));
        }
        match self.wrong {
            None => Ok(self.rows),
            Some(wrong) => Err(ExecError::Query {
                query: name,
                database: database.to_owned(),
                message: format!("the answer was not understood {wrong}"),
            }),
        }
    }
}

/// Takes from an answer that is still coming what is not to be held.
pub(crate) type Taking<'a> = &'a mut (dyn FnMut(&mut Vec<u8>) + Send);
/// Bytes of an answer that are held before rows are taken off.
pub(crate) const HELD: usize = 64 << 10;

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
    run(
        executor,
        database,
        name,
        script,
        vars,
        single_transaction,
        None,
    )
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
    run(executor, database, name, script, vars, false, None).await
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
    mut taking: Option<Taking<'_>>,
) -> Result<String, ExecError> {
    let mut again = false;
    loop {
        // Written out: a closure's borrow does not end with `Option::as_deref_mut`.
        let taking: Option<Taking<'_>> = match &mut taking {
            Some(taking) => Some(&mut **taking),
            None => None,
        };
        let answer = run_once(
            executor,
            database,
            name,
            script,
            vars,
            single_transaction,
            taking,
        )
        .await;
        match answer {
            // Nothing was answered then.
            Err(ExecError::ProgramMissing { .. }) if !again => {
                executor.program(PgProgram::Psql).await?;
                again = true;
            }
            answer => return answer,
        }
    }
}

async fn run_once(
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    script: &str,
    vars: &[(&str, &str)],
    single_transaction: bool,
    mut taking: Option<Taking<'_>>,
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
    let mut total = 0;
    let mut output = running.stdout;
    let read = async {
        loop {
            let piece = output.fill_buf().await?;
            let length = piece.len();
            if length == 0 {
                return Ok(());
            }
            total += length as u64;
            answer.extend_from_slice(piece);
            output.consume(length);
            if total > MAX_ANSWER {
                return Ok(());
            }
            if let Some(taking) = &mut taking
                && answer.len() > HELD
            {
                taking(&mut answer);
            }
        }
    };
    if let Err(error) = read.await {
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
    if total > MAX_ANSWER {
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

/// Columns that tell one run of a server from all others. A superuser alone is asked where its data
/// are: another role may not read it, and the query would fail.
pub(crate) const RUNNING: &str = "\
    (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text as started,
    case when (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
         then pg_catalog.current_setting('data_directory') end as data_directory";

#[derive(Deserialize)]
struct Identity {
    version_num: u32,
    version: String,
    system_identifier: Option<String>,
    in_recovery: bool,
    is_superuser: bool,
    started: String,
    data_directory: Option<String>,
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
    identity_over(None, executor, database).await
}

async fn identity_over(
    route: Option<&NativeRoute>,
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
                      as is_superuser, {RUNNING}"
        )
    };
    let name = "server identity";
    let full = select("(select system_identifier::text from pg_catalog.pg_control_system())");
    let answer = match rows_over::<Identity>(route, executor, database, name, &full, &[]).await {
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
        running: Some(RunningServer {
            started: found.started,
            data_directory: found.data_directory,
        }),
    })
}

/// Compares the server that answers now with the one that was discovered (system identifier, and
/// major version where the identifier may not be read). Over a session of our own where a route is
/// given, which is opened only on the server that the programs saw, else through psql.
///
/// # Errors
/// [`ExecError::ServerChanged`], or the query's failure.
pub async fn check_same_server(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
) -> Result<(), ExecError> {
    let context = executor.context();
    let now = identity_over(route, executor, &context.creds.database).await?;
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
    let failure = match run(
        executor,
        pooler,
        "pooler",
        "show version;",
        &[],
        false,
        None,
    )
    .await
    {
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
