//! An engine of which something is seen in another way.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use dbexec::runtime::{
    Attached, BindMount, ContainerDetails, ContainerSummary, ExecSession, ExecSpec, ExecStatus,
    ImageDetails, LabelledContainer, PrivateContainer, PutFile,
};
use dbexec::{ContainerRuntime, RuntimeError};
use tokio::io::AsyncRead;

#[derive(Debug)]
pub(crate) struct Lens {
    pub(crate) inner: Arc<dyn ContainerRuntime>,
    /// Only containers with this label are listed.
    pub(crate) label: Option<(&'static str, String)>,
    /// What mounts show, as those of an engine on another machine.
    pub(crate) mounts: Option<PathBuf>,
    /// Whether containers have addresses.
    pub(crate) addresses: bool,
    /// Whether their processes are those of this host.
    pub(crate) processes: bool,
    /// Whether programs can be started in them.
    pub(crate) execs: bool,
}

#[async_trait]
impl ContainerRuntime for Lens {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn is_local(&self) -> bool {
        self.inner.is_local()
    }
    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut list = self.inner.list().await?;
        if let Some((name, value)) = &self.label {
            list.retain(|c| c.labels.get(*name) == Some(value));
        }
        Ok(list)
    }
    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError> {
        let mut details = self.inner.inspect(container).await?;
        if !self.addresses {
            details.addresses.clear();
        }
        if !self.processes {
            details.process = None;
        }
        Ok(details)
    }
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        if !self.execs {
            return Err(RuntimeError::Broken {
                operation: "starting a program",
                message: "it is not to be started here".to_owned(),
            });
        }
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
        if let Some(shown) = &self.mounts {
            wanted.bind = wanted.bind.map(|bind| BindMount {
                from: shown.clone(),
                ..bind
            });
        }
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
