//! The state directory: private, checked before use, every file replaced atomically and durably.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::BackupError;

/// Largest state file that is read, bytes.
const MAX_FILE: u64 = 16 << 20;

/// A state directory that was checked.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Makes the directory (0700) when it is missing, and checks it.
    pub(crate) fn open(path: &Path) -> Result<Self, BackupError> {
        make_dir(path)?;
        check_dir(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The directory when it is there; for commands that only read.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>, BackupError> {
        match path.symlink_metadata() {
            Ok(_) => {
                check_dir(path)?;
                Ok(Some(Self {
                    path: path.to_owned(),
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("opening", path, source)),
        }
    }

    /// Path of an entry.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// A checked subdirectory, made when missing.
    pub(crate) fn subdir(&self, name: &str) -> Result<PathBuf, BackupError> {
        let path = self.path.join(name);
        make_dir(&path)?;
        check_dir(&path)?;
        Ok(path)
    }

    /// Names in a subdirectory; none when it is not there.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, BackupError> {
        let path = self.path.join(name);
        match path.symlink_metadata() {
            Ok(_) => check_dir(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("listing", &path, source)),
        }
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path)? {
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|source| failed("listing", &path, source))
    }

    /// Contents of a file; `None` when it is not there.
    pub(crate) fn read(&self, relative: &str) -> Result<Option<Vec<u8>>, BackupError> {
        let path = self.path.join(relative);
        let file = match open_file(&path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(BackupError::State { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|source| failed("reading", &path, source))?;
        Ok(Some(bytes))
    }

    /// Replaces a file: temporary name, fsync, rename, fsync of the directory.
    pub(crate) fn write(&self, relative: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let path = self.path.join(relative);
        let dir = path.parent().unwrap_or(&self.path);
        let random: u64 = rand::random();
        let temp = dir.join(format!(".{random:016x}.partial"));
        let write = || -> Result<(), BackupError> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mut file = open_file(&temp, flags)?;
            file.write_all(bytes)
                .and_then(|()| file.sync_all())
                .map_err(|source| failed("writing", &path, source))?;
            std::fs::rename(&temp, &path).map_err(|source| failed("naming", &path, source))?;
            sync_dir(dir).map_err(|source| failed("syncing", dir, source))
        };
        write().inspect_err(|_| {
            // Best effort: a temporary name is never read.
            let _ = std::fs::remove_file(&temp);
        })
    }

    /// Removes a file; one that is not there is no error.
    pub(crate) fn remove(&self, relative: &str) -> Result<(), BackupError> {
        let path = self.path.join(relative);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(failed("removing", &path, source)),
        }
    }
}

/// Opens a file of ours: no link, no FIFO, not foreign, not writable by others.
pub(crate) fn open_file(path: &Path, flags: OFlags) -> Result<File, BackupError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd: OwnedFd = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::LOOP) => return Err(refused(path, "it is a link".to_owned())),
        Err(errno) => return Err(failed("opening", path, errno.into())),
    };
    let file = File::from(fd);
    let metadata = file
        .metadata()
        .map_err(|source| failed("opening", path, source))?;
    if !metadata.is_file() {
        return Err(refused(path, "it is no regular file".to_owned()));
    }
    check_metadata(path, &metadata)?;
    Ok(file)
}

fn make_dir(path: &Path) -> Result<(), BackupError> {
    match path.symlink_metadata() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("opening", path, source)),
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.parent().map_or(Ok(()), sync_dir))
        .map_err(|source| failed("creating", path, source))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}

fn check_dir(path: &Path) -> Result<(), BackupError> {
    let metadata = path
        .symlink_metadata()
        .map_err(|source| failed("opening", path, source))?;
    if !metadata.is_dir() {
        return Err(refused(path, "it is a link, or no directory".to_owned()));
    }
    check_metadata(path, &metadata)
}

fn check_metadata(path: &Path, metadata: &std::fs::Metadata) -> Result<(), BackupError> {
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours {
        return Err(refused(
            path,
            format!(
                "it belongs to user id {}, and this program runs as {ours}",
                metadata.uid()
            ),
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused(
            path,
            format!(
                "its mode {:o} lets others write to it",
                metadata.mode() & 0o7777
            ),
        ));
    }
    Ok(())
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::State {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn refused(path: &Path, problem: String) -> BackupError {
    BackupError::Unsafe {
        path: path.to_owned(),
        problem,
    }
}
