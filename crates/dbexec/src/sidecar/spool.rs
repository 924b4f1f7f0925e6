//! The directory that a sidecar shares with this process.
//!
//! `pgstow-sidecar.…` (0700, locked while its owner lives) holds `work`, which alone is mounted.
//! FIFOs and scratch directories are made here, under new names and never through a link. Where
//! this process is root, the container's programs can make nothing beside them; otherwise they run
//! as its own user. Files in a scratch directory are the programs' own and are opened without
//! following links.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, fchown, mkdirat, mkfifoat, openat,
};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;

/// Beginning of the names of spools.
const PREFIX: &str = "pgstow-sidecar.";
/// Directory that is mounted.
const WORK: &str = "work";
/// Where the container sees it.
pub(crate) const MOUNTED: &str = "/pgstow-spool";
/// Bytes that a FIFO holds; more than the usual 64 KiB saves turns between two processes.
const PIPE_BYTES: usize = 1 << 20;

/// A spool; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    /// Who has the lock lives.
    _lock: File,
    owner: OnceLock<(Uid, Gid)>,
    next: AtomicU64,
}

impl Spool {
    /// Makes one below a directory of the caller's.
    pub(crate) fn create(root: &Path) -> io::Result<Self> {
        // The engine is told the path: no links, nothing relative.
        let root = fs::canonicalize(root)?;
        for _ in 0..100 {
            let path = root.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = match locked(&path) {
                Ok(Some(lock)) => lock,
                // Whoever reaps leftovers was faster than the lock: another one.
                Ok(None) => continue,
                Err(error) => {
                    // It is empty, and nobody could lock it.
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            };
            let spool = Self {
                path,
                _lock: lock,
                owner: OnceLock::new(),
                next: AtomicU64::new(0),
            };
            let work = spool.work();
            DirBuilder::new().mode(0o700).create(&work)?;
            // The programs' user has to see what is there; the parent keeps everybody else out.
            // Past the umask.
            fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
            return Ok(spool);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The directory to mount.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// Says whom what is made from now on belongs to, where that is not this process's user.
    pub(crate) fn give_to(&self, user: u32, group: u32) {
        if rustix::process::geteuid().is_root() {
            let _ = self.owner.set((Uid::from_raw(user), Gid::from_raw(group)));
        }
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        if let Some((user, group)) = self.owner.get() {
            chownat(
                CWD,
                path,
                Some(*user),
                Some(*group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}.{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a private file with this content: its paths in the container and here.
    pub(crate) fn file(&self, content: &[u8]) -> io::Result<(String, PathBuf)> {
        let name = self.name("c");
        let path = self.work().join(&name);
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(CWD, &path, flags, mode)?);
        io::Write::write_all(&mut file, content)?;
        self.own(&path)?;
        Ok((format!("{MOUNTED}/{name}"), path))
    }

    /// Makes a FIFO; its end for reading is open before anybody can write.
    pub(crate) fn fifo(&self) -> io::Result<Fifo> {
        let name = self.name("f");
        let path = self.work().join(&name);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
        let mut fifo = Fifo {
            inside: format!("{MOUNTED}/{name}"),
            path,
            pipe: None,
        };
        self.own(&fifo.path)?;
        // Open for writing too: it then has no end before we say so, which is when the program's
        // end was seen.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(CWD, &fifo.path, flags, Mode::empty())?);
        // As much as the system allows.
        let _ = rustix::pipe::fcntl_setpipe_size(file.as_fd(), PIPE_BYTES);
        fifo.pipe = Some(Receiver::from_file(file)?);
        Ok(fifo)
    }

    /// Makes a scratch directory: its paths in the container and here.
    pub(crate) fn scratch(&self) -> io::Result<(String, PathBuf)> {
        let name = self.name("s");
        let path = self.work().join(&name);
        DirBuilder::new().mode(0o700).create(&path)?;
        self.own(&path)?;
        Ok((format!("{MOUNTED}/{name}"), path))
    }

    /// Puts a file into a scratch directory, or into a subdirectory of it.
    pub(crate) async fn put(
        &self,
        scratch: &Path,
        name: &str,
        size: u64,
        mut content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> io::Result<()> {
        let mut dir = open_directory(scratch)?;
        let name = match name.split_once('/') {
            Some((sub, name)) => {
                dir = self.subdirectory(&dir, sub)?;
                name
            }
            None => name,
        };
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.give(&file)?;
        let mut file = tokio::fs::File::from_std(File::from(file));
        let copied = tokio::io::copy(&mut content, &mut file).await?;
        file.flush().await?;
        if copied == size {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{copied} bytes came, {size} were announced"),
        ))
    }

    /// Opens a subdirectory; makes it where it is not there.
    fn subdirectory(&self, dir: &File, name: &str) -> io::Result<File> {
        if name.is_empty() || matches!(name, "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let made = match mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let sub = openat(dir, name, flags, Mode::empty())?;
        if made {
            self.give(&sub)?;
        }
        Ok(File::from(sub))
    }

    fn give(&self, file: impl AsFd) -> io::Result<()> {
        if let Some((user, group)) = self.owner.get() {
            fchown(file, Some(*user), Some(*group))?;
        }
        Ok(())
    }

    /// Removes everything; what is gone already is no error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }

    /// For messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(path = %self.path.display(), %error, "a spool was left behind");
        }
    }
}

/// A FIFO with its reader; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Fifo {
    /// Path in the container.
    pub(crate) inside: String,
    path: PathBuf,
    pipe: Option<Receiver>,
}

impl Fifo {
    /// The end for reading; there once.
    pub(crate) fn reader(&mut self) -> io::Result<Receiver> {
        self.pipe
            .take()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // It goes with the spool otherwise.
        let _ = fs::remove_file(&self.path);
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

/// Opens and locks a directory; `None` when somebody else has it, or it is gone.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let lock = match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(is_still(path, &lock).then_some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a path still names what was opened.
fn is_still(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A program that was just ended may have made one more file.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < 5 => {
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Removes spools whose owner is gone; returns how many there were.
pub(crate) fn reap(root: &Path) -> io::Result<u32> {
    let mut count = 0;
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        // Held until it is gone.
        let removed = locked(&path).and_then(|lock| match lock {
            Some(_lock) => remove(&path).map(|()| true),
            // Its owner lives.
            None => Ok(false),
        });
        match removed {
            Ok(removed) => count += u32::from(removed),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a leftover was not removed");
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn private_and_gone_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::create(root.path()).unwrap();
        let (path, work) = (spool.path().to_owned(), spool.work());
        assert_eq!((mode(&path), mode(&work)), (0o700, 0o755));
        let (inside, local) = spool.scratch().unwrap();
        assert_eq!(mode(&local), 0o700);
        assert_eq!(inside, "/pgstow-spool/s.0");
        assert_eq!(reap(root.path()).unwrap(), 0, "its owner lives");
        assert!(path.exists());
        drop(spool);
        assert!(!path.exists());
    }

    #[test]
    fn leftovers_are_reaped_and_foreign_names_stay() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "pgstow-sidecar.1/work/s.0",
            "other/work",
            "pgstow-scratch.1",
        ] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("pgstow-sidecar.1/work/s.0/x"), "x").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.path().join("pgstow-sidecar.2")).unwrap();
        assert_eq!(reap(root.path()).unwrap(), 1);
        assert!(!root.path().join("pgstow-sidecar.1").exists());
        assert!(root.path().join("other/work").exists());
        assert!(elsewhere.path().join("kept").exists());
        assert_eq!(reap(&root.path().join("none")).unwrap(), 0);
    }

    #[tokio::test]
    async fn bar_38_a_link_in_the_way_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let victim = tempfile::tempdir().unwrap();
        let spool = Spool::create(root.path()).unwrap();
        let (_, scratch) = spool.scratch().unwrap();
        std::os::unix::fs::symlink(victim.path(), scratch.join("sub")).unwrap();
        std::os::unix::fs::symlink(victim.path().join("x"), scratch.join("file")).unwrap();
        let put = async |name: &str, size| {
            let content: Pin<Box<dyn AsyncRead + Send>> = Box::pin(&b"abc"[..]);
            spool.put(&scratch, name, size, content).await
        };
        for name in ["sub/x", "file", "../x", "a/../x", "", "a/", "/x"] {
            assert!(put(name, 3).await.is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
        assert!(put("short", 4).await.is_err());
        put("archive/toc.dat", 3).await.unwrap();
        put("archive/1.dat", 3).await.unwrap();
        assert_eq!(fs::read(scratch.join("archive/1.dat")).unwrap(), b"abc");
        assert_eq!(mode(&scratch.join("archive/1.dat")), 0o600);
    }
}
