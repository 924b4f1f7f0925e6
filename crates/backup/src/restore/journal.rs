//! The journal of a restore that replaces a database: one file for each, written durably ahead of
//! each step, so that whoever comes after a kill knows what may have happened, and by which oids
//! to look for it.

use dbexec::{ContainerIdentity, DbContext, DbMode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    BackupError, BackupEvent, Clock, EventSink, Repository, id::BackupId, lock, records,
    state::StateDir,
};

/// Format version that this program writes.
const FORMAT_VERSION: u32 = 1;
/// Directory of the journals in the state directory.
const DIR: &str = "restores";
/// Journals of ended restores that are kept for a person to look at.
const KEPT: usize = 50;

/// What a restore does next, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestoreStep {
    /// Nothing was touched yet.
    Planned,
    /// The live database is backed up.
    SafetyBackup,
    /// The staging database is being created, or is there.
    StagingCreated,
    /// Rows come into the staging database.
    Filling,
    /// The staging database is compared with the backup and gets its properties.
    Comparing,
    /// The two databases change their names, in one transaction of the server.
    Swapping,
    /// The restored database is live; the old one is kept.
    Swapped,
    /// The old database gets its name back.
    RollingBack,
    /// The old database is live again; the restored one is kept.
    RolledBack,
    /// The restore was given up before the swap; nothing of it is left.
    Undone,
    /// The kept database was dropped.
    Dropped,
}

impl RestoreStep {
    /// The word in journals and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::SafetyBackup => "safety_backup",
            Self::StagingCreated => "staging_created",
            Self::Filling => "filling",
            Self::Comparing => "comparing",
            Self::Swapping => "swapping",
            Self::Swapped => "swapped",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Undone => "undone",
            Self::Dropped => "dropped",
        }
    }

    /// Whether a restore that stands here has more to do.
    #[must_use]
    pub fn unfinished(self) -> bool {
        self <= Self::Swapping || self == Self::RollingBack
    }
}

/// A restore that replaces a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreJournal {
    /// Format version.
    pub format_version: u32,
    /// Its id.
    pub id: BackupId,
    /// Target's name.
    pub target: String,
    /// Key of the target's lock.
    pub lock_key: String,
    /// Where the server runs.
    pub mode: DbMode,
    /// Its container.
    pub container: Option<ContainerIdentity>,
    /// `application_name` of the sessions that work on it, for reaping.
    pub application_name: String,
    /// What is restored, for people.
    pub source: String,
    /// The backup, where it is one.
    pub backup: Option<BackupId>,
    /// The database that is replaced.
    pub database: String,
    /// Database from which the others are renamed.
    pub maintenance: String,
    /// Oid of the database that had the name before; `None` when there was none.
    pub live_oid: Option<u32>,
    /// Name of the staging database.
    pub staging: String,
    /// Its oid, once it is known.
    pub staging_oid: Option<u32>,
    /// Name under which the old database is kept.
    pub before: String,
    /// Name under which the restored database is kept after a rollback.
    pub undone: String,
    /// Roles that the restore creates.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The safety backup.
    pub safety_backup: Option<BackupId>,
    /// The step that was begun last.
    pub step: RestoreStep,
    /// Begin of the restore, UTC.
    pub started_at: Timestamp,
    /// Begin of each step, UTC.
    pub steps: Vec<(RestoreStep, Timestamp)>,
    /// How long the old database is kept, seconds.
    pub keep_old_seconds: u64,
    /// Until when the kept database stays.
    pub keep_until: Option<Timestamp>,
    /// How long nobody could connect during the last exchange of names, seconds.
    pub outage_seconds: Option<f64>,
}

/// A database that a restore or a rollback has put aside.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptDatabase {
    /// The restore.
    pub restore: BackupId,
    /// Target's name.
    pub target: String,
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// The database whose name it had.
    pub of: String,
    /// Until when it stays; `prune` drops it afterwards.
    pub keep_until: Option<Timestamp>,
}

impl KeptDatabase {
    /// Whether it may go.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.keep_until.is_some_and(|until| until <= now)
    }
}

