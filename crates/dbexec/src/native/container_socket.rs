//! The server's Unix socket in a container of this host, reached through the container's first
//! process: no network is in the way, which saves a tenth of the processor time of the rows.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Most bytes of the description of a process's control groups that are looked at.
const GROUPS: usize = 64 * 1024;

/// Opens the socket `.s.PGSQL.<port>` of a directory as the container sees it, without connecting.
///
/// A process number that an engine tells means another process where the engine runs on another
/// machine, or after the container ended: the process has to be in a control group that is named
/// after the container, and everything is looked up by the one handle that was checked. Links in the
/// container lead to nothing outside of it.
///
/// # Errors
/// The process is not one of the container, may not be looked into (which takes root), or there is
/// no such socket.
pub(super) fn open(
    container: &str,
    process: u32,
    directory: &Path,
    port: u16,
) -> io::Result<OwnedFd> {
    let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, format!("/proc/{process}"), look, Mode::empty())?;
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let groups = openat(&process, "cgroup", read, Mode::empty())?;
    let mut described = vec![0; GROUPS];
    let length = rustix::io::read(&groups, &mut described[..])?;
    let described = String::from_utf8_lossy(&described[..length]);
    if container.is_empty() || !described.contains(container) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the container's process is not one of this host",
        ));
    }
    let root = openat(&process, "root", look, Mode::empty())?;
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let look = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(&root, socket, look, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::open;

    #[test]
    fn a_process_that_is_not_the_containers_is_not_looked_into() {
        let dir = tempfile::tempdir().expect("a directory");
        let _listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).expect("a socket");
        let own = std::process::id();
        let id = "1".repeat(64);
        let error = open(&id, own, dir.path(), 5432).expect_err("not in that container");
        assert!(
            error.to_string().contains("not one of this host"),
            "{error}"
        );
        assert!(open("", own, dir.path(), 5432).is_err());
    }
}
