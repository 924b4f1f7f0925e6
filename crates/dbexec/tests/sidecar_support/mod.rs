//! Sidecars for the tests: opened, looked for, and their programs' output.

use std::path::Path;
use std::sync::Arc;

use dbexec::executor::Input;
use dbexec::{
    ExecError, Invocation, NoSidecar, PgExecutor, PgProgram, SidecarPgExecutor, open_sidecar,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::engine_support::containers_of;
use crate::executor_support::runtime;

pub(crate) async fn open(
    executor: &Arc<dyn PgExecutor>,
    scratch: &Path,
    run: &str,
) -> Result<SidecarPgExecutor, NoSidecar> {
    open_sidecar(executor, &runtime().await, scratch, run).await
}

/// Containers of a run, in any state.
pub(crate) fn containers(run: &str) -> Vec<String> {
    containers_of("sidecar", run)
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory)
        .expect("it is there")
        .next()
        .is_none()
}

/// A dump of the database `postgres`.
pub(crate) fn dump(args: &[&str]) -> Invocation {
    Invocation::new(
        PgProgram::PgDump,
        args.iter().map(|&arg| arg.to_owned()).collect(),
        Some("postgres".to_owned()),
        Input::Nothing,
        CancellationToken::new(),
    )
}

/// All output of a program that ends well.
pub(crate) async fn read(
    executor: &dyn PgExecutor,
    invocation: Invocation,
) -> Result<Vec<u8>, ExecError> {
    let program = invocation.program;
    let mut running = executor.start(invocation).await?;
    let mut output = Vec::new();
    if let Err(error) = running.stdout.read_to_end(&mut output).await {
        return Err(ExecError::from_io(error).expect("the program's failure"));
    }
    running.finish(program).await?;
    Ok(output)
}