impl RestoreJournal {
    /// The database that is kept, where there is one.
    #[must_use]
    pub fn kept(&self) -> Option<KeptDatabase> {
        let (name, oid) = match self.step {
            RestoreStep::Swapped => (&self.before, self.live_oid?),
            RestoreStep::RolledBack => (&self.undone, self.staging_oid?),
            _ => return None,
        };
        Some(KeptDatabase {
            restore: self.id.clone(),
            target: self.target.clone(),
            name: name.clone(),
            oid,
            of: self.database.clone(),
            keep_until: self.keep_until,
        })
    }

    /// Since when it stands where it stands.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.steps.last().map_or(self.started_at, |(_, at)| *at)
    }

    /// Whether it is of this server.
    #[must_use]
    pub fn is_of(&self, context: &DbContext) -> bool {
        let key = records::lock_key(
            context.server.system_identifier.as_deref(),
            &context.target_name(),
        );
        self.lock_key == key
    }
}

/// Journals that stand in the middle and that no running process works on, oldest first.
///
/// # Errors
/// When the state directory cannot be used.
pub fn unfinished_restores(
    state_dir: &std::path::Path,
) -> Result<Vec<RestoreJournal>, BackupError> {
    let Some(state) = StateDir::existing(state_dir)? else {
        return Ok(Vec::new());
    };
    let mut journals = read_all(&state)?;
    journals
        .retain(|journal| journal.step.unfinished() && !lock::is_held(&state, &journal.lock_key));
    Ok(journals)
}

/// Every restore that replaced a database, oldest first, whatever became of it.
///
/// # Errors
/// When the state directory cannot be used.
pub fn replacing_restores(state_dir: &std::path::Path) -> Result<Vec<RestoreJournal>, BackupError> {
    match StateDir::existing(state_dir)? {
        Some(state) => read_all(&state),
        None => Ok(Vec::new()),
    }
}

/// Databases that restores and rollbacks have put aside, oldest first.
///
/// # Errors
/// When the state directory cannot be used.
pub fn kept_databases(state_dir: &std::path::Path) -> Result<Vec<KeptDatabase>, BackupError> {
    let journals = replacing_restores(state_dir)?;
    Ok(journals.iter().filter_map(RestoreJournal::kept).collect())
}

fn file_name(id: &BackupId) -> String {
    format!("{DIR}/{id}.json")
}

/// Every journal that can be read, oldest first.
pub(crate) fn read_all(state: &StateDir) -> Result<Vec<RestoreJournal>, BackupError> {
    let mut journals = Vec::new();
    for name in state.list(DIR)? {
        if !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        let Some(bytes) = state.read(&format!("{DIR}/{name}"))? else {
            continue;
        };
        match serde_json::from_slice::<RestoreJournal>(&bytes) {
            Ok(journal) if journal.format_version <= FORMAT_VERSION => journals.push(journal),
            Ok(journal) => tracing::warn!(
                name,
                version = journal.format_version,
                "a restore's journal is of a newer format"
            ),
            Err(error) => tracing::warn!(name, %error, "a restore's journal cannot be read"),
        }
    }
    journals.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok(journals)
}

/// Forgets the oldest restores of which nothing is left.
fn forget_old(state: &StateDir) -> Result<(), BackupError> {
    let over: Vec<_> = read_all(state)?
        .into_iter()
        .filter(|journal| matches!(journal.step, RestoreStep::Undone | RestoreStep::Dropped))
        .collect();
    for journal in over.iter().rev().skip(KEPT) {
        state.remove(&file_name(&journal.id))?;
    }
    Ok(())
}

/// A journal that is being written.
pub(crate) struct Writer<'a> {
    state: StateDir,
    clock: &'a dyn Clock,
    sink: &'a dyn EventSink,
    pub(crate) journal: RestoreJournal,
}

impl<'a> Writer<'a> {
    /// Takes up a journal that is there.
    pub(crate) fn open(
        repo: &'a Repository,
        sink: &'a dyn EventSink,
        journal: RestoreJournal,
    ) -> Result<Self, BackupError> {
        Ok(Self {
            state: StateDir::open(&repo.state_dir)?,
            clock: repo.clock.as_ref(),
            sink,
            journal,
        })
    }

