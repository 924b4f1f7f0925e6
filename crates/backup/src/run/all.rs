//! All databases of a run, the largest first. The roles are dumped while the first one begins, the
//! next one begins when the last rows of the one before it are on their way, and what is stored of a
//! database is hashed again while the next one is dumped.

use std::cmp::Reverse;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::back_up::Run;
use super::database::{Begun, Dumped, Subject};
use super::dump::{Work, explain_lock};
use super::preflight::Plan;
use crate::attest::{Budget, Wanted};
use crate::engine::{self, Stage};
use crate::manifest::{DatabaseRecord, GlobalsRecord};
use crate::requests::VerifyProblem;
use crate::verify::{Seen, VerifyWork};
use crate::{BackupError, BackupOptions, VerifyLevel};

/// Sessions that the first database takes to begin, with the one of pg_dumpall.
const SESSIONS_AT_THE_BEGIN: u32 = 3;

/// Bytes of a database that is dumped in no time, so that the next one begins at once.
const SMALL: u64 = 64 << 20;

/// What the dumps of a run left, in the order of the plan.
pub(super) struct Dumps {
    pub(super) globals: GlobalsRecord,
    pub(super) databases: Vec<DatabaseRecord>,
    /// How much of each was checked.
    pub(super) seen: Vec<Seen>,
    /// What that found.
    pub(super) problems: Vec<VerifyProblem>,
}

/// A database that was dumped, and its number in the plan.
type Numbered = (usize, Arc<DatabaseRecord>);

