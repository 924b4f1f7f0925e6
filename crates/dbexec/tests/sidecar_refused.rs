//! Where there can be no sidecar: the reason in words, and nothing left.

mod engine_support;
mod executor_support;
mod runtime_support;
mod sidecar_support;

use std::path::Path;
use std::sync::Arc;

use dbexec::{ContainerRuntime, PgExecutor, open_sidecar};
use engine_support::run_id;
use executor_support::{executor, runtime};
use runtime_support::Lens;
use sidecar_support::{containers, dump, is_empty, open, read};
use testkit::PgContainer;

/// The reason why there is none; nothing may be left.
async fn refusal(
    exec: &Arc<dyn PgExecutor>,
    runtime: &Arc<dyn ContainerRuntime>,
    run: &str,
) -> String {
    let root = tempfile::tempdir().expect("a directory");
    let no = open_sidecar(exec, runtime, root.path(), run)
        .await
        .err()
        .expect("there can be none");
    assert!(is_empty(root.path()), "{no}");
    assert_eq!(containers(run), Vec::<String>::new(), "{no}");
    no.reason
}

#[tokio::test]
async fn bar_20_an_engine_that_shares_no_files_is_noticed() {
    let server = PgContainer::start(15).unwrap();
    let run = run_id("elsewhere");
    let exec = executor(&server, 15, &run).await;
    let other = tempfile::tempdir().unwrap();
    let inner = runtime().await;
    let at = |shows: &Path| -> Arc<dyn ContainerRuntime> {
        Arc::new(Lens {
            inner: Arc::clone(&inner),
            label: None,
            mounts: Some(shows.to_owned()),
            addresses: true,
            processes: true,
            execs: true,
        })
    };
    // The path is another directory there, or none.
    let reason = refusal(&exec, &at(other.path()), &run).await;
    assert!(reason.contains("does not share files"), "{reason}");
    assert!(is_empty(other.path()), "nothing was written there");
    let missing = other.path().join("none");
    let reason = refusal(&exec, &at(&missing), &run).await;
    assert!(
        reason.contains("bind source path does not exist"),
        "{reason}"
    );
    assert!(!missing.exists(), "nothing was made there");
}

#[tokio::test]
async fn bar_20_images_that_cannot_run_one() {
    let bare = PgContainer::builder(15)
        .image(&testkit::images::shell_less())
        .start()
        .unwrap();
    let run = run_id("noshell");
    let exec = executor(&bare, 15, &run).await;
    let reason = refusal(&exec, &runtime().await, &run).await;
    assert!(reason.contains("no shell"), "{reason}");
    // What the caller does then.
    read(exec.as_ref(), dump(&["-Fc", "-Z1"])).await.unwrap();
    let bare = PgContainer::builder(15)
        .image(&testkit::images::program_less())
        .start()
        .unwrap();
    let run = run_id("noprograms");
    let exec = executor(&bare, 15, &run).await;
    let reason = refusal(&exec, &runtime().await, &run).await;
    assert!(reason.contains("pg_dump was not found"), "{reason}");
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_over_its_network() {
    let server = PgContainer::start(17).unwrap();
    let run = run_id("refused");
    let exec = executor(&server, 17, &run).await;
    let only_socket = "copy (select 'local all all trust') to program \
        'cat > \"$PGDATA/pg_hba.conf\"'; select pg_reload_conf();";
    server.psql("postgres", only_socket).unwrap();
    let reason = refusal(&exec, &runtime().await, &run).await;
    assert!(
        reason.contains("cannot be reached from its network") && reason.contains("pg_hba.conf"),
        "{reason}"
    );
    // Another server than the one beside it.
    let other = PgContainer::start(17).unwrap();
    let mut stranger = executor(&other, 17, &run).await.context().clone();
    stranger.server.system_identifier = Some("1".to_owned());
    let settings = exec.settings().clone();
    let stranger = dbexec::open_executor(
        stranger,
        Some(runtime().await),
        dbexec::executor::HostPrograms::default(),
        settings,
    );
    let stranger = stranger.await.unwrap();
    let reason = refusal(&stranger, &runtime().await, &run).await;
    assert!(reason.contains("another server answers"), "{reason}");
}

#[tokio::test]
async fn stopped_servers_and_places_that_cannot_be_written() {
    let server = PgContainer::start(15).unwrap();
    let run = run_id("places");
    let exec = executor(&server, 15, &run).await;
    let no = open(&exec, Path::new("/none/such"), &run)
        .await
        .err()
        .unwrap();
    assert!(
        no.reason.contains("no spool can be made in /none/such"),
        "{no}"
    );
    server.engine("stop").unwrap();
    let reason = refusal(&exec, &runtime().await, &run).await;
    assert!(reason.contains("is not running"), "{reason}");
}
