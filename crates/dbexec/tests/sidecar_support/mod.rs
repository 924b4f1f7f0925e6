//! Sidecars for the tests: opened, looked for, and their programs' output.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbexec::executor::{HostPrograms, Input};
use dbexec::{
    ExecError, Invocation, NoSidecar, PgExecutor, PgProgram, SidecarPgExecutor, open_executor,
    open_sidecar,
};
use testkit::PgContainer;
use testkit::process::docker;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::executor_support::{executor, runtime};

/// A run id that no other test has.
pub(crate) fn run_id(name: &str) -> String {
    testkit::container::unique_name(name)
}

pub(crate) async fn open(
    executor: &Arc<dyn PgExecutor>,
    scratch: &Path,
    run: &str,
) -> Result<SidecarPgExecutor, NoSidecar> {
    open_sidecar(executor, &runtime().await, scratch, run).await
}

/// As [`executor`], of a server with another port.
pub(crate) async fn executor_on_port(
    container: &PgContainer,
    port: u16,
    run: &str,
) -> Arc<dyn PgExecutor> {
    let usual = executor(container, 17, run).await;
    let mut context = usual.context().clone();
    context.creds.port = port;
    let settings = usual.settings().clone();
    let opened = open_executor(
        context,
        Some(runtime().await),
        HostPrograms::default(),
        settings,
    );
    opened.await.expect("the executor opens")
}

/// Containers of a run, in any state.
pub(crate) fn containers(run: &str) -> Vec<String> {
    let label = format!("label=pgstow.sidecar={run}");
    let shown =
        docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).expect("the engine answers");
    shown.lines().map(str::to_owned).collect()
}

/// Anonymous volumes that a container has.
pub(crate) fn volumes(container: &str) -> Vec<String> {
    let format = "{{range .Mounts}}{{.Name}} {{end}}";
    let shown = docker(&["inspect", "--format", format, container]).expect("it can be inspected");
    shown.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn volume_exists(name: &str) -> bool {
    docker(&["volume", "inspect", name]).is_ok()
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory)
        .expect("it is there")
        .next()
        .is_none()
}

/// Waits until no container of a run and none of these volumes are left.
pub(crate) async fn become_gone(run: &str, volumes: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !containers(run).is_empty() || volumes.iter().any(|name| volume_exists(name)) {
        assert!(
            Instant::now() < deadline,
            "container or volume of {run} is left"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
