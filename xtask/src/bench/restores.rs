//! Restores in turn, all of the same archive: the one that pgstow stored.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use testkit::sets::Set;

use super::contenders::{Bench, INSIDE, newest_archive};
use super::dumps::KEPT;
use super::measure;
use super::options::{Options, Part};
use super::report::{Row, table};
use super::rig::DATABASE;

/// Database that is restored.
const COPY: &str = "copy";

/// Who restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restorer {
    Stow,
    StowStock,
    Jobs,
    /// With the statistics that a restore by pgstow has gathered as well.
    JobsAnalyzed,
    Stream,
    Clone,
    /// In the place of the live database.
    Swap,
    /// Into a throw-away server.
    Prove,
}

impl Restorer {
    const ALL: &[Self] = &[
        Self::Stow,
        Self::StowStock,
        Self::Jobs,
        Self::JobsAnalyzed,
        Self::Stream,
        Self::Clone,
        Self::Swap,
        Self::Prove,
    ];

    fn tool(self) -> &'static str {
        match self {
            Self::Stow => "pgstow restore latest --as copy",
            Self::StowStock => "pgstow restore latest --engine stock --as copy",
            Self::Jobs => "docker exec pg_restore -j2 of a file in the container",
            Self::JobsAnalyzed => {
                "docker exec pg_restore -j2 there, then vacuumdb --analyze-only -j2"
            }
            Self::Stream => "docker exec -i pg_restore",
            Self::Clone => "pgcopydb clone from the host (dump and restore in one)",
            Self::Swap => "pgstow restore latest (staging, swap)",
            Self::Prove => "pgstow verify latest --level restore",
        }
    }

    /// Whether it needs a database that is there and empty.
    fn needs_database(self) -> bool {
        matches!(
            self,
            Self::Jobs | Self::JobsAnalyzed | Self::Stream | Self::Clone
        )
    }

    /// Whether it does more than a stock restore does; measured where that is asked for.
    fn is_extra(self) -> bool {
        matches!(self, Self::Swap | Self::Prove)
    }

    /// The database that holds the rows afterwards; `None` where it is gone again, and the tool
    /// itself has compared it.
    fn restored(self) -> Option<&'static str> {
        match self {
            Self::Swap => Some(DATABASE),
            Self::Prove => None,
            _ => Some(COPY),
        }
    }
}

impl Bench<'_> {
    /// Every contender in turn, round by round.
    ///
    /// # Errors
    /// What keeps the bench itself from going on.
    pub(crate) fn restores(
        &self,
        set: Set,
        options: &Options,
        expected: &str,
    ) -> Result<String, String> {
        let data_dir = self.kept_backup()?;
        let archive = newest_archive(&data_dir)?;
        self.rig.remove_inside(INSIDE)?;
        self.rig.copy_in(&archive, INSIDE)?;
        let extras = options.parts.contains(&Part::Extras);
        let mut rows: Vec<(Restorer, Row)> = Restorer::ALL
            .iter()
            .filter(|restorer| options.takes(restorer.tool()))
            .filter(|restorer| extras || !restorer.is_extra())
            .map(|restorer| (*restorer, Row::new(restorer.tool())))
            .collect();
        for round in 0..options.rounds_of(set) {
            for (restorer, row) in &mut rows {
                if !row.note.is_empty() {
                    continue;
                }
                self.rig.drop_database(COPY)?;
                if restorer.needs_database() {
                    self.rig
                        .psql("postgres", &format!("create database {COPY}"))?;
                }
                self.rig.psql("postgres", "checkpoint")?;
                let mut command = self.restore_command(*restorer, &data_dir, &archive)?;
                match measure::run(self.rig, &mut command, None) {
                    Ok(cost) => {
                        eprintln!("{} {}: {:.2} s", set.word(), row.tool, cost.wall);
                        row.costs.push(cost);
                        if round == 0 {
                            row.compare(match restorer.restored() {
                                Some(database) => self.rig.fingerprint(database)? == expected,
                                None => true,
                            });
                        }
                    }
                    Err(error) => row.fail(&error),
                }
                self.rig.drop_database(COPY)?;
                self.rig.drop_kept()?;
            }
        }
        self.rig.remove_inside(INSIDE)?;
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        Ok(table("Restore of the archive that pgstow stored", &rows))
    }

    /// The backup that the dumps left, or a new one.
    pub(crate) fn kept_backup(&self) -> Result<std::path::PathBuf, String> {
        let data_dir = self.path(KEPT);
        if newest_archive(&data_dir).is_err() {
            let target = self.target();
            let args = ["backup", &target, "--database", DATABASE];
            measure::run(self.rig, &mut self.pgstow(&data_dir, &args), None)?;
        }
        Ok(data_dir)
    }

    fn restore_command(
        &self,
        restorer: Restorer,
        data_dir: &Path,
        archive: &Path,
    ) -> Result<Command, String> {
        let target = self.target();
        let restore = ["restore", "latest", "--to", &target, "--as", COPY];
        Ok(match restorer {
            Restorer::Stow => self.pgstow(data_dir, &restore),
            Restorer::StowStock => {
                self.pgstow(data_dir, &[&restore[..], &["--engine", "stock"]].concat())
            }
            Restorer::Swap => {
                let consent = format!("--yes={DATABASE}");
                let args = ["restore", "latest", "--to", &target, "--no-safety-backup"];
                self.pgstow(data_dir, &[&args[..], &[consent.as_str()]].concat())
            }
            Restorer::Prove => self.pgstow(data_dir, &["verify", "latest", "--level", "restore"]),
            Restorer::Jobs => self.restore_inside(INSIDE, COPY),
            Restorer::JobsAnalyzed => {
                let script = "pg_restore -U postgres -j2 --exit-on-error -d \"$0\" \"$1\" &&
                              vacuumdb -U postgres --analyze-only -j2 --quiet \"$0\"";
                let mut command = Command::new("docker");
                command.args(["exec", &self.rig.name, "sh", "-c", script, COPY, INSIDE]);
                command
            }
            Restorer::Stream => self.restore_stream(archive, COPY)?,
            Restorer::Clone => {
                let spool = self.path("pgcopydb");
                super::contenders::remove(&spool)?;
                let mut command = Command::new("pgcopydb");
                // It ends its whole process group when it fails.
                command.process_group(0);
                command.args(["clone", "--table-jobs", "2", "--index-jobs", "2"]);
                command
                    .args(["--no-owner", "--skip-extensions", "--dir"])
                    .arg(spool);
                command.args(["--source", &self.rig.url(DATABASE)]);
                command.args(["--target", &self.rig.url(COPY)]);
                command
            }
        })
    }
}
