//! Where there can be no sidecar: the reason in words, and nothing left.

mod executor_support;
mod sidecar_support;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use dbexec::runtime::{
    Attached, BindMount, ContainerDetails, ContainerSummary, ExecSession, ExecSpec, ExecStatus,
    ImageDetails, LabelledContainer, PrivateContainer, PutFile,
};
use dbexec::{ContainerRuntime, PgExecutor, RuntimeError, open_sidecar};
use executor_support::{executor, runtime};
use sidecar_support::{containers, dump, is_empty, open, read, run_id};
use testkit::PgContainer;
use tokio::io::AsyncRead;

/// An engine that sees other files than this process, as one of another machine.
#[derive(Debug)]
struct Elsewhere {
    inner: Arc<dyn ContainerRuntime>,
    /// What a mount of ours shows there.
    shows: PathBuf,
}

#[async_trait]
impl ContainerRuntime for Elsewhere {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        self.inner.list().await
    }
    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError> {
        self.inner.inspect(container).await
    }
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        self.inner.exec(container, spec).await
    }
    async fn exec_status(&self, exec_id: &str) -> Result<ExecStatus, RuntimeError> {
        self.inner.exec_status(exec_id).await
    }
    async fn put_file(
        &self,
        container: &str,
        file: &PutFile,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), RuntimeError> {
        self.inner.put_file(container, file, content).await
    }
    async fn get_tar(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, RuntimeError> {
        self.inner.get_tar(container, path).await
    }
    async fn image(&self, image: &str) -> Result<Option<ImageDetails>, RuntimeError> {
        self.inner.image(image).await
    }
    async fn create(&self, wanted: &PrivateContainer) -> Result<String, RuntimeError> {
        let mut wanted = wanted.clone();
        wanted.bind = wanted.bind.map(|bind| BindMount {
            from: self.shows.clone(),
            ..bind
        });
        self.inner.create(&wanted).await
    }
    async fn attach(&self, container: &str) -> Result<Attached, RuntimeError> {
        self.inner.attach(container).await
    }
    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        self.inner.start(container).await
    }
    async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        self.inner.remove(container).await
    }
    async fn labelled(&self, label: &str) -> Result<Vec<LabelledContainer>, RuntimeError> {
        self.inner.labelled(label).await
    }
}

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
        Arc::new(Elsewhere {
            inner: Arc::clone(&inner),
            shows: shows.to_owned(),
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
