//! What dumps and restores do not show: reading stored archives, and the time before the first byte.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::contenders::{Bench, bytes_under, newest_archive};
use super::measure::{self, median};
use super::report::{Row, table, throughput};

impl Bench<'_> {
    /// Every tool reads the archive that pgstow stored to its end and throws the rows away.
    ///
    /// # Errors
    /// What keeps the bench itself from going on.
    pub(crate) fn reads(&self, rounds: usize) -> Result<String, String> {
        let data_dir = self.kept_backup()?;
        let archive = newest_archive(&data_dir)?;
        let tools = [
            "pgstow verify latest --level hash",
            "pgstow verify latest --level read",
            "docker exec -i pg_restore -f /dev/null",
        ];
        let mut rows: Vec<Row> = tools.iter().map(|tool| Row::new(tool)).collect();
        for _ in 0..rounds {
            for (index, row) in rows.iter_mut().enumerate() {
                let mut command = match index {
                    0 => self.pgstow(&data_dir, &["verify", "latest", "--level", "hash"]),
                    1 => self.pgstow(&data_dir, &["verify", "latest", "--level", "read"]),
                    _ => self.docker_read(&archive)?,
                };
                row.bytes = Some(bytes_under(&archive));
                match measure::run(self.rig, &mut command, None) {
                    // Nothing is restored: a run that ended with 0 read everything.
                    Ok(cost) => {
                        row.costs.push(cost);
                        row.compare(true);
                    }
                    Err(error) => row.fail(&error),
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
        let file = std::fs::File::open(archive).map_err(|e| format!("{archive:?}: {e}"))?;
        let mut command = self.rig.inside_with_input("pg_restore");
        command.args(["-f", "/dev/null"]).stdin(file);
        Ok(command)
    }

    /// Time from the start of the process to the start of the dump: discovery and preflight.
    ///
    /// # Errors
    /// What keeps the bench itself from going on.
    pub(crate) fn latency(&self, rounds: usize) -> Result<String, String> {
        let mut discover = Vec::new();
        let mut preflight = Vec::new();
        for _ in 0..rounds {
            let target = self.target();
            let mut command = self.pgstow(&self.work.join("latency"), &["discover", &target]);
            discover.push(measure::run(self.rig, &mut command, None)?.wall);
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
