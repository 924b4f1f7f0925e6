//! A small file system, for a disk that gets full.

use std::path::{Path, PathBuf};

use crate::process::run;

/// A memory file system of a fixed size, unmounted when dropped. Needs root.
#[derive(Debug)]
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `kib` KiB.
    ///
    /// # Errors
    /// mount's words; without root there is none.
    pub fn mount(kib: u64) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("pgstow-disk-").tempdir();
        let dir = dir.map_err(|error| error.to_string())?;
        let path = dir.path().display().to_string();
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={kib}k,mode=700"),
                "tmpfs",
                &path,
            ],
        )?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path on it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.dir.path().display().to_string()]);
    }
}
