//! The bench itself: arguments, rounds A B A B, restores and comparison.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::measure::{self, Cost, median};
use super::report::{Row, table, throughput};
use super::rig::{DATABASE, Rig};

const USAGE: &str = "cargo xtask bench [--rounds N] [--size-mb N] [--majors 15,17] [--quick]";

struct Options {
    rounds: usize,
    size_mb: u64,
    majors: Vec<u32>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            rounds: 5,
            size_mb: 2048,
            majors: vec![15, 17],
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value; {USAGE}"));
            match arg.as_str() {
                "--rounds" => options.rounds = number(value()?)?,
                "--size-mb" => options.size_mb = number(value()?)?,
                "--majors" => {
                    options.majors = value()?.split(',').map(number).collect::<Result<_, _>>()?;
                }
                "--quick" => (options.rounds, options.size_mb) = (3, 128),
                _ => return Err(format!("{arg:?} is not known; {USAGE}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: impl AsRef<str>) -> Result<T, String> {
    text.as_ref()
        .parse()
        .map_err(|_| format!("{:?} is no number; {USAGE}", text.as_ref()))
}

/// Runs the bench and prints its tables.
///
/// # Errors
/// What could not be built, started, measured or compared.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "-p", "pgstow"])
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !built.success() {
        return Err("the release build failed".to_owned());
    }
    for major in &options.majors {
        bench_major(*major, &options)?;
    }
    Ok(())
}

fn bench_major(major: u32, options: &Options) -> Result<(), String> {
    println!(
        "filling a PostgreSQL {major} server with about {} MB …",
        options.size_mb
    );
    let rig = Rig::start(major, options.size_mb)?;
    let work = tempfile::tempdir().map_err(|e| e.to_string())?;
    let bench = Bench {
        rig: &rig,
        work: work.path(),
        major,
    };
    let expected = rig.fingerprint(DATABASE)?;
    println!(
        "\n## PostgreSQL {major}, database of {} MB",
        rig.bytes / 1_000_000
    );
    print!("{}", bench.dumps(options.rounds, &expected)?);
    print!("{}", bench.reads(options.rounds)?);
    print!("{}", bench.restores(options.rounds, &expected)?);
    print!("{}", bench.latency(options.rounds.max(5))?);
    Ok(())
}

/// Index of the contender whose backup is attested in full: what is read and restored.
const ATTESTED: usize = 2;

/// Makes one run's command; the path is where its output goes.
type Make<'a> = Box<dyn Fn(&Path) -> Command + 'a>;

struct Contender<'a> {
    tool: String,
    make: Make<'a>,
    /// Whether standard output is the archive (else the command writes it itself).
    to_stdout: bool,
}

fn to_stdout(tool: String, make: Make<'_>) -> Contender<'_> {
    Contender {
        tool,
        make,
        to_stdout: true,
    }
}

struct Bench<'a> {
    rig: &'a Rig,
    work: &'a Path,
    major: u32,
}

impl Bench<'_> {
    fn pgstow(&self, data_dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("target/release/pgstow");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.work);
        if let Some(host) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", host);
        }
        command
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--quiet")
            .args(args);
        command
    }

    fn target(&self) -> String {
        format!("container:{}", self.rig.name)
    }

    fn docker_dump(&self, extra: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", &self.rig.name, "pg_dump", "-U", "postgres", "-Fc"]);
        command.args(extra).args(["-d", DATABASE]);
        command
    }

    fn host_dump(&self) -> Command {
        let mut command = Command::new("pg_dump");
        command.args(["-Fc", "-d", DATABASE]);
        self.rig.host_env(&mut command);
        command
    }

    fn dumpers(&self) -> Vec<Contender<'_>> {
        let fast: &[&str] = if self.major >= 16 {
            &["-Z", "zstd:2"]
        } else {
            &["-Z1"]
        };
        let stow = |options: &'static [&'static str]| -> Contender<'_> {
            Contender {
                tool: format!("pgstow backup {}", options.join(" ")),
                make: Box::new(move |path| {
                    let target = self.target();
                    let args = [&["backup", &target, "--database", DATABASE][..], options].concat();
                    self.pgstow(path, &args)
                }),
                to_stdout: false,
            }
        };
        vec![
            // With one session there is none beside the dump: nothing is attested by the server.
            stow(&[
                "--verify",
                "none",
                "--fingerprint-budget",
                "0",
                "--max-connections",
                "1",
            ]),
            stow(&["--verify", "none", "--fingerprint-budget", "0"]),
            stow(&["--verify", "none"]),
            stow(&["--verify", "read"]),
            to_stdout(
                "docker exec pg_dump -Fc".to_owned(),
                Box::new(|_| self.docker_dump(&[])),
            ),
            to_stdout(
                format!("docker exec pg_dump -Fc {}", fast.join(" ")),
                Box::new(move |_| self.docker_dump(fast)),
            ),
            to_stdout(
                "pg_dump -Fc from the host".to_owned(),
                Box::new(|_| self.host_dump()),
            ),
        ]
    }

    /// Each dumper in turn, round by round; its last output is restored and compared.
    fn dumps(&self, rounds: usize, expected: &str) -> Result<String, String> {
        let contenders = self.dumpers();
        let mut rows: Vec<Row> = contenders.iter().map(|c| empty_row(&c.tool)).collect();
        for _ in 0..rounds {
            for (index, contender) in contenders.iter().enumerate() {
                if !rows[index].note.is_empty() {
                    continue;
                }
                let path = self.output(index);
                remove(&path);
                let mut command = (contender.make)(&path);
                let output = contender.to_stdout.then_some(path.as_path());
                match measure::run(&mut command, output) {
                    Ok(cost) => rows[index].costs.push(cost),
                    Err(error) => rows[index].note = last_line(&error),
                }
                rows[index].bytes = Some(size(&path));
            }
        }
        for (index, contender) in contenders.iter().enumerate() {
            if rows[index].note.is_empty() {
                let restored = self.restore_once(&self.output(index), contender.to_stdout);
                rows[index].equal = Some(restored? == expected);
            }
        }
        Ok(table("Dump out of a container", &rows))
    }

    fn output(&self, index: usize) -> PathBuf {
        self.work.join(format!("dump-{index}"))
    }

    /// Restores by the stock program in the container, so that the comparison is independent.
    fn restore_once(&self, path: &Path, is_archive: bool) -> Result<String, String> {
        let archive = if is_archive {
            path.to_owned()
        } else {
            newest_archive(path)?
        };
        self.rig.psql("postgres", "create database check_copy")?;
        let result = measure::run(&mut self.docker_restore(&archive, "check_copy")?, None)
            .and_then(|_| self.rig.fingerprint("check_copy"));
        self.rig.drop_database("check_copy")?;
        result
    }

    fn docker_restore(&self, archive: &Path, database: &str) -> Result<Command, String> {
        let file = fs::File::open(archive).map_err(|e| format!("{archive:?}: {e}"))?;
        let mut command = Command::new("docker");
        command.args(["exec", "-i", &self.rig.name, "pg_restore", "-U", "postgres"]);
        command
            .args(["--exit-on-error", "-d", database])
            .stdin(file);
        Ok(command)
    }

    fn host_restore(&self, archive: &Path, database: &str) -> Command {
        let mut command = Command::new("pg_restore");
        command
            .args(["-j2", "--exit-on-error", "-d", database])
            .arg(archive);
        self.rig.host_env(&mut command);
        command
    }

    /// Every tool reads the archive that pgstow stored to its end and throws the rows away.
    fn reads(&self, rounds: usize) -> Result<String, String> {
        let data_dir = self.output(ATTESTED);
        let archive = newest_archive(&data_dir)?;
        let tools = [
            "pgstow verify latest --level hash",
            "pgstow verify latest --level read",
            "docker exec -i pg_restore -f /dev/null",
        ];
        let mut rows: Vec<Row> = tools.iter().map(|tool| empty_row(tool)).collect();
        for _ in 0..rounds {
            for (index, row) in rows.iter_mut().enumerate() {
                let mut command = match index {
                    0 => self.pgstow(&data_dir, &["verify", "latest", "--level", "hash"]),
                    1 => self.pgstow(&data_dir, &["verify", "latest", "--level", "read"]),
                    _ => self.docker_read(&archive)?,
                };
                row.bytes = Some(size(&archive));
                match measure::run(&mut command, None) {
                    // Nothing is restored: a run that ended with 0 read everything.
                    Ok(cost) => {
                        row.costs.push(cost);
                        row.equal = Some(true);
                    }
                    Err(error) => row.note = last_line(&error),
                }
            }
        }
        Ok(format!(
            "{}{}",
            table("Reading a stored archive to its end", &rows),
            throughput(&rows)
        ))
    }

    fn docker_read(&self, archive: &Path) -> Result<Command, String> {
        let file = fs::File::open(archive).map_err(|e| format!("{archive:?}: {e}"))?;
        let mut command = Command::new("docker");
        command
            .args(["exec", "-i", &self.rig.name, "pg_restore"])
            .args(["-f", "/dev/null"])
            .stdin(file);
        Ok(command)
    }

    /// Every tool restores the same archive, the one that pgstow stored.
    fn restores(&self, rounds: usize, expected: &str) -> Result<String, String> {
        let data_dir = self.output(ATTESTED);
        let archive = newest_archive(&data_dir)?;
        let inside = "/tmp/bench.dump";
        self.rig.copy_in(&archive, inside)?;
        let tools = [
            "pgstow restore latest --as copy",
            "pgstow restore latest (staging, swap)",
            "pgstow verify latest --level restore",
            "docker exec -i pg_restore",
            "docker exec pg_restore -j2 of a file in the container",
            "pg_restore -j2 from the host",
        ];
        let mut rows: Vec<Row> = tools.iter().map(|tool| empty_row(tool)).collect();
        let target = self.target();
        for _ in 0..rounds {
            for (index, row) in rows.iter_mut().enumerate() {
                if !row.note.is_empty() {
                    continue;
                }
                if index > 2 {
                    self.rig.psql("postgres", "create database copy")?;
                }
                let stow = |args: &[&str]| self.pgstow(&data_dir, args);
                let consent = format!("--yes={DATABASE}");
                let mut command = match index {
                    0 => stow(&["restore", "latest", "--to", &target, "--as", "copy"]),
                    1 => stow(&[
                        "restore",
                        "latest",
                        "--to",
                        &target,
                        "--no-safety-backup",
                        &consent,
                    ]),
                    2 => stow(&["verify", "latest", "--level", "restore"]),
                    3 => self.docker_restore(&archive, "copy")?,
                    4 => self.docker_restore_inside(inside, "copy"),
                    _ => self.host_restore(&archive, "copy"),
                };
                match measure::run(&mut command, None) {
                    Ok(cost) => {
                        row.costs.push(cost);
                        let restored = if index == 1 { DATABASE } else { "copy" };
                        // What was restored for verification is gone; its exit code compared it.
                        let equal = index == 2 || self.rig.fingerprint(restored)? == expected;
                        row.equal = Some(row.equal.unwrap_or(true) && equal);
                    }
                    Err(error) => row.note = last_line(&error),
                }
                self.rig.drop_database("copy")?;
                self.rig.drop_kept()?;
            }
        }
        Ok(table("Restore of the same archive", &rows))
    }

    fn docker_restore_inside(&self, path: &str, database: &str) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["exec", &self.rig.name, "pg_restore", "-U", "postgres"])
            .args(["-j2", "--exit-on-error", "-d", database, path]);
        command
    }

    /// Time from the start of the process to the start of the dump: discovery and preflight.
    fn latency(&self, rounds: usize) -> Result<String, String> {
        let mut discover = Vec::new();
        let mut preflight = Vec::new();
        for _ in 0..rounds {
            let target = self.target();
            let mut command = self.pgstow(&self.work.join("latency"), &["discover", &target]);
            discover.push(measure::run(&mut command, None)?.wall);
            preflight.push(self.until_first_dump()?);
        }
        Ok(format!(
            "\n### Before the first byte\n\n| what | median ms |\n| --- | --- |\n\
             | `pgstow discover`, whole process | {:.0} |\n\
             | `pgstow backup`: discovery and preflight, to the start of pg_dump | {:.0} |\n",
            median(&discover) * 1000.0,
            median(&preflight) * 1000.0
        ))
    }

    /// Starts a backup with JSON events, takes the time to the first `phase_started` of a dump and
    /// lets it finish.
    fn until_first_dump(&self) -> Result<f64, String> {
        use std::io::{BufRead, BufReader};
        let data_dir = self.work.join("latency");
        let target = self.target();
        let args = [
            "backup",
            &target,
            "--database",
            "postgres",
            "--verify",
            "none",
            "--json",
        ];
        let started = Instant::now();
        let mut child = self
            .pgstow(&data_dir, &args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut first = None;
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| e.to_string())?;
            let is_start = line.contains("\"phase_started\"") && line.contains("\"dump\"");
            if is_start && first.is_none() {
                first = Some(started.elapsed().as_secs_f64());
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        match first {
            Some(seconds) if status.success() => Ok(seconds),
            _ => Err(format!(
                "no dump was seen to start; pgstow ended with {status}"
            )),
        }
    }
}

