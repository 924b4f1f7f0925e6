//! Who dumps: each contender's command, where its output lies, and how a stock program restores it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::rig::{DATABASE, Rig};

/// Where an output lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output, an archive in a file of this host.
    Stream,
    /// A script in a file of this host, compressed with zstd.
    Script,
    /// A directory archive on this host.
    HostDirectory,
    /// A custom archive in the container.
    FileInside,
    /// A directory archive in the container.
    DirectoryInside,
    /// A data directory of pgstow.
    DataDirectory,
}

/// Path of an output in the container.
pub(crate) const INSIDE: &str = "/tmp/bench-output";

/// Makes one run's command; the path is where its output goes on this host.
type Make<'a> = Box<dyn Fn(&Path) -> Command + 'a>;

pub(crate) struct Contender<'a> {
    pub(crate) tool: String,
    pub(crate) output: Output,
    pub(crate) make: Make<'a>,
}

/// What every contender needs to know.
pub(crate) struct Bench<'a> {
    pub(crate) rig: &'a Rig,
    /// A private directory.
    pub(crate) work: &'a Path,
}

impl<'a> Bench<'a> {
    /// pgstow with a cleared environment.
    pub(crate) fn pgstow(&self, data_dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("target/release/pgstow");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.work);
        if let Some(host) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", host);
        }
        command.arg("--data-dir").arg(data_dir);
        command.arg("--quiet").args(args);
        command
    }

    pub(crate) fn target(&self) -> String {
        format!("container:{}", self.rig.name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The fastest compression that a pg_dump of this major knows.
    pub(crate) fn fast(&self) -> &'static str {
        if self.rig.major >= 16 { "zstd:1" } else { "1" }
    }

    fn stow(&'a self, options: &'static [&'static str]) -> Contender<'a> {
        Contender {
            tool: ["pgstow backup", &options.join(" ")]
                .join(" ")
                .trim()
                .to_owned(),
            output: Output::DataDirectory,
            make: Box::new(move |path| {
                let target = self.target();
                let args = ["backup", &target, "--database", DATABASE];
                self.pgstow(path, &[&args[..], options].concat())
            }),
        }
    }

    fn inside(&'a self, tool: &str, output: Output, args: Vec<&'static str>) -> Contender<'a> {
        Contender {
            tool: format!("{tool} {}", args.join(" ")),
            output,
            make: Box::new(move |_| {
                let mut command = self.rig.inside("pg_dump");
                command.args(&args);
                if output != Output::Stream {
                    command.args(["-f", INSIDE]);
                }
                command.args(["-d", DATABASE]);
                command
            }),
        }
    }

    /// All of them; the first is what ratios refer to.
    pub(crate) fn dumpers(&'a self) -> Vec<Contender<'a>> {
        let fast = self.fast();
        let exec = "docker exec pg_dump";
        let written = "pg_dump inside, to a file there:";
        let mut all = vec![
            self.stow(&[]),
            self.stow(&["--verify", "none"]),
            self.stow(&["--engine", "stock"]),
            self.inside(exec, Output::Stream, vec!["-Fc"]),
            self.inside(exec, Output::Stream, vec!["-Fc", "-Z", fast]),
            self.inside(written, Output::FileInside, vec!["-Fc", "-Z", fast]),
            self.inside(
                written,
                Output::DirectoryInside,
                vec!["-Fd", "-j2", "-Z", fast],
            ),
        ];
        all.push(Contender {
            tool: format!("{written} -Fd -j2 -Z {fast}, read to its end and hashed"),
            output: Output::DirectoryInside,
            make: Box::new(move |_| {
                let script = "pg_dump -U postgres -Fd -j2 -Z \"$1\" -f \"$2\" -d \"$0\" &&
                              pg_restore -f /dev/null \"$2\" && sha256sum \"$2\"/* > /dev/null";
                let mut command = Command::new("docker");
                command.args(["exec", &self.rig.name, "sh", "-c", script]);
                command.args([DATABASE, fast, INSIDE]);
                command
            }),
        });
        all.push(Contender {
            tool: "docker exec pg_dump -Fp | zstd -1 -T2".to_owned(),
            output: Output::Script,
            make: Box::new(|path| {
                let mut command = Command::new("bash");
                let pipe = "set -o pipefail
                            docker exec \"$0\" pg_dump -U postgres -Fp -d \"$1\" | zstd -1 -T2 -q -o \"$2\"";
                command.args(["-c", pipe, &self.rig.name, DATABASE]).arg(path);
                command
            }),
        });
        all.push(Contender {
            tool: "pg_dump -Fd -j2 -Z1 from the host".to_owned(),
            output: Output::HostDirectory,
            make: Box::new(|path| {
                let mut command = Command::new("pg_dump");
                command.args(["-Fd", "-j2", "-Z1", "-d", &self.rig.url(DATABASE), "-f"]);
                command.arg(path);
                command
            }),
        });
        all.push(Contender {
            tool: "pg_back from the host".to_owned(),
            output: Output::HostDirectory,
            make: Box::new(|path| {
                let mut command = Command::new("pg_back");
                command.args(["--format", "directory", "--jobs", "2", "--backup-directory"]);
                command.arg(path).arg(DATABASE);
                self.rig.host_env(&mut command);
                command
            }),
        });
        all
    }

    /// Stored bytes of an output.
    pub(crate) fn size(&self, output: Output, path: &Path) -> Result<u64, String> {
        match output {
            Output::FileInside | Output::DirectoryInside => self.rig.size_inside(INSIDE),
            Output::DataDirectory => Ok(bytes_under(&path.join("backups"))),
            _ => Ok(bytes_under(path)),
        }
    }

    /// Removes an output; the next run writes it anew.
    pub(crate) fn remove(&self, output: Output, path: &Path) -> Result<(), String> {
        if matches!(output, Output::FileInside | Output::DirectoryInside) {
            return self.rig.remove_inside(INSIDE);
        }
        remove(path)
    }

    /// A stock program that restores an output into a database which is there and empty.
    pub(crate) fn restorer(
        &self,
        output: Output,
        path: &Path,
        database: &str,
    ) -> Result<Command, String> {
        let archive = match output {
            Output::DataDirectory => newest_archive(path)?,
            Output::Stream => path.to_owned(),
            Output::Script => {
                let mut command = Command::new("bash");
                let pipe = "set -o pipefail
                            zstd -dcq \"$2\" | docker exec -i \"$0\" psql -U postgres -Xq \
                            -v ON_ERROR_STOP=1 -d \"$1\"";
                command
                    .args(["-c", pipe, &self.rig.name, database])
                    .arg(path);
                return Ok(command);
            }
            Output::HostDirectory => {
                self.rig.remove_inside(INSIDE)?;
                self.rig.copy_in(&directory_archive(path)?, INSIDE)?;
                return Ok(self.restore_inside(INSIDE, database));
            }
            Output::FileInside | Output::DirectoryInside => {
                return Ok(self.restore_inside(INSIDE, database));
            }
        };
        self.restore_stream(&archive, database)
    }

    /// `docker exec -i pg_restore`, fed from this host.
    ///
    /// # Errors
    /// When the archive cannot be opened.
    pub(crate) fn restore_stream(&self, archive: &Path, database: &str) -> Result<Command, String> {
        let file = std::fs::File::open(archive).map_err(|e| format!("{archive:?}: {e}"))?;
        let mut command = self.rig.inside_with_input("pg_restore");
        command
            .args(["--exit-on-error", "-d", database])
            .stdin(file);
        Ok(command)
    }

    /// `docker exec pg_restore -j2` of a file in the container.
    pub(crate) fn restore_inside(&self, path: &str, database: &str) -> Command {
        let mut command = self.rig.inside("pg_restore");
        command.args(["-j2", "--exit-on-error", "-d", database, path]);
        command
    }
}

/// Removes a file or a directory, where it is there.
///
/// # Errors
/// When something stays.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(|e| format!("{path:?}: {e}"))
}

/// Bytes of a file, or of all files under a directory.
pub(crate) fn bytes_under(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|e| bytes_under(&e.path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |meta| meta.len()),
    }
}

/// The directory at or under a path that holds a `toc.dat`.
fn directory_archive(path: &Path) -> Result<PathBuf, String> {
    if path.join("toc.dat").is_file() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|e| format!("{path:?}: {e}"))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|below| below.join("toc.dat").is_file())
        .ok_or_else(|| format!("no archive under {path:?}"))
}

/// The archive of the newest backup in a data directory.
///
/// # Errors
/// When there is none.
pub(crate) fn newest_archive(data_dir: &Path) -> Result<PathBuf, String> {
    let entries = |path: &Path| {
        std::fs::read_dir(path)
            .map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>())
            .map_err(|e| format!("{path:?}: {e}"))
    };
    let mut found = Vec::new();
    for backup in entries(&data_dir.join("backups"))? {
        found.extend(entries(&backup)?);
    }
    found.retain(|path| path.extension().is_some_and(|e| e == "dump"));
    found.sort();
    found
        .pop()
        .ok_or_else(|| format!("no archive under {data_dir:?}"))
}
