//! `--metrics-textfile`: Prometheus text for a node exporter's text file directory.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backup::BackupReport;
use dbexec::{Trail, discover::discovery_metrics};
use jiff::Timestamp;

/// What one command measured.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    trails: Vec<Trail>,
    backup: Option<Measured>,
}

#[derive(Debug)]
struct Measured {
    target: String,
    finished: Timestamp,
    bytes: u64,
    seconds: f64,
    databases: usize,
}

impl Metrics {
    /// Adds a discovery.
    pub(crate) fn trail(&mut self, trail: &Trail) {
        self.trails.push(trail.clone());
    }

    /// Adds a backup that exists.
    pub(crate) fn backup(&mut self, report: &BackupReport) {
        self.backup = Some(Measured {
            target: report.manifest.target.name.clone(),
            finished: report.manifest.finished_at,
            bytes: report.bytes,
            seconds: report.seconds,
            databases: report.manifest.databases.len(),
        });
    }

    /// The text of the file.
    pub(crate) fn render(&self, exit_code: u8, now: Timestamp) -> String {
        let mut text = discovery_metrics(&self.trails);
        gauge(
            &mut text,
            "pgstow_run_exit_code",
            "Exit code of the last run.",
            "",
            f64::from(exit_code),
        );
        let now = now.as_millisecond() as f64 / 1000.0;
        gauge(
            &mut text,
            "pgstow_run_timestamp_seconds",
            "End of the last run, Unix time.",
            "",
            now,
        );
        let Some(backup) = &self.backup else {
            return text;
        };
        let labels = format!("{{target=\"{}\"}}", escape(&backup.target));
        let finished = backup.finished.as_millisecond() as f64 / 1000.0;
        for (name, help, value) in [
            (
                "pgstow_backup_timestamp_seconds",
                "End of the backup, Unix time.",
                finished,
            ),
            (
                "pgstow_backup_size_bytes",
                "Stored bytes of the backup.",
                backup.bytes as f64,
            ),
            (
                "pgstow_backup_duration_seconds",
                "Duration of the backup.",
                backup.seconds,
            ),
            (
                "pgstow_backup_databases",
                "Databases in the backup.",
                backup.databases as f64,
            ),
        ] {
            gauge(&mut text, name, help, &labels, value);
        }
        text
    }
}

fn gauge(text: &mut String, name: &str, help: &str, labels: &str, value: f64) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}"
    );
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Replaces the file in one step; readable for the exporter (0644), as it holds no secrets.
pub(crate) fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".pgstow-metrics-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_shows_its_exit_code_and_no_backup() {
        let text = Metrics::default().render(11, "2026-11-23T06:00:00Z".parse().unwrap());
        assert!(text.contains("\npgstow_run_exit_code 11\n"), "{text}");
        assert!(!text.contains("pgstow_backup_"), "{text}");
    }

    #[test]
    fn the_file_is_replaced_in_one_step_and_readable() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pgstow.prom");
        write_file(&path, "one\n").unwrap();
        write_file(&path, "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o022, 0o644);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