fn empty_row(tool: &str) -> Row {
    let costs: Vec<Cost> = Vec::new();
    Row {
        tool: tool.to_owned(),
        costs,
        bytes: None,
        equal: None,
        note: String::new(),
    }
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().replace('|', "/")
}

fn remove(path: &Path) {
    // Either kind may be there, or none: the next run writes it anew.
    let _ = fs::remove_dir_all(path);
    let _ = fs::remove_file(path);
}

fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |meta| meta.len()),
    }
}

/// The archive of the newest backup in a data directory.
fn newest_archive(data_dir: &Path) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for backup in fs::read_dir(data_dir.join("backups"))
        .map_err(|e| e.to_string())?
        .flatten()
    {
        for file in fs::read_dir(backup.path())
            .map_err(|e| e.to_string())?
            .flatten()
        {
            if file
                .path()
                .extension()
                .is_some_and(|extension| extension == "dump")
            {
                found.push(file.path());
            }
        }
    }
    found.sort();
    found
        .pop()
        .ok_or_else(|| format!("no archive under {data_dir:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let args = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let options = Options::parse(&args("--rounds 7 --majors 13,18")).unwrap();
        assert_eq!((options.rounds, options.majors), (7, vec![13, 18]));
        assert!(Options::parse(&args("--rounds")).is_err());
        assert!(Options::parse(&args("--what")).is_err());
    }
}
