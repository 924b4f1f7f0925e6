//! Directories of the local store, always reached from an open descriptor of the root: links are
//! never followed, and what is foreign or writable by others is refused.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::StoreError;

/// Mode of directories.
const DIR_MODE: Mode = Mode::RWXU;
const WRITABLE_BY_OTHERS: u32 = 0o022;

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the root, after making it and its missing parents (0700, each made durable).
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, StoreError> {
    let shown = root.display().to_string();
    let failed = |operation, source: io::Error| {
        StoreError::from_io(operation, "the directory", &shown, source)
    };
    match root.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_durably(root).map_err(|source| match source.kind() {
                // A parent that is a file, for example: not "not found".
                io::ErrorKind::NotFound => failed("creating", io::Error::other(source)),
                _ => failed("creating", source),
            })?;
        }
        Err(source) => return Err(failed("opening", source)),
    }
    let fd = rustix::fs::open(root, DIR_FLAGS, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => StoreError::Unsafe {
            path: shown.clone(),
            problem: "it is a link, or no directory".to_owned(),
        },
        errno => failed("opening", errno.into()),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("opening", errno.into()))?;
    check_owner_and_mode(&stat, &shown)?;
    Ok(fd)
}

fn make_durably(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    if !parent.as_os_str().is_empty() && !parent.try_exists()? {
        make_durably(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    std::fs::File::open(parent)?.sync_all()
}

/// Refuses what belongs to somebody else or can be written by others.
pub(crate) fn check_owner_and_mode(stat: &Stat, path: &str) -> Result<(), StoreError> {
    let refuse = |problem: String| {
        Err(StoreError::Unsafe {
            path: path.to_owned(),
            problem,
        })
    };
    let ours = rustix::process::geteuid().as_raw();
    if stat.st_uid != ours {
        return refuse(format!(
            "it belongs to user id {}, and this program runs as {ours}",
            stat.st_uid
        ));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return refuse(format!(
            "its mode {:o} lets others write to it",
            stat.st_mode & 0o7777
        ));
    }
    Ok(())
}

/// Opens the directory `parts` below `root`; `make` creates what is missing, durably.
///
/// `Ok(None)`: a part is not there and was not to be made.
pub(crate) fn open_below(
    root: BorrowedFd<'_>,
    root_path: &Path,
    parts: &[&str],
    make: bool,
) -> Result<Option<OwnedFd>, StoreError> {
    let store = root_path.display().to_string();
    let mut shown = store.clone();
    let mut at = root
        .try_clone_to_owned()
        .map_err(|source| StoreError::from_io("opening", "the directory", &store, source))?;
    for part in parts {
        shown.push('/');
        shown.push_str(part);
        let failed =
            |operation, errno: Errno| StoreError::from_io(operation, &shown, &store, errno.into());
        if make {
            match rustix::fs::mkdirat(&at, *part, DIR_MODE) {
                Ok(()) => {
                    rustix::fs::fsync(&at).map_err(|errno| failed("creating", errno))?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("creating", errno)),
            }
        }
        let next = match rustix::fs::openat(&at, *part, DIR_FLAGS, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(StoreError::Unsafe {
                    path: shown,
                    problem: "it is a link, or no directory".to_owned(),
                });
            }
            Err(errno) => return Err(failed("opening", errno)),
        };
        let stat = rustix::fs::fstat(&next).map_err(|errno| failed("opening", errno))?;
        check_owner_and_mode(&stat, &shown)?;
        at = next;
    }
    Ok(Some(at))
}

/// What a directory holds, without `.` and `..`.
pub(crate) fn entries(dir: BorrowedFd<'_>) -> io::Result<Vec<(String, Stat)>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CString = &entry.file_name().to_owned();
        // Names that are not UTF-8 are never ours.
        let Ok(name) = name.to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => found.push((name.to_owned(), stat)),
            // Removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Type of what a `Stat` describes.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
