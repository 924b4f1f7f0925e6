//! The files of a backup: hashed, and at level `read` decoded to their end while they are hashed
//! and compared with the attestation. No program and no server is needed.

use tokio_util::sync::CancellationToken;

use super::decode::{Decode, Decoder};
use super::directory;
use super::pass::{Passed, pass};
use crate::attest::{Contents, Matched, Wanted, differences};
use crate::manifest::{ArchiveRecord, EngineRecord, StoredFile};
use crate::requests::VerifyProblem;
use crate::run::Progress;
use crate::{BackupError, BackupId, DumpFormat, EventSink, Manifest, Repository, VerifyLevel};

/// Name of the reader in reports.
const BUILT_IN: &str = "built-in";

/// What was checked so far.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Files.
    pub(crate) files: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Differences.
    pub(crate) problems: Vec<VerifyProblem>,
    /// Which reader decoded archives.
    pub(crate) reader: Option<String>,
}

impl Checked {
    pub(crate) fn problem(&mut self, object: &str, problem: String) {
        self.problems.push(VerifyProblem {
            object: object.to_owned(),
            problem,
        });
    }
}

/// What the run that writes an archive has checked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    Nothing,
    /// It was decoded while it was stored, from the same bytes that were hashed: that those are in
    /// the store is left to be seen.
    Decoded,
    /// All of what is stored.
    Whole,
}

impl Seen {
    /// The level at which the stored files are left to be checked.
    pub(crate) fn left_of(self, level: VerifyLevel) -> VerifyLevel {
        match self {
            Self::Whole => VerifyLevel::None,
            Self::Decoded => level.min(VerifyLevel::Hash),
            Self::Nothing => level,
        }
    }
}

