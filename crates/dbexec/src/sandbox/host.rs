//! A throw-away server of this host's programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;

use super::SandboxError;
use super::line::Line;
use super::settings;
use super::spec::SandboxSpec;
use crate::executor::HostPrograms;
use crate::runtime::{Frame, RuntimeError};

/// How long the script may take to end after its line ended.
const END_WAIT: Duration = Duration::from_secs(10);
/// User that the server runs as where pgstow runs as root.
const SERVER_USER: &str = "postgres";

/// The script as a child process.
pub(crate) struct Hosted {
    child: Child,
    /// Its process group, for the case that it does not end by itself.
    group: Option<Pid>,
    /// Where the server works, once it was told.
    pub(crate) directory: Option<PathBuf>,
    /// Client programs are looked for there too.
    pub(crate) programs: HostPrograms,
}

/// Starts the script.
pub(crate) async fn start(
    spec: &SandboxSpec,
    programs: &HostPrograms,
    script: Vec<String>,
) -> Result<(Hosted, Line), SandboxError> {
    let mut command = Command::new("/bin/sh");
    let usual = ["/usr/bin", "/bin"].map(PathBuf::from);
    let dirs = programs.path_dirs.iter().chain(&usual);
    let path = std::env::join_paths(dirs).unwrap_or_else(|_| "/usr/bin:/bin".into());
    command
        .args(script)
        .env_clear()
        .envs(settings::locale(&spec.env))
        .env("PATH", path)
        .current_dir("/")
        // Ctrl-C in a terminal goes to its foreground group alone: this one ends by its line.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        let (user, group) = (id("-u").await?, id("-g").await?);
        command.uid(user).gid(group);
    }
    let failed = |source| SandboxError::Host {
        operation: "starting a shell for a throw-away server",
        source,
    };
    let mut child = command.spawn().map_err(failed)?;
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (Some(input), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
    };
    let broken = |error: std::io::Error| RuntimeError::Broken {
        operation: "read the output of a throw-away server",
        message: error.to_string(),
    };
    let said = ReaderStream::new(stdout).map(move |piece| piece.map(Frame::Stdout).map_err(broken));
    let logged =
        ReaderStream::new(stderr).map(move |piece| piece.map(Frame::Stderr).map_err(broken));
    let line = Line {
        output: Box::pin(futures_util::stream::select(said, logged)),
        input: Box::pin(input),
    };
    let hosted = Hosted {
        child,
        group,
        directory: None,
        programs: programs.clone(),
    };
    Ok((hosted, line))
}

/// A number of the user that the server runs as.
async fn id(which: &'static str) -> Result<u32, SandboxError> {
    let mut command = Command::new("id");
    command
        .args([which, SERVER_USER])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    let output = command
        .output()
        .await
        .map_err(|source| SandboxError::Host {
            operation: "asking for the user postgres",
            source,
        })?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse();
    number.map_err(|_| SandboxError::NoUser {
        reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

impl Hosted {
    /// Makes sure that the processes and the directory are gone.
    pub(crate) async fn gone(mut self) -> Result<(), SandboxError> {
        if tokio::time::timeout(END_WAIT, self.child.wait())
            .await
            .is_err()
        {
            if let Some(group) = self.group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait().await;
        }
        match &self.directory {
            Some(directory) => remove(directory),
            None => Ok(()),
        }
    }
}

/// The script removes its directory; this does it where the script was killed.
fn remove(directory: &Path) -> Result<(), SandboxError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SandboxError::NotRemoved {
                what: directory.display().to_string(),
                reason: error.to_string(),
            })
        }
        _ => Ok(()),
    }
}
