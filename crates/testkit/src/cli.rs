//! The program as a user would run it, with nothing of this machine leaking in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A home, a data directory and an environment of their own.
#[derive(Debug)]
pub struct Cli {
    binary: PathBuf,
    home: tempfile::TempDir,
    env: BTreeMap<String, String>,
    data_dir: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Insists on an exit code.
    ///
    /// # Panics
    /// With everything the program printed, when it ended otherwise.
    #[must_use]
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "wrong exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Cli {
    /// For a binary: `Cli::new(env!("CARGO_BIN_EXE_pgstow"))`.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        let home = tempfile::Builder::new().prefix("pgstow-cli-").tempdir();
        let home = home.expect("a temporary directory can be made");
        let data_dir = home.path().join("data");
        let mut env = BTreeMap::new();
        env.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        env.insert("HOME".to_owned(), home.path().display().to_string());
        env.insert("PGSTOW_DATA_DIR".to_owned(), data_dir.display().to_string());
        env.insert("NO_COLOR".to_owned(), "1".to_owned());
        if let Ok(host) = std::env::var("DOCKER_HOST") {
            env.insert("DOCKER_HOST".to_owned(), host);
        }
        Self {
            binary: PathBuf::from(binary),
            home,
            env,
            data_dir,
        }
    }

    /// Sets a variable for every run.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Uses another data directory.
    #[must_use]
    pub fn data_dir_at(mut self, path: &Path) -> Self {
        self.data_dir = path.to_owned();
        self.env("PGSTOW_DATA_DIR", &path.display().to_string())
    }

    /// The home directory, for files of a test.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Directories of backups, whether they are backups or not.
    #[must_use]
    pub fn backup_dirs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.data_dir.join("backups"))
            .into_iter()
            .flatten();
        let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        dirs.sort();
        dirs
    }

    /// The command of a run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.home.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Run {
        self.command(args)
            .output()
            .expect("the program can be started")
            .into()
    }

    /// Starts without waiting; output is thrown away.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program can be started")
    }
}

/// Looks at the command lines of all processes, again and again, for a text.
#[derive(Debug)]
pub struct ProcessWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl ProcessWatch {
    /// Starts to look for `text`.
    #[must_use]
    pub fn start(text: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, text) = (Arc::clone(&stop), text.as_bytes().to_vec());
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !flag.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                        continue;
                    };
                    if line.windows(text.len()).any(|window| window == text) {
                        found.push(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            found
        });
        Self { stop, thread }
    }

    /// Stops and returns every command line that held the text.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Files under a directory whose bytes hold `text`.
#[must_use]
pub fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        }) {
            found.push(path);
        }
    }
    found
}
