//! The demo's server from programs of this host: a cluster in a temporary directory that listens
//! on a socket there and nowhere else. Root starts it as an unprivileged user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::{Child, Command};

use crate::session::Session;
use crate::settings::{TargetSettings, layers::SecretRef};

const PORT: u16 = 5432;
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A server that ends with [`DemoHost::stop`], and at the latest when it is dropped.
pub(super) struct DemoHost {
    pub(super) version: String,
    child: Child,
    dir: tempfile::TempDir,
    password_file: PathBuf,
}

impl DemoHost {
    pub(super) fn target(&self, user: &str) -> TargetSettings {
        TargetSettings {
            host: Some(self.dir.path().display().to_string()),
            port: Some(PORT),
            dbname: Some(super::DATABASE.to_owned()),
            username: Some(user.to_owned()),
            password: Some(SecretRef::File(self.password_file.clone())),
            named: true,
            ..TargetSettings::default()
        }
    }

    pub(super) fn words(&self, user: &str) -> String {
        format!(
            "--host {} --username {user} --password-file …",
            self.dir.path().display()
        )
    }

    /// Ends the server and removes its files.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        {
            // SIGQUIT: at once; the cluster is thrown away.
            rustix::process::kill_process(pid, Signal::QUIT)
                .map_err(|error| format!("ending the demo's server: {error}"))?;
        }
        if tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            self.child
                .kill()
                .await
                .map_err(|error| format!("ending the demo's server: {error}"))?;
        }
        self.dir
            .close()
            .map_err(|error| format!("removing the demo's cluster: {error}"))
    }
}

/// Who runs the server: nobody else when we are not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

pub(super) async fn start(
    session: &Session,
    user: &str,
    password: &SecretString,
) -> Result<DemoHost, String> {
    let bin = server_programs(session)
        .ok_or("no directory holds initdb and postgres (looked in --pg-bin-dir, PATH and the directories of the distributions)")?;
    let run_as = unprivileged()?;
    let dir = tempfile::Builder::new()
        .prefix("pgstow-demo-")
        .tempdir_in(super::scratch(&session.env))
        .map_err(|error| format!("making a temporary directory: {error}"))?;
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, format!("{}\n", password.expose_secret()))
        .and_then(|()| std::fs::set_permissions(&password_file, PermissionsExt::from_mode(0o600)))
        .map_err(|error| format!("writing the password file: {error}"))?;
    if let Some(User { uid, gid }) = run_as {
        for path in [dir.path(), &password_file] {
            chown(path, Some(uid), Some(gid))
                .map_err(|error| format!("giving {} away: {error}", path.display()))?;
        }
    }
    let data = dir.path().join("data");
    let mut initdb = command(&bin.join("initdb"), dir.path(), run_as);
    initdb
        .arg("--pgdata")
        .arg(&data)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username", user, "--auth", "scram-sha-256", "--no-sync"])
        .args(["--encoding", "UTF8", "--locale", "C"]);
    let made = initdb
        .output()
        .await
        .map_err(|error| format!("starting initdb: {error}"))?;
    if !made.status.success() {
        let words = String::from_utf8_lossy(&made.stderr);
        return Err(format!(
            "initdb failed with {}: {}",
            made.status,
            words.trim()
        ));
    }
    let version = version(&bin).await;
    let log = std::fs::File::create(dir.path().join("log"))
        .map_err(|error| format!("making the server's log: {error}"))?;
    let mut postgres = command(&bin.join("postgres"), dir.path(), run_as);
    let child = postgres
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(dir.path())
        .args([
            "-p",
            &PORT.to_string(),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("starting postgres: {error}"))?;
    let mut server = DemoHost {
        version,
        child,
        dir,
        password_file,
    };
    match wait_ready(&mut server, &data).await {
        Ok(()) => Ok(server),
        Err(why) => {
            let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("its log is empty").to_owned();
            // The first failure is the one to tell.
            let _ = server.stop().await;
            Err(format!("{why}: {last}"))
        }
    }
}

/// The server writes `ready` into its lock file when it accepts connections.
async fn wait_ready(server: &mut DemoHost, data: &Path) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        if let Ok(Some(status)) = server.child.try_wait() {
            return Err(format!("the server ended with {status}"));
        }
        let lock = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if lock
            .lines()
            .nth(7)
            .is_some_and(|line| line.trim() == "ready")
        {
            return Ok(());
        }
        if begun.elapsed() > READY_WITHIN {
            return Err(format!(
                "the server was not ready in {} s",
                READY_WITHIN.as_secs()
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A program with a cleared environment, out of the reach of a Ctrl-C at the terminal.
fn command(program: &Path, dir: &Path, run_as: Option<User>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir(dir)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(User { uid, gid }) = run_as {
        command.uid(uid).gid(gid);
    }
    command
}

async fn version(bin: &Path) -> String {
    let said = command(&bin.join("postgres"), Path::new("/"), None)
        .arg("--version")
        .output()
        .await;
    said.map_or_else(
        |_| "PostgreSQL".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// A directory with `initdb` and `postgres`: the newest of the distributions' directories.
fn server_programs(session: &Session) -> Option<PathBuf> {
    let programs = session.host_programs();
    let mut dirs: Vec<PathBuf> = programs
        .bin_dir
        .into_iter()
        .chain(programs.path_dirs)
        .collect();
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (base, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt", "pgsql-"),
    ] {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let major = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if let Some(major) = major {
                versioned.push((major, entry.path().join("bin")));
            }
        }
    }
    versioned.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    dirs.extend(versioned.into_iter().map(|(_, dir)| dir));
    dirs.into_iter()
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
}

/// PostgreSQL's server refuses to run as root.
fn unprivileged() -> Result<Option<User>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| format!("reading /etc/passwd: {error}"))?;
    find_user(&passwd)
        .map(Some)
        .ok_or_else(|| "there is no user postgres or nobody to run the server as".to_owned())
}

fn find_user(passwd: &str) -> Option<User> {
    ["postgres", "nobody"].iter().find_map(|name| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(name) {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid != 0).then_some(User { uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_runs_as_postgres_or_nobody_and_never_as_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        assert_eq!(
            find_user(passwd),
            Some(User {
                uid: 65534,
                gid: 65534
            })
        );
        let with = format!("{passwd}postgres:x:101:104::/var/lib/postgresql:/bin/sh\n");
        assert_eq!(find_user(&with), Some(User { uid: 101, gid: 104 }));
        assert_eq!(find_user("postgres:x:0:0::/:/bin/sh\n"), None);
    }
}
