//! A store in a directory of this host: directories 0700, files 0600, nothing followed that is a
//! link, nothing trusted that is foreign or writable by others.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::AsyncRead;

use crate::local_dir::{check_owner_and_mode, entries, file_type, open_below, open_root};
use crate::local_writer::{Destination, LocalWriter, Step, StepHook, ask, stream_of_temp};
use crate::{Entry, Store, StoreError, StoreWriter, check_name};

/// A directory as a store.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    root_fd: OwnedFd,
    hook: Option<Arc<dyn StepHook>>,
}

impl LocalStore {
    /// Opens the store at `root`, which is made (0700) when it is not there. Blocks for a few
    /// system calls.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] when `root` is a link, belongs to another user or can be written by
    /// others; otherwise when it cannot be made or opened.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::with_hook(root.into(), None)
    }

    /// As [`LocalStore::open`], with a hook that is asked before each step on the file system.
    ///
    /// # Errors
    /// As [`LocalStore::open`].
    #[cfg(feature = "faults")]
    pub fn open_with_hook(
        root: impl Into<PathBuf>,
        hook: Arc<dyn StepHook>,
    ) -> Result<Self, StoreError> {
        Self::with_hook(root.into(), Some(hook))
    }

    fn with_hook(root: PathBuf, hook: Option<Arc<dyn StepHook>>) -> Result<Self, StoreError> {
        let root_fd = open_root(&root)?;
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                root_fd,
                hook,
            }),
        })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Runs blocking file work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|panic| {
            Err(StoreError::Io {
                operation,
                name: name.to_owned(),
                store: self.describe(),
                source: std::io::Error::other(panic),
            })
        })
    }
}

impl Inner {
    fn describe(&self) -> String {
        format!("local directory {}", self.root.display())
    }

    fn failed(&self, operation: &'static str, name: &str, errno: Errno) -> StoreError {
        StoreError::from_io(operation, name, &self.describe(), errno.into())
    }

    fn not_found(&self, name: &str) -> StoreError {
        StoreError::NotFound {
            name: name.to_owned(),
            store: self.describe(),
        }
    }

    /// Directory and file of a stream.
    fn place(&self, name: &str, make: bool) -> Result<Option<(OwnedFd, String)>, StoreError> {
        check_name(name)?;
        let mut parts: Vec<&str> = name.split('/').collect();
        let file = parts.pop().unwrap_or_default().to_owned();
        let dir = open_below(self.root_fd.as_fd(), &self.root, &parts, make)?;
        Ok(dir.map(|dir| (dir, file)))
    }

    fn create(&self, name: &str) -> Result<LocalWriter, StoreError> {
        let Some((dir, file)) = self.place(name, true)? else {
            return Err(self.not_found(name));
        };
        LocalWriter::start(Destination {
            dir,
            file,
            name: name.to_owned(),
            store: self.describe(),
            hook: self.hook.clone(),
        })
    }

