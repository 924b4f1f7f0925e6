//! A container engine for the tests: the one that answers, or one installed from the
//! distribution's packages and started by hand.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{docker, run};

const LOG: &str = "/var/log/pgstow-test-dockerd.log";

/// Makes sure that an engine answers; says what it does through `say`.
///
/// # Errors
/// What was tried and what to do instead.
pub fn ensure(say: &dyn Fn(&str)) -> Result<(), String> {
    let answer = docker(&["version", "--format", "{{.Server.Version}}"]);
    if let Ok(version) = answer {
        say(&format!("container engine {} answers", version.trim()));
        return Ok(());
    }
    let refused = answer.err().unwrap_or_default();
    if std::env::var_os("DOCKER_HOST").is_some() {
        return Err(format!(
            "DOCKER_HOST is set, but no engine answers there:\n{refused}"
        ));
    }
    if !is_root() {
        return Err(format!(
            "no container engine answers:\n{refused}\nstart one (for example `sudo systemctl start \
             docker`), or run this as root on a Debian system, where one is installed and started"
        ));
    }
    install(&["docker.io", "iptables"], "dockerd", say)?;
    start(say)
}

/// Installs packages of the distribution unless `program` is there already.
///
/// # Errors
/// What apt-get said.
pub fn install(packages: &[&str], program: &str, say: &dyn Fn(&str)) -> Result<(), String> {
    if has_program(program) {
        return Ok(());
    }
    if !is_root() || !has_program("apt-get") {
        return Err(format!(
            "{program} is not installed; install {}",
            packages.join(" ")
        ));
    }
    say(&format!("installing {}", packages.join(" ")));
    run("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(packages);
    run(
        "env",
        &[&["DEBIAN_FRONTEND=noninteractive", "apt-get"][..], &args].concat(),
    )?;
    if has_program(program) {
        Ok(())
    } else {
        Err(format!("{} did not bring {program}", packages.join(" ")))
    }
}

fn start(say: &dyn Fn(&str)) -> Result<(), String> {
    say("starting dockerd");
    // A pid file of an engine that did not end cleanly stops the next one from starting.
    if let Ok(pid) = fs::read_to_string("/var/run/docker.pid")
        && !Path::new("/proc").join(pid.trim()).exists()
    {
        let _ = fs::remove_file("/var/run/docker.pid");
    }
    let log = File::create(LOG).map_err(|error| format!("{LOG}: {error}"))?;
    let errors = log.try_clone().map_err(|error| format!("{LOG}: {error}"))?;
    Command::new("dockerd")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A group of its own: ending the tests must not end the engine in the middle of a removal.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("dockerd cannot be started: {error}"))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if docker(&["version", "--format", "{{.Server.Version}}"]).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(10).collect();
    Err(format!(
        "dockerd did not answer within 60 s; the end of {LOG}:\n{}",
        tail.join("\n")
    ))
}

/// Whether a program is on PATH.
#[must_use]
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
