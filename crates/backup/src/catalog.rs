//! What a repository holds: backups that can be trusted as far as their manifest goes, damaged
//! ones, and runs that made none. Files are not read here, only their names and sizes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use jiff::{Timestamp, civil, tz::TimeZone};
use storage::{Entry, Store};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use crate::manifest_file::{self, Depth, Stored};
use crate::repository::DamagedBackup;
use crate::{
    BackupError, BackupId, Catalog, Manifest, ProofSummary, Repository, RunRecord, RunState, lock,
    manifest, prove, records, state::StateDir,
};

/// Largest list of hashes or proof that is read, bytes. One line for each of 100,000 files of
/// a directory archive fits.
const MAX_TEXT: u64 = 64 << 20;
/// Manifests that are read at once.
pub(crate) const AT_ONCE: usize = 8;
/// Bytes of a manifest that is read when no other large one is.
const LARGE: u64 = 1 << 20;

impl Repository {
    /// Where a backup is, for people.
    #[must_use]
    pub fn location(&self, id: &BackupId) -> String {
        let manifest = format!("{id}/{}", manifest::FILE_NAME);
        match self.store.local_path(&manifest).as_deref() {
            Some(path) => path
                .parent()
                .map_or_else(String::new, |dir| dir.display().to_string()),
            None => format!("{id} in {}", self.store.describe()),
        }
    }

    /// Everything in the repository, newest first.
    ///
    /// # Errors
    /// When the store or the state directory cannot be read; a damaged backup is no error.
    pub async fn catalog(&self) -> Result<Catalog, BackupError> {
        self.catalog_of(Depth::Whole).await
    }

    /// As [`Repository::catalog`], without the tables of the attestations, which take most of the
    /// memory.
    ///
    /// # Errors
    /// As [`Repository::catalog`].
    pub async fn catalog_without_tables(&self) -> Result<Catalog, BackupError> {
        self.catalog_of(Depth::WithoutTables).await
    }

    async fn catalog_of(&self, depth: Depth) -> Result<Catalog, BackupError> {
        let Found {
            backups,
            proofs,
            damaged,
            incomplete,
        } = self.stored(depth).await?;
        let state = StateDir::existing(&self.state_dir)?;
        let runs = self.runs(state.as_ref(), &backups, &damaged, &incomplete)?;
        Ok(Catalog {
            backups,
            runs,
            damaged,
            proofs,
        })
    }