    fn open_file(&self, name: &str) -> Result<std::fs::File, StoreError> {
        let Some((dir, file)) = self.place(name, false)? else {
            return Err(self.not_found(name));
        };
        let path = self.root.join(name).display().to_string();
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&dir, file.as_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(self.not_found(name)),
            Err(Errno::LOOP) => {
                return Err(StoreError::Unsafe {
                    path,
                    problem: "it is a link".to_owned(),
                });
            }
            Err(errno) => return Err(self.failed("opening", name, errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.failed("opening", name, errno))?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(StoreError::Unsafe {
                path,
                problem: "it is no regular file".to_owned(),
            });
        }
        check_owner_and_mode(&stat, &path)?;
        Ok(std::fs::File::from(fd))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        if let Some((dir, at)) = self.directory_of(prefix)? {
            self.walk(&dir, &at, prefix, &mut found)?;
        }
        found.sort_by(|a: &Entry, b: &Entry| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The deepest directory that `prefix` names whole, with its name (ending in `/`, or empty).
    fn directory_of(&self, prefix: &str) -> Result<Option<(OwnedFd, String)>, StoreError> {
        let at = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
        let parts: Vec<&str> = at.split('/').filter(|part| !part.is_empty()).collect();
        for part in &parts {
            check_name(part)?;
        }
        let dir = open_below(self.root_fd.as_fd(), &self.root, &parts, false)?;
        Ok(dir.map(|dir| (dir, at.to_owned())))
    }

    fn walk(
        &self,
        dir: &OwnedFd,
        at: &str,
        prefix: &str,
        found: &mut Vec<Entry>,
    ) -> Result<(), StoreError> {
        let listed = entries(dir.as_fd())
            .map_err(|source| StoreError::from_io("listing", at, &self.describe(), source))?;
        for (file, stat) in listed {
            let name = format!("{at}{file}");
            if check_name(&file).is_err() {
                continue;
            }
            match file_type(&stat) {
                FileType::RegularFile if name.starts_with(prefix) => found.push(Entry {
                    name,
                    bytes: u64::try_from(stat.st_size).unwrap_or(0),
                }),
                FileType::Directory => {
                    let below = format!("{name}/");
                    if !(below.starts_with(prefix) || prefix.starts_with(&below)) {
                        continue;
                    }
                    match open_below(dir.as_fd(), &self.root.join(at), &[&file], false) {
                        Ok(Some(dir)) => self.walk(&dir, &below, prefix, found)?,
                        Ok(None) => {}
                        // One directory that must not be trusted hides nothing else.
                        Err(StoreError::Unsafe { path, problem }) => {
                            tracing::warn!(path, problem, "left out of the listing");
                        }
                        Err(error) => return Err(error),
                    }
                }
                FileType::RegularFile => {}
                other => tracing::warn!(name, ?other, "left out of the listing"),
            }
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let Some((dir, file)) = self.place(name, false)? else {
            return Ok(());
        };
        let hook = |step: &Step| {
            ask(self.hook.as_ref(), step)
                .map_err(|source| StoreError::from_io("deleting", name, &self.describe(), source))
        };
        hook(&Step::Unlink {
            name: name.to_owned(),
        })?;
        match rustix::fs::unlinkat(&dir, file.as_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed("deleting", name, errno)),
        }
        hook(&Step::SyncDir {
            name: name.to_owned(),
        })?;
        rustix::fs::fsync(&dir).map_err(|errno| self.failed("deleting", name, errno))
    }

    fn remove_leftovers(&self, prefix: &str) -> Result<u64, StoreError> {
        let Some((dir, at)) = self.directory_of(prefix)? else {
            return Ok(0);
        };
        let removed = self.sweep(&dir, &at, prefix)?;
        if let Some(whole) = at.strip_suffix('/')
            && at == prefix
        {
            // The directory that the prefix names whole.
            let (above, name) = whole.rsplit_once('/').unwrap_or(("", whole));
            let parts: Vec<&str> = above.split('/').filter(|part| !part.is_empty()).collect();
            if let Some(parent) = open_below(self.root_fd.as_fd(), &self.root, &parts, false)? {
                self.remove_empty(&parent, name, whole)?;
            }
        }
        Ok(removed)
    }

    fn sweep(&self, dir: &OwnedFd, at: &str, prefix: &str) -> Result<u64, StoreError> {
        let mut removed = 0;
        let listed = entries(dir.as_fd())
            .map_err(|source| StoreError::from_io("listing", at, &self.describe(), source))?;
        for (file, stat) in listed {
            if file_type(&stat) == FileType::Directory {
                let below = format!("{at}{file}/");
                if check_name(&file).is_err()
                    || !(below.starts_with(prefix) || prefix.starts_with(&below))
                {
                    continue;
                }
                let path = self.root.join(at);
                if let Some(inner) = open_below(dir.as_fd(), &path, &[&file], false)? {
                    removed += self.sweep(&inner, &below, prefix)?;
                }
                if below.starts_with(prefix) {
                    self.remove_empty(dir, &file, &below)?;
                }
            } else if let Some(stream) = stream_of_temp(&file) {
                let name = format!("{at}{stream}");
                if !name.starts_with(prefix) {
                    continue;
                }
                ask(self.hook.as_ref(), &Step::Unlink { name: name.clone() }).map_err(
                    |source| StoreError::from_io("removing", &name, &self.describe(), source),
                )?;
                match rustix::fs::unlinkat(dir, file.as_str(), AtFlags::empty()) {
                    // A writer that was dropped removes its file by itself, a moment later.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.failed("removing", &name, errno)),
                }
                removed += 1;
            }
        }
        if removed > 0 {
            rustix::fs::fsync(dir).map_err(|errno| self.failed("removing", at, errno))?;
        }
        Ok(removed)
    }

    fn remove_empty(&self, parent: &OwnedFd, file: &str, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(parent, file, AtFlags::REMOVEDIR) {
            Ok(()) => rustix::fs::fsync(parent).map_err(|e| self.failed("removing", name, e)),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("removing", name, errno)),
        }
    }
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, name: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        let stream = name.to_owned();
        let writer = self
            .blocking("creating", name, move |inner| inner.create(&stream))
            .await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, name: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, StoreError> {
        let stream = name.to_owned();
        let file = self
            .blocking("opening", name, move |inner| inner.open_file(&stream))
            .await?;
        Ok(Box::pin(tokio::fs::File::from_std(file)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let wanted = prefix.to_owned();
        self.blocking("listing", prefix, move |inner| inner.list(&wanted))
            .await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let stream = name.to_owned();
        self.blocking("deleting", name, move |inner| inner.delete(&stream))
            .await
    }

    async fn remove_leftovers(&self, prefix: &str) -> Result<u64, StoreError> {
        let wanted = prefix.to_owned();
        self.blocking("removing", prefix, move |inner| {
            inner.remove_leftovers(&wanted)
        })
        .await
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        check_name(name).ok()?;
        Some(self.inner.root.join(name))
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.blocking("measuring", "the free space", |inner| {
            let stat = rustix::fs::fstatvfs(&inner.root_fd)
                .map_err(|errno| inner.failed("measuring", "the free space", errno))?;
            Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
        })
        .await
    }
}