impl Run<'_> {
    /// Dumps the roles and every database of the plan.
    pub(super) async fn dump_all(
        &self,
        work: &Work<'_>,
        plan: &Plan,
        warnings: &mut Vec<String>,
    ) -> Result<Dumps, BackupError> {
        let mut subjects: Vec<Subject<'_>> = plan
            .databases
            .iter()
            .enumerate()
            .map(|(number, (facts, inside))| Subject {
                work,
                plan,
                number: number + 1,
                facts,
                inside,
            })
            .collect();
        // What takes longest to be hashed has the others beside it.
        subjects.sort_by_key(|subject| Reverse(subject.facts.size_bytes));
        let globals = work.store_globals(&plan.roles, self.sink, warnings);
        let together = self.executor.settings().max_connections >= SESSIONS_AT_THE_BEGIN;
        let (globals, first) = match subjects.first() {
            Some(first) if together => {
                let (globals, first) = tokio::join!(globals, self.begin(*first));
                match (globals, first) {
                    (Ok(globals), Ok(first)) => (globals, Some(first)),
                    (Err(error), Ok(first)) => {
                        first.abandon().await;
                        return Err(error);
                    }
                    (Err(error), Err(_)) => return Err(error),
                    (Ok(_), Err(error)) => return Err(self.explained(error)),
                }
            }
            _ => (globals.await?, None),
        };

        let (stored, to_check) = mpsc::unbounded_channel();
        let dumping = self.dump_each(&subjects, first, stored);
        let checking = self.check_each(to_check);
        tokio::pin!(dumping, checking);
        let (dumped, checked) = tokio::select! {
            dumped = &mut dumping => (dumped?, checking.await),
            // It ends only where it failed: what is being dumped comes to its end.
            checked = &mut checking => (dumping.await?, checked),
        };
        let (problems, checked) = checked?;
        let mut databases: Vec<(usize, DatabaseRecord, Seen)> = dumped
            .into_iter()
            .map(|((number, record), seen)| {
                let seen = match checked.contains(&number) {
                    true => Seen::Whole,
                    false => seen,
                };
                (number, Arc::unwrap_or_clone(record), seen)
            })
            .collect();
        databases.sort_by_key(|(number, ..)| *number);
        let (databases, seen) = databases
            .into_iter()
            .map(|(_, record, seen)| (record, seen))
            .unzip();
        Ok(Dumps {
            globals,
            databases,
            seen,
            problems,
        })
    }

    /// Dumps one database after the other, and hands over what can be checked at once.
    async fn dump_each(
        &self,
        subjects: &[Subject<'_>],
        mut begun: Option<Begun>,
        stored: mpsc::UnboundedSender<Numbered>,
    ) -> Result<Vec<(Numbered, Seen)>, BackupError> {
        let budget = self.options.fingerprint_budget;
        let mut budget = Budget::new(budget.unwrap_or(BackupOptions::FINGERPRINT_BUDGET));
        let most = self.executor.settings().max_connections;
        let room = engine::room_for_next(self.movers(), most);
        let mut dumps = Vec::with_capacity(subjects.len());
        for (at, subject) in subjects.iter().enumerate() {
            if let Err(error) = self.go_on("dumping") {
                if let Some(begun) = begun {
                    begun.abandon().await;
                }
                return Err(error);
            }
            let this = match begun.take() {
                Some(begun) => Ok(begun),
                None => self.begin(*subject).await,
            };
            let this = this.map_err(|error| self.explained(error))?;
            let next = subjects.get(at + 1).filter(|_| room);
            let (dumped, next) = self.dump_and_begin(*subject, this, &mut budget, next).await;
            let Dumped { record, seen } = dumped.map_err(|error| self.explained(error))?;
            begun = next;
            let numbered = (subject.number, Arc::new(record));
            // What is decoded takes memory, and has its turn at the end.
            if seen.left_of(self.options.verify) == VerifyLevel::Hash {
                // Nobody listens any more where a check failed.
                let _ = stored.send((numbered.0, Arc::clone(&numbered.1)));
            }
            dumps.push((numbered, seen));
        }
        Ok(dumps)
    }

    /// Dumps a database, and begins the next one before the last of its rows are stored: whoever
    /// starts pg_dump in a container waits a tenth of a second for it, in which little is done.
    /// After a failure nothing of the next one is left.
    async fn dump_and_begin(
        &self,
        subject: Subject<'_>,
        begun: Begun,
        budget: &mut Budget,
        next: Option<&Subject<'_>>,
    ) -> (Result<Dumped, BackupError>, Option<Begun>) {
        let small = subject.facts.size_bytes.is_some_and(|bytes| bytes < SMALL);
        // Not beside pg_dump alone.
        let (stage, mut at) = watch::channel(match small && begun.is_certain() {
            true => Stage::LastRows,
            false => Stage::Moving,
        });
        let dumping = async {
            let dumped = self.dump(subject, begun, budget, &stage).await;
            stage.send_replace(Stage::Over);
            dumped
        };
        let beginning = async {
            let next = next?;
            if *at.wait_for(|stage| *stage != Stage::Moving).await.ok()? != Stage::LastRows {
                return None;
            }
            // Why it cannot begin is told when it is its turn, if that is so then.
            let begun = self.begin(*next).await;
            let begun = begun
                .inspect_err(|error| tracing::debug!(%error, "the next database waits"))
                .ok()?;
            let ended = at.wait_for(|stage| *stage != Stage::LastRows).await;
            match ended.map_or(Stage::Over, |stage| *stage) {
                Stage::Over => Some(begun),
                // That may take hours, and its locks would stay.
                _ => {
                    begun.abandon().await;
                    None
                }
            }
        };
        match tokio::join!(dumping, beginning) {
            (Err(error), Some(begun)) => {
                begun.abandon().await;
                (Err(error), None)
            }
            dumped => dumped,
        }
    }

    /// Hashes what is stored, one database after the other: what was found, and in which ones all is
    /// known now.
    async fn check_each(
        &self,
        mut stored: mpsc::UnboundedReceiver<Numbered>,
    ) -> Result<(Vec<VerifyProblem>, Vec<usize>), BackupError> {
        let hash = VerifyLevel::Hash;
        let mut work = VerifyWork::new(self.repo, &self.record.id, hash, self.cancel);
        let mut checked = Vec::new();
        while let Some((number, record)) = stored.recv().await {
            let (name, archive) = (&record.name, &record.archive);
            work.database(name, archive, Wanted::default(), self.sink)
                .await?;
            checked.push(number);
        }
        Ok((work.checked.problems, checked))
    }

    fn explained(&self, error: BackupError) -> BackupError {
        explain_lock(error, self.executor.settings().lock_wait_timeout)
    }
}