    /// Backups newest first, damaged ones, and directories without a manifest.
    pub(crate) async fn stored(&self, depth: Depth) -> Result<Found, BackupError> {
        let Directories {
            complete,
            incomplete,
        } = self.directories().await?;
        let store = self.store.as_ref();
        let one_large = &Semaphore::new(1);
        let loaded: Vec<(BackupId, Result<Loaded, String>)> = stream::iter(complete)
            .map(|(id, entries)| async move {
                let name = format!("{id}/{}", manifest::FILE_NAME);
                let large = entries.iter().any(|e| e.name == name && e.bytes > LARGE);
                let alone = match large {
                    true => one_large.acquire().await.ok(),
                    false => None,
                };
                let loaded = load(store, &id, &entries, depth).await;
                drop(alone);
                (id, loaded)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut backups = Vec::new();
        let mut damaged = Vec::new();
        let mut proofs = Vec::new();
        for (id, loaded) in loaded {
            match loaded {
                Ok((manifest, proof)) => {
                    backups.push(manifest);
                    proofs.extend(proof);
                }
                Err(problem) => damaged.push(DamagedBackup { id, problem }),
            }
        }
        backups.sort_by(|a: &Manifest, b| (b.sequence, &b.id).cmp(&(a.sequence, &a.id)));
        let order: HashMap<&BackupId, usize> = backups
            .iter()
            .enumerate()
            .map(|(at, manifest)| (&manifest.id, at))
            .collect();
        proofs.sort_by_key(|proof: &ProofSummary| order.get(&proof.backup).copied());
        damaged.reverse();
        Ok(Found {
            backups,
            proofs,
            damaged,
            incomplete,
        })
    }

    /// The directories of backups, by whether they have a manifest.
    pub(crate) async fn directories(&self) -> Result<Directories, BackupError> {
        let entries = self
            .store
            .list("")
            .await
            .map_err(|source| BackupError::Store {
                operation: "listing the backups".to_owned(),
                source,
            })?;
        let mut dirs: BTreeMap<BackupId, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            let Some((dir, _)) = entry.name.split_once('/') else {
                continue;
            };
            if let Some(id) = BackupId::parse(dir) {
                dirs.entry(id).or_default().push(entry);
            }
        }
        let mut found = Directories::default();
        for (id, entries) in dirs {
            let name = format!("{id}/{}", manifest::FILE_NAME);
            if entries.iter().any(|entry| entry.name == name) {
                found.complete.push((id, entries));
            } else {
                found.incomplete.push(id);
            }
        }
        Ok(found)
    }

    fn runs(
        &self,
        state: Option<&StateDir>,
        backups: &[Manifest],
        damaged: &[DamagedBackup],
        incomplete: &[BackupId],
    ) -> Result<Vec<RunRecord>, BackupError> {
        let existing: BTreeSet<&BackupId> = backups
            .iter()
            .map(|manifest| &manifest.id)
            .chain(damaged.iter().map(|damaged| &damaged.id))
            .collect();
        let incomplete: BTreeSet<&BackupId> = incomplete.iter().collect();
        let mut runs = Vec::new();
        let mut known = BTreeSet::new();
        let mut held: HashMap<String, bool> = HashMap::new();
        let records = match state {
            Some(state) => records::read_all(state)?,
            None => Vec::new(),
        };
        for mut record in records {
            known.insert(record.id.clone());
            if existing.contains(&record.id) {
                continue;
            }
            match record.state {
                RunState::Done if !incomplete.contains(&record.id) => continue,
                RunState::Done => {
                    record.state = RunState::Failed;
                    record.error = Some("its removal was cut short".to_owned());
                }
                RunState::Running => {
                    let live = state.is_some_and(|state| {
                        *held
                            .entry(record.lock_key.clone())
                            .or_insert_with(|| lock::is_held(state, &record.lock_key))
                    });
                    if !live {
                        record.state = RunState::Failed;
                        record.error_code = Some(dbexec::codes::INTERRUPTED.to_owned());
                        record.error = Some(crate::run::KILLED.to_owned());
                    }
                }
                RunState::Failed | RunState::Interrupted => {}
            }
            runs.push(record);
        }
        // Directories that no record knows: the state directory was lost, or is another one.
        for id in incomplete {
            if !known.contains(id) {
                runs.push(without_record(id));
            }
        }
        runs.sort_by(|a, b| (b.sequence, &b.id).cmp(&(a.sequence, &a.id)));
        Ok(runs)
    }
}

/// Directories that are named like a backup.
#[derive(Default)]
pub(crate) struct Directories {
    /// With a manifest, by id, and with what is in them.
    pub(crate) complete: Vec<(BackupId, Vec<Entry>)>,
    /// Directories without a manifest.
    incomplete: Vec<BackupId>,
}

/// What the store holds.
pub(crate) struct Found {
    /// Newest first.
    pub(crate) backups: Vec<Manifest>,
    /// In the order of the backups.
    proofs: Vec<ProofSummary>,
    pub(crate) damaged: Vec<DamagedBackup>,
    /// Directories without a manifest.
    incomplete: Vec<BackupId>,
}

/// A backup that can be trusted as far as its manifest goes, with its newest proof.
type Loaded = (Manifest, Option<ProofSummary>);

fn without_record(id: &BackupId) -> RunRecord {
    let time = id.as_str().split_once('-').map_or("", |(time, _)| time);
    let started_at = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time)
        .ok()
        .and_then(|time| time.to_zoned(TimeZone::UTC).ok())
        .map_or(Timestamp::UNIX_EPOCH, |time| time.timestamp());
    RunRecord {
        format_version: records::RECORD_VERSION,
        id: id.clone(),
        sequence: 0,
        target: "unknown".to_owned(),
        lock_key: String::new(),
        application_name: format!("pgstow-{id}"),
        started_at,
        ended_at: None,
        state: RunState::Failed,
        error_code: None,
        error: Some("files without a manifest and without a record of their run".to_owned()),
    }
}

