//! The data directory: which one, made private, and refused when others could tamper with it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use dbexec::EnvSnapshot;

use crate::{error::CommandError, exit::codes};

/// Where root keeps its backups.
const SYSTEM_DIR: &str = "/var/lib/pgstow";

/// The data directory and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir {
    /// `--data-dir`.
    pub(crate) root: PathBuf,
}

impl DataDir {
    /// Where backups are.
    pub(crate) fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// Where records, locks and the persisted credentials are.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The persisted credentials of the default target.
    pub(crate) fn persisted_file(&self) -> PathBuf {
        self.state().join("db.env")
    }

    /// Scratch files of host programs.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Whether there is a data directory with backups already; checked when it is there.
    pub(crate) fn existing(&self) -> Result<bool, CommandError> {
        match self.root.symlink_metadata() {
            Ok(_) => check(&self.root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("opening", &self.root, &error)),
        }
        match self.backups().symlink_metadata() {
            Ok(_) => check(&self.backups()).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("opening", &self.backups(), &error)),
        }
    }

    /// Makes what is missing (0700) and checks everything.
    pub(crate) fn prepare(&self) -> Result<(), CommandError> {
        for dir in [
            self.root.clone(),
            self.backups(),
            self.state(),
            self.scratch(),
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .or_else(|error| match error.kind() {
                    // A link or a file: the check below says what is wrong.
                    io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })
                .map_err(|error| failed("making", &dir, &error))?;
            check(&dir)?;
        }
        Ok(())
    }
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> CommandError {
    CommandError::caused(
        codes::DATA_DIR_UNSAFE,
        format!("{operation} the directory {} failed", path.display()),
        error,
    )
}

/// Refuses links, foreign owners and directories that others may write to.
pub(crate) fn check(path: &Path) -> Result<(), CommandError> {
    let refuse = |problem: String, fix: String| {
        Err(CommandError::new(
            codes::DATA_DIR_UNSAFE,
            format!("{} must not be used: {problem}", path.display()),
        )
        .hint(fix))
    };
    let meta = path
        .symlink_metadata()
        .map_err(|error| failed("opening", path, &error))?;
    if meta.file_type().is_symlink() {
        return refuse(
            "it is a symbolic link".to_owned(),
            "name the directory that it points to, if you trust it".to_owned(),
        );
    }
    if !meta.is_dir() {
        return refuse(
            "it is no directory".to_owned(),
            "move it away, or name another directory".to_owned(),
        );
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return refuse(
            format!(
                "it belongs to user id {}, and pgstow runs as {me}",
                meta.uid()
            ),
            "run pgstow as its owner, or name another directory with --data-dir".to_owned(),
        );
    }
    if meta.mode() & 0o022 != 0 {
        return refuse(
            format!(
                "its mode {:04o} lets others write to it",
                meta.mode() & 0o7777
            ),
            format!("check what is in it, then: chmod 700 {}", path.display()),
        );
    }
    Ok(())
}

/// The data directory when no setting names one.
pub(crate) fn default_data_dir(env: &EnvSnapshot) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from(SYSTEM_DIR));
    }
    absolute(env, "XDG_DATA_HOME")
        .or_else(|| absolute(env, "HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("pgstow"))
}

/// Configuration of this user.
pub(crate) fn user_config(env: &EnvSnapshot) -> Option<PathBuf> {
    absolute(env, "XDG_CONFIG_HOME")
        .or_else(|| absolute(env, "HOME").map(|home| home.join(".config")))
        .map(|base| base.join("pgstow/config.toml"))
}

/// The XDG rules: a path that is not absolute is ignored.
fn absolute(env: &EnvSnapshot, name: &str) -> Option<PathBuf> {
    env.get(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_private_and_accepted_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir {
            root: temp.path().join("a/b"),
        };
        assert!(!dir.existing().unwrap());
        dir.prepare().unwrap();
        dir.prepare().unwrap();
        assert!(dir.existing().unwrap());
        for path in [&dir.root, &dir.backups(), &dir.state()] {
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
        }
    }

    #[test]
    fn bar_39_links_files_and_loose_modes_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let real = temp.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, temp.path().join("link")).unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        let loose = temp.path().join("loose");
        std::fs::create_dir(&loose).unwrap();
        std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(0o777)).unwrap();
        for (name, word) in [
            ("link", "symbolic link"),
            ("file", "no directory"),
            ("loose", "0777"),
        ] {
            let dir = DataDir {
                root: temp.path().join(name),
            };
            let error = dir.prepare().unwrap_err();
            assert_eq!(error.exit, 20);
            assert!(error.messages[0].contains(word), "{:?}", error.messages);
        }
        assert!(std::fs::read_dir(&real).unwrap().next().is_none());
    }

    #[test]
    fn xdg_paths_must_be_absolute() {
        let env: EnvSnapshot = [("XDG_CONFIG_HOME", "relative"), ("HOME", "/home/u")]
            .into_iter()
            .collect();
        assert_eq!(
            user_config(&env),
            Some(PathBuf::from("/home/u/.config/pgstow/config.toml"))
        );
    }
}
