//! A store in front of another, with something to be done about every write and every reading.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use storage::{Entry, Store, StoreError, StoreWriter};
use tokio::io::AsyncRead;

/// What is done.
#[async_trait]
pub trait Hook: std::fmt::Debug + Clone + Send + Sync + 'static {
    /// Before bytes of a file are handed on.
    async fn before(&self, _file: &str, _bytes: u64) {}

    /// When they were taken.
    fn after(&self, _bytes: u64) {}

    /// A file is opened for reading.
    fn opened(&self, _file: &str) {}
}

/// See the module.
#[derive(Debug)]
pub struct Hooked<H> {
    pub inner: Arc<dyn Store>,
    pub hook: H,
}

struct HookedWriter<H> {
    inner: Box<dyn StoreWriter>,
    hook: H,
    file: String,
}

#[async_trait]
impl<H: Hook> StoreWriter for HookedWriter<H> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        self.hook.before(&self.file, length).await;
        self.inner.write(bytes).await?;
        self.hook.after(length);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<u64, StoreError> {
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.abort().await
    }
}

#[async_trait]
impl<H: Hook> Store for Hooked<H> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, name: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        Ok(Box::new(HookedWriter {
            inner: self.inner.create(name).await?,
            hook: self.hook.clone(),
            file: name.to_owned(),
        }))
    }

    async fn open(&self, name: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, StoreError> {
        self.hook.opened(name);
        self.inner.open(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }

    async fn remove_leftovers(&self, prefix: &str) -> Result<u64, StoreError> {
        self.inner.remove_leftovers(prefix).await
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.inner.local_path(name)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.inner.free_bytes().await
    }
}