/// Reads a small stored text whole.
pub(crate) async fn read_text(store: &dyn Store, name: &str) -> Result<Vec<u8>, String> {
    let reader = store.open(name).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    reader
        .take(MAX_TEXT + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| format!("{name} cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(format!("{name} is larger than {MAX_TEXT} bytes"));
    }
    Ok(bytes)
}

/// Parses `SHA256SUMS`: file name to digest.
pub(crate) fn parse_sums(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let broken = |line: &str| format!("{} has a line {line:?}", manifest::SUMS_NAME);
    let text =
        std::str::from_utf8(bytes).map_err(|_| format!("{} is no text", manifest::SUMS_NAME))?;
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (digest, name) = line.split_once("  ").ok_or_else(|| broken(line))?;
        let hex = digest.len() == 64
            && digest
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex || sums.insert(name.to_owned(), digest.to_owned()).is_some() {
            return Err(broken(line));
        }
    }
    if !text.ends_with('\n') {
        return Err(format!("{} was cut", manifest::SUMS_NAME));
    }
    Ok(sums)
}

/// Where the list of hashes and the manifest disagree: file and problem.
pub(crate) fn compare_sums(
    manifest: &Manifest,
    manifest_sha256: &str,
    sums: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    match sums.get(manifest::FILE_NAME) {
        Some(listed) if listed == manifest_sha256 => {}
        Some(_) => problems.push((
            manifest::FILE_NAME.to_owned(),
            format!("its hash is not the one in {}", manifest::SUMS_NAME),
        )),
        None => problems.push((
            manifest::SUMS_NAME.to_owned(),
            format!("it does not name {}", manifest::FILE_NAME),
        )),
    }
    for file in manifest.files() {
        if sums.get(&file.name) != Some(&file.sha256) {
            problems.push((
                manifest::SUMS_NAME.to_owned(),
                format!("it and the manifest disagree on {}", file.name),
            ));
        }
    }
    if sums.len() != manifest.files().count() + 1 {
        problems.push((
            manifest::SUMS_NAME.to_owned(),
            "it names files that the manifest does not".to_owned(),
        ));
    }
    problems
}

pub(crate) async fn load(
    store: &dyn Store,
    id: &BackupId,
    entries: &[Entry],
    depth: Depth,
) -> Result<Loaded, String> {
    let Stored { sha256, manifest } = manifest_file::read_to(store, id, depth).await?;
    let manifest = manifest?;
    let sums = read_text(store, &format!("{id}/{}", manifest::SUMS_NAME)).await?;
    let sums = parse_sums(&sums)?;
    if let Some((file, problem)) = compare_sums(&manifest, &sha256, &sums).into_iter().next() {
        return Err(format!("{file}: {problem}"));
    }
    let sizes: HashMap<&str, u64> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.bytes))
        .collect();
    for file in manifest.files() {
        let name = Repository::stored_name(id, file);
        match sizes.get(name.as_str()) {
            Some(bytes) if *bytes == file.bytes => {}
            Some(bytes) => {
                return Err(format!(
                    "{} has {bytes} bytes instead of {}",
                    file.name, file.bytes
                ));
            }
            None => {
                let why = match store.open(&name).await {
                    Ok(_) => "it is not listed".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(format!("{} is missing: {why}", file.name));
            }
        }
    }
    let proof = prove::newest_summary(store, id, entries, &sha256).await;
    Ok((manifest, proof))
}
