//! The record of a proof, format version 1: immutable JSON beside the manifest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AmcheckProof, CheckProof};
use crate::compare::{Comparison, Difference};
use crate::{BackupId, VerifyLevel};

/// The format version that this program writes.
pub(super) const PROOF_VERSION: u32 = 1;
/// Beginning of the file's name.
const PREFIX: &str = "proof-";
/// Its end.
const SUFFIX: &str = ".json";
/// Digits of the content's hash in the name.
const DIGITS: usize = 16;
/// Differences of one database that are kept; the number of all is kept beside.
pub(crate) const KEPT_DIFFERENCES: usize = 1_000;

/// How a proof ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofResult {
    /// Everything was restored and nothing differed.
    Passed,
    /// Something could not be restored, or differed.
    Failed,
}

/// A backup that was restored into a throw-away server and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Format version of the program that wrote it.
    pub format_version: u32,
    /// Version of pgstow that wrote it.
    pub tool_version: String,
    /// Which backup.
    pub backup: BackupId,
    /// SHA-256 of its manifest's bytes, lower-case hex: the proof is of this manifest alone.
    pub manifest_sha256: String,
    /// Level.
    pub level: VerifyLevel,
    /// Start, UTC.
    pub started_at: Timestamp,
    /// End, UTC.
    pub finished_at: Timestamp,
    /// The throw-away server, for people: image digest or programs of the host.
    pub place: String,
    /// Its version.
    pub server_version: String,
    /// Result.
    pub result: ProofResult,
    /// Each database of the backup.
    pub databases: Vec<DatabaseProof>,
    /// What is wrong with roles and tablespaces.
    pub globals: Vec<Difference>,
    /// The user's own checks.
    pub checks: Vec<CheckProof>,
    /// Warnings: what could not be done or compared, without making the proof fail.
    pub warnings: Vec<String>,
}

/// One database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseProof {
    /// Its name in the backup.
    pub name: String,
    /// Whether its numbers are those of the source, read in the dump's snapshot; otherwise the
    /// copy was compared with the archive alone.
    pub attested: bool,
    /// The comparison; the first differences only, see `differences_total`.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// How many differences there were.
    pub differences_total: u64,
    /// Seconds of the restore.
    pub restore_seconds: f64,
    /// Seconds of the comparison.
    pub compare_seconds: f64,
    /// Indexes that were checked; `None` where the extension is not there.
    pub amcheck: Option<AmcheckProof>,
}

impl DatabaseProof {
    /// Whether everything was restored and is equal.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences_total == 0
            && self
                .amcheck
                .as_ref()
                .is_none_or(|amcheck| amcheck.problems.is_empty())
    }

    /// Keeps what a record has room for.
    pub(crate) fn bounded(mut self) -> Self {
        self.differences_total = self.comparison.differences.len() as u64;
        self.comparison.differences.truncate(KEPT_DIFFERENCES);
        self.comparison.not_compared.truncate(KEPT_DIFFERENCES);
        self
    }
}

/// What a listing shows of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProofSummary {
    /// Which backup.
    pub backup: BackupId,
    /// File beside the manifest.
    pub file: String,
    /// Level.
    pub level: VerifyLevel,
    /// End, UTC.
    pub finished_at: Timestamp,
    /// Result.
    pub result: ProofResult,
    /// Tables without a difference.
    pub tables_equal: u64,
    /// Tables that were compared.
    pub tables_total: u64,
    /// The first thing that is wrong, in words.
    pub problem: Option<String>,
}

impl Proof {
    /// Name of the file for a proof with these bytes.
    pub(crate) fn file_name(finished_at: Timestamp, bytes: &[u8]) -> String {
        format!(
            "{PREFIX}{}-{}{SUFFIX}",
            finished_at.strftime("%Y%m%dT%H%M%SZ"),
            &hex::encode(Sha256::digest(bytes))[..DIGITS]
        )
    }

    /// Tables without a difference, and all that were compared.
    #[must_use]
    pub fn tables(&self) -> (u64, u64) {
        let sum = |of: fn(&Comparison) -> u64| {
            let comparisons = self.databases.iter().map(|database| &database.comparison);
            comparisons.map(of).sum()
        };
        (sum(|c| c.tables_equal), sum(|c| c.tables_total))
    }

    /// Everything that is wrong: object and what is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let words = |d: &Difference| format!("{} instead of {}", d.found, d.expected);
        let mut problems: Vec<(String, String)> = self
            .globals
            .iter()
            .map(|difference| (difference.object.clone(), words(difference)))
            .collect();
        for database in &self.databases {
            let object = |what: &str| format!("{what} (database {:?})", database.name);
            let shown = &database.comparison.differences;
            problems.extend(shown.iter().map(|d| (object(&d.object), words(d))));
            let more = database
                .differences_total
                .saturating_sub(shown.len() as u64);
            if more > 0 {
                problems.push((object("others"), format!("{more} more differences")));
            }
            let indexes = database
                .amcheck
                .iter()
                .flat_map(|amcheck| &amcheck.problems);
            problems.extend(indexes.map(|d| (object(&d.object), d.found.clone())));
        }
        for check in self.checks.iter().filter(|check| !check.passed) {
            problems.push((
                format!("check {:?} (database {:?})", check.sql, check.database),
                check.problem.clone().unwrap_or_default(),
            ));
        }
        problems
    }

    pub(crate) fn summary(&self, file: String) -> ProofSummary {
        let (tables_equal, tables_total) = self.tables();
        ProofSummary {
            backup: self.backup.clone(),
            file,
            level: self.level,
            finished_at: self.finished_at,
            result: self.result,
            tables_equal,
            tables_total,
            problem: self
                .problems()
                .into_iter()
                .next()
                .map(|(object, problem)| format!("{object}: {problem}")),
        }
    }
}

/// Whether a file of a backup's directory is a proof by its name: its time and hash.
pub(crate) fn parse_file_name(name: &str) -> Option<(&str, &str)> {
    let (time, hash) = name
        .strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .split_once('-')?;
    let shaped = time.len() == 16
        && time.is_ascii()
        && hash.len() == DIGITS
        && hash
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    shaped.then_some((time, hash))
}

/// Reads a proof of the backup `id` whose file has this name.
pub(crate) fn parse(id: &BackupId, name: &str, bytes: &[u8]) -> Result<Proof, String> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let (_, hash) = parse_file_name(name).ok_or("it is not named as a proof is")?;
    if !hex::encode(Sha256::digest(bytes)).starts_with(hash) {
        return Err(
            "its content is not what was written (the hash in its name differs)".to_owned(),
        );
    }
    let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version.format_version > PROOF_VERSION {
        return Err(format!(
            "it has format {}, and this program reads formats up to {PROOF_VERSION}: use a newer \
             pgstow",
            version.format_version
        ));
    }
    let proof: Proof = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if proof.backup != *id {
        return Err(format!("it is a proof of backup {}", proof.backup));
    }
    Ok(proof)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