    /// Begins a journal; the file is there when this returns.
    pub(crate) fn begin(
        repo: &'a Repository,
        sink: &'a dyn EventSink,
        journal: RestoreJournal,
    ) -> Result<Self, BackupError> {
        let mut writer = Self::open(repo, sink, journal)?;
        writer.state.subdir(DIR)?;
        forget_old(&writer.state)?;
        writer.step(RestoreStep::Planned)?;
        Ok(writer)
    }

    /// Says, durably, what is done next.
    pub(crate) fn step(&mut self, step: RestoreStep) -> Result<(), BackupError> {
        self.journal.step = step;
        self.journal.steps.push((step, self.clock.now()));
        self.save()?;
        self.sink.emit(BackupEvent::RestoreStep {
            id: self.journal.id.clone(),
            step,
        });
        Ok(())
    }

    /// Writes what is known, at the same step.
    pub(crate) fn save(&self) -> Result<(), BackupError> {
        let bytes = serde_json::to_vec_pretty(&self.journal).unwrap_or_default();
        self.state.write(&file_name(&self.journal.id), &bytes)
    }

    /// From now on the database that was put aside is kept for the time that was asked for.
    pub(crate) fn keep_from_now(&mut self) {
        let seconds = i64::try_from(self.journal.keep_old_seconds).unwrap_or(i64::MAX);
        let until = self
            .clock
            .now()
            .checked_add(SignedDuration::from_secs(seconds));
        // A time beyond the calendar is for ever.
        self.journal.keep_until = Some(until.unwrap_or(Timestamp::MAX));
    }
}

/// What is known of a restore before it begins.
pub(crate) struct Beginning<'a> {
    pub(crate) id: &'a BackupId,
    pub(crate) context: &'a DbContext,
    pub(crate) application_name: &'a str,
    pub(crate) started_at: Timestamp,
}

impl Beginning<'_> {
    /// A journal in which the databases are still to be filled in.
    pub(crate) fn journal(&self) -> RestoreJournal {
        let target = self.context.target_name();
        RestoreJournal {
            format_version: FORMAT_VERSION,
            id: self.id.clone(),
            lock_key: records::lock_key(self.context.server.system_identifier.as_deref(), &target),
            target,
            mode: self.context.mode,
            container: self.context.container.clone(),
            application_name: self.application_name.to_owned(),
            source: String::new(),
            backup: None,
            database: String::new(),
            maintenance: String::new(),
            live_oid: None,
            staging: String::new(),
            staging_oid: None,
            before: String::new(),
            undone: String::new(),
            roles: Vec::new(),
            safety_backup: None,
            step: RestoreStep::Planned,
            started_at: self.started_at,
            steps: Vec::new(),
            keep_old_seconds: 0,
            keep_until: None,
            outage_seconds: None,
        }
    }
}

/// `shop__before_k3f9x2`: a name beside a database, at most 63 bytes, recognisable, and with the
/// random tail of the restore's id.
pub(crate) fn beside(database: &str, what: &str, id: &BackupId) -> String {
    let tail = id.as_str().rsplit('-').next().unwrap_or_default();
    let tail = format!("__{what}_{tail}");
    let mut kept = database.len().min(63 - tail.len());
    while !database.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{tail}", &database[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_fit_and_are_text() {
        let id = BackupId::parse("20261124T053319Z-k3f9x2").unwrap();
        assert_eq!(beside("shop", "before", &id), "shop__before_k3f9x2");
        for database in ["x".repeat(63), "é".repeat(31), "🐘".repeat(15)] {
            for what in ["restore", "before", "undone"] {
                let name = beside(&database, what, &id);
                assert!(name.len() <= 63, "{name}");
                assert!(name.ends_with(&format!("__{what}_k3f9x2")), "{name}");
            }
        }
    }

    #[test]
    fn what_is_unfinished() {
        use RestoreStep::*;
        for step in [
            Planned,
            SafetyBackup,
            StagingCreated,
            Filling,
            Comparing,
            Swapping,
            RollingBack,
        ] {
            assert!(step.unfinished(), "{step:?}");
        }
        for step in [Swapped, RolledBack, Undone, Dropped] {
            assert!(!step.unfinished(), "{step:?}");
        }
    }
}
