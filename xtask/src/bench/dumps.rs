//! Dumps in turn, each output restored once by a stock program and compared; and the bound that no
//! dump can pass.

use testkit::sets::Set;

use super::contenders::{Bench, Output};
use super::cpu::Reading;
use super::measure::{self, Cost};
use super::options::Options;
use super::report::{Row, table};
use super::rig::DATABASE;

/// Database that outputs are restored into.
const COPY: &str = "check_copy";
/// Data directory of the backup that restores read: the first contender's last one.
pub(crate) const KEPT: &str = "dump-0";

impl Bench<'_> {
    /// Every contender in turn, round by round.
    ///
    /// # Errors
    /// What keeps the bench itself from going on; a contender that fails gets a row that says so.
    pub(crate) fn dumps(
        &self,
        set: Set,
        options: &Options,
        expected: &str,
    ) -> Result<String, String> {
        let contenders: Vec<_> = self
            .dumpers()
            .into_iter()
            .filter(|contender| options.takes(&contender.tool))
            .collect();
        let mut rows: Vec<Row> = contenders.iter().map(|c| Row::new(&c.tool)).collect();
        let mut bound = Row::new(&format!(
            "bound: server's CPU of COPY TO '/dev/null' / {} cores",
            cores()
        ));
        bound.compared = false;
        for round in 0..options.rounds_of(set) {
            for (index, contender) in contenders.iter().enumerate() {
                let row = &mut rows[index];
                if !row.note.is_empty() {
                    continue;
                }
                let path = self.path(&format!("dump-{index}"));
                self.remove(contender.output, &path)?;
                self.settle()?;
                let mut command = (contender.make)(&path);
                let stream = contender.output == Output::Stream;
                match measure::run(self.rig, &mut command, stream.then_some(path.as_path())) {
                    Ok(cost) => {
                        eprintln!("{} {}: {:.2} s", set.word(), row.tool, cost.wall);
                        row.costs.push(cost);
                        row.bytes = Some(self.size(contender.output, &path)?);
                    }
                    Err(error) => {
                        row.fail(&error);
                        continue;
                    }
                }
                if round == 0 {
                    match self.restored(contender.output, &path) {
                        Ok(found) => row.compare(found == expected),
                        Err(error) => row.fail(&error),
                    }
                }
                // Disks are not endless; only what is restored afterwards stays.
                if index > 0 {
                    self.remove(contender.output, &path)?;
                }
            }
            if options.takes(&bound.tool) {
                bound.costs.push(self.copy_to_nowhere(set)?);
                bound.equal = Some(true);
            }
        }
        if !bound.costs.is_empty() {
            rows.push(bound);
        }
        Ok(table("Dump out of a container", &rows))
    }

    /// The same start for everyone: nothing to be written back.
    fn settle(&self) -> Result<(), String> {
        self.rig.psql("postgres", "checkpoint").map(drop)
    }

    /// Fingerprint of an output that a stock program restored, so that it is independent.
    fn restored(&self, output: Output, path: &std::path::Path) -> Result<String, String> {
        self.rig.drop_database(COPY)?;
        self.rig
            .psql("postgres", &format!("create database {COPY}"))?;
        let result = self
            .restorer(output, path, COPY)
            .and_then(|mut command| measure::run(self.rig, &mut command, None))
            .and_then(|_| self.rig.fingerprint(COPY));
        self.rig.drop_database(COPY)?;
        if output == Output::HostDirectory {
            self.rig.remove_inside(super::contenders::INSIDE)?;
        }
        result
    }

    /// The server's processor time for handing out every row and large object, as seconds that it
    /// would take on all cores with nobody else: no dump of text rows is faster.
    fn copy_to_nowhere(&self, set: Set) -> Result<Cost, String> {
        self.settle()?;
        let before = self.rig.cpu_seconds()?;
        self.rig.psql(
            DATABASE,
            "set synchronize_seqscans = off;
             select format('copy %I.%I to ''/dev/null''', n.nspname, c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)' \\gexec
             select sum(length(lo_get(oid))) from pg_largeobject_metadata;",
        )?;
        let cpu = self.rig.cpu_seconds()? - before;
        let cost = Cost {
            wall: cpu / cores() as f64,
            cpu: Reading {
                server: cpu,
                ..Reading::default()
            },
            peak: 0,
        };
        eprintln!("{} bound: {:.2} s", set.word(), cost.wall);
        Ok(cost)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