/// Checks every file that the manifest names. `fresh`: this run wrote them, and has seen that much
/// of each database.
pub(crate) async fn check_archives(
    repo: &Repository,
    manifest: &Manifest,
    level: VerifyLevel,
    fresh: Option<&[Seen]>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Checked, BackupError> {
    let mut work = Work::new(repo, &manifest.id, level, cancel);
    if level == VerifyLevel::None {
        return Ok(work.checked);
    }
    if let Some(file) = &manifest.globals.file {
        let object = format!("{} (globals)", file.name);
        let mut progress = Progress::start(sink, "verify", "globals", Some(file.bytes));
        let decode = (level >= VerifyLevel::Read).then_some(Decode::Globals);
        work.file(file, &object, decode, &mut progress).await?;
        progress.finish();
    }
    for (number, database) in manifest.databases.iter().enumerate() {
        let seen = fresh.and_then(|fresh| fresh.get(number));
        work.level = match seen {
            Some(Seen::Whole) => continue,
            Some(seen) => seen.left_of(level),
            None => level,
        };
        let attestation = database.attestation.as_ref();
        let mut wanted = attestation.map_or_else(Wanted::default, Wanted::of);
        let engine = database.archive.engine.as_ref();
        if fresh.is_some() && engine.is_some_and(EngineRecord::moved_rows) {
            // The rows were fingerprinted from the bytes that were compressed, and every frame
            // carries a checksum of those.
            wanted = wanted.without_fingerprints();
        }
        let read = attestation.filter(|_| work.level >= VerifyLevel::Read);
        let matched = read.map(Matched::new);
        if let Some(matched) = &matched {
            wanted = wanted.matching(matched);
        }
        let contents = work
            .database(&database.name, &database.archive, wanted, sink)
            .await?;
        if let (Some(attestation), Some(contents)) = (attestation, contents) {
            let object = work.object_of(&database.name, &database.archive);
            for difference in differences(attestation, contents, matched.as_ref()) {
                work.checked.problem(&object, difference);
            }
        }
    }
    Ok(work.checked)
}

/// Checks files of one backup.
pub(crate) struct Work<'a> {
    repo: &'a Repository,
    id: &'a BackupId,
    level: VerifyLevel,
    /// What was found so far.
    pub(crate) checked: Checked,
    cancel: &'a CancellationToken,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        repo: &'a Repository,
        id: &'a BackupId,
        level: VerifyLevel,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            repo,
            id,
            level,
            checked: Checked::default(),
            cancel,
        }
    }

    /// Checks the archive of one database. Its contents come back when it was decoded and is
    /// whole.
    pub(crate) async fn database(
        &mut self,
        name: &str,
        archive: &ArchiveRecord,
        wanted: Wanted,
        sink: &dyn EventSink,
    ) -> Result<Option<Contents>, BackupError> {
        let mut progress = Progress::start(sink, "verify", name, Some(archive.bytes()));
        let read = self.level >= VerifyLevel::Read;
        if read {
            self.checked.reader = Some(BUILT_IN.to_owned());
        }
        let mut contents = None;
        if archive.format == DumpFormat::Directory && read {
            contents = self.directory(name, archive, wanted, &mut progress).await?;
        } else {
            for file in &archive.files {
                let decode = match archive.format {
                    DumpFormat::Custom => Decode::Custom(wanted.clone()),
                    _ => Decode::Plain,
                };
                let object = object(file, name);
                contents = self
                    .file(file, &object, read.then_some(decode), &mut progress)
                    .await?;
            }
        }
        progress.finish();
        Ok(contents)
    }

    /// The archive in messages: its file or directory, and its database.
    fn object_of(&self, name: &str, archive: &ArchiveRecord) -> String {
        match archive.files.first() {
            Some(file) if archive.format == DumpFormat::Directory => {
                let dir = file.name.split('/').next().unwrap_or_default();
                format!("{dir} (database {name:?})")
            }
            Some(file) => object(file, name),
            None => format!("database {name:?}"),
        }
    }

    /// Hashes one file and decodes it where `decode` says how.
    pub(crate) async fn file(
        &mut self,
        file: &StoredFile,
        object: &str,
        decode: Option<Decode>,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Contents>, BackupError> {
        let stored = Repository::stored_name(self.id, file);
        let stream = match self.repo.store.open(&stored).await {
            Ok(stream) => stream,
            Err(error) => {
                self.checked.problem(object, error.to_string());
                return Ok(None);
            }
        };
        let decoder = decode.map(Decoder::start);
        let pieces = decoder.as_ref().map(|decoder| decoder.pieces.clone());
        let mut seen = |count| progress.add(count);
        let passed = pass(stream, object, pieces, &mut seen, self.cancel).await?;
        self.judge(file, object, passed);
        let Some(decoder) = decoder else {
            return Ok(None);
        };
        match decoder.finish().await {
            Ok(contents) => Ok(contents),
            Err(problem) => {
                self.checked.problem(object, problem);
                Ok(None)
            }
        }
    }

    /// Compares a file that was read with what was stored.
    fn judge(&mut self, file: &StoredFile, object: &str, passed: Result<Passed, String>) {
        match passed {
            Ok(passed) => {
                self.checked.files += 1;
                self.checked.bytes += passed.bytes;
                if passed.bytes != file.bytes {
                    let found = passed.bytes;
                    self.checked.problem(
                        object,
                        format!("it has {found} bytes instead of {}", file.bytes),
                    );
                } else if passed.sha256 != file.sha256 {
                    self.checked.problem(
                        object,
                        "its bytes are not those that were stored".to_owned(),
                    );
                }
            }
            Err(problem) => self.checked.problem(object, problem),
        }
    }

    async fn directory(
        &mut self,
        name: &str,
        archive: &ArchiveRecord,
        wanted: Wanted,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Contents>, BackupError> {
        let Some((dir, _)) = archive
            .files
            .first()
            .and_then(|file| file.name.split_once('/'))
        else {
            self.checked
                .problem(name, "its archive has no files".to_owned());
            return Ok(None);
        };
        let leaf = |file: &StoredFile| file.name.rsplit('/').next().unwrap_or_default().to_owned();
        let known = archive.files.iter().map(leaf).collect();
        let before = self.checked.problems.len();
        let mut seen = |count| progress.add(count);
        let mut found = directory::decode(
            &self.repo.store,
            self.id,
            dir,
            known,
            wanted,
            &mut seen,
            self.cancel,
        )
        .await?;
        for file in &archive.files {
            let object = object(file, name);
            match found.files.remove(&leaf(file)) {
                Some(passed) => self.judge(file, &object, passed),
                // Nothing in the table of contents refers to it, or the decoder stopped earlier.
                None => {
                    self.file(file, &object, None, progress).await?;
                }
            }
        }
        match found.contents {
            Ok(contents) => Ok(Some(contents)),
            Err(problem) => {
                // What is changed or missing is named already; decoding would only repeat it.
                if self.checked.problems.len() == before {
                    let object = self.object_of(name, archive);
                    self.checked.problem(&object, problem);
                }
                Ok(None)
            }
        }
    }
}

fn object(file: &StoredFile, database: &str) -> String {
    format!("{} (database {database:?})", file.name)
}
