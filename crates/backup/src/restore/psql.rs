//! Scripts of a restore that may take long (counting, ANALYZE) or must be cancellable, run in one
//! psql session without a statement timeout.

use std::io::Cursor;

use dbexec::{ExecError, Invocation, PgExecutor, PgProgram, executor::Input};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// Most output that is read, bytes.
const OUTPUT_LIMIT: u64 = 256 << 20;

/// Runs a script and returns what it printed, unaligned and without headings.
pub(crate) async fn run(
    executor: &dyn PgExecutor,
    database: &str,
    script: &str,
    cancel: &CancellationToken,
) -> Result<String, ExecError> {
    run_with(executor, database, script, &[], cancel).await
}

/// As [`run`], with variables of psql.
pub(crate) async fn run_with(
    executor: &dyn PgExecutor,
    database: &str,
    script: &str,
    vars: &[(&str, &str)],
    cancel: &CancellationToken,
) -> Result<String, ExecError> {
    let script = format!(
        "\\set VERBOSITY terse\nSET client_encoding = 'UTF8';\nSET statement_timeout = 0;\nSET lock_timeout = 0;\n{script}\n"
    );
    let mut args = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        .map(str::to_owned)
        .to_vec();
    for (name, value) in vars {
        args.extend(["-v".to_owned(), format!("{name}={value}")]);
    }
    args.extend(["-f".to_owned(), "-".to_owned()]);
    let input = Input::Stream(Box::pin(Cursor::new(script.into_bytes())));
    let invocation = Invocation::new(
        PgProgram::Psql,
        args,
        Some(database.to_owned()),
        input,
        cancel.clone(),
    );
    let mut running = executor.start(invocation).await?;
    let mut text = Vec::new();
    let read = (&mut running.stdout)
        .take(OUTPUT_LIMIT)
        .read_to_end(&mut text)
        .await;
    if let Err(error) = read {
        return Err(
            ExecError::from_io(error).unwrap_or_else(|source| ExecError::Spawn {
                operation: "reading",
                program: PgProgram::Psql,
                source,
            }),
        );
    }
    running.finish(PgProgram::Psql).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
