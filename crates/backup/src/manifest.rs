//! Manifest: immutable JSON that says what a backup holds and how to restore it, also without pgstow.
//!
//! Format 1 hashes rows and large objects by SHA-256. Format 2 names their hash
//! ([`Attestation::row_hash`]); a program that knows format 1 alone would compare wrongly and refuses
//! it. This program reads both.

use std::collections::BTreeMap;

use dbexec::{ContainerIdentity, CredentialSource, DbMode, ServerIdentity, Transport};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    attest::Attestation,
    id::BackupId,
    requests::{DumpFormat, VerifyLevel},
};

/// The format version that this program writes.
pub const FORMAT_VERSION: u32 = 2;
/// Tag of backups that a restore makes of what it replaces; its value is the restore's id.
pub const SAFETY_TAG: &str = "safety";
/// Name of the manifest in the backup's directory.
pub const FILE_NAME: &str = "manifest.json";
/// Name of the list of hashes (readable by `sha256sum -c`) that also covers the manifest.
pub const SUMS_NAME: &str = "SHA256SUMS";

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Version of pgstow that wrote it.
    pub tool_version: String,
    /// Identifier; equal to the name of the directory.
    pub id: BackupId,
    /// Grows by one with every run of a repository: order without trust in clocks.
    pub sequence: u64,
    /// Start of the run, UTC.
    pub started_at: Timestamp,
    /// End of the run, UTC.
    pub finished_at: Timestamp,
    /// Where the rows came from.
    pub target: TargetRecord,
    /// Version of each client program used, by name (`pg_dump` → `15.18`).
    pub programs: BTreeMap<String, String>,
    /// Roles, memberships and tablespaces (`pg_dumpall --globals-only`).
    pub globals: GlobalsRecord,
    /// Each database with its archive.
    pub databases: Vec<DatabaseRecord>,
    /// Level to which the run itself checked the archives before it wrote this manifest.
    pub verified: VerifyLevel,
    /// Warnings of the run: not fatal, but to be read.
    pub warnings: Vec<String>,
    /// Tags given by the user.
    pub tags: BTreeMap<String, String>,
    /// How to restore by hand: commands, one a line, without secrets.
    pub recipe: Vec<String>,
}

impl Manifest {
    /// Whether a restore made it of what it was going to replace: it counts neither as the latest
    /// backup nor as one of the last ones.
    #[must_use]
    pub fn is_safety(&self) -> bool {
        let restore = self.tags.get(SAFETY_TAG);
        restore.is_some_and(|id| BackupId::parse(id).is_some())
    }

    /// Every stored file but the manifest and the list of hashes.
    pub fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let archives = self.databases.iter().flat_map(|d| &d.archive.files);
        self.globals.file.iter().chain(archives)
    }

    /// Stored bytes, without the manifest and the list of hashes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }
}

/// Where a backup came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Name for people (see `DbContext::target_name`).
    pub name: String,
    /// Where the server ran.
    pub mode: DbMode,
    /// Source of the credentials (never the credentials).
    pub credential_source: CredentialSource,
    /// How bytes travelled.
    pub transport: Transport,
    /// Host as the client programs saw it; `None` for a default socket.
    pub host: Option<String>,
    /// Port.
    pub port: u16,
    /// Role that dumped.
    pub user: String,
    /// Database of the login: the one that is meant where a person names none.
    #[serde(default)]
    pub database: Option<String>,
    /// The container, with its image digest.
    pub container: Option<ContainerIdentity>,
    /// The server, with its system identifier.
    pub server: ServerIdentity,
    /// Server parameters that a throw-away server needs to be like this one (preload libraries,
    /// what its extensions are configured with, how values are written as text): name and value,
    /// from `pg_settings`. Never one that may hold a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// Roles and tablespaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GlobalsRecord {
    /// The stored script; `None` when the role was not allowed to read any of it.
    pub file: Option<StoredFile>,
    /// Whether password verifiers are in it (needs the right to read `pg_authid`).
    pub with_passwords: bool,
    /// Names of the roles it creates, for the preflight of a restore.
    pub roles: Vec<String>,
}

/// One database and its archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// Name, as data.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Encoding, for example `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// ICU or builtin locale, where the provider has one.
    pub locale: Option<String>,
    /// ICU rules, where set.
    pub icu_rules: Option<String>,
    /// Version of the collation when the dump was made.
    pub collation_version: Option<String>,
    /// Default tablespace.
    pub tablespace: String,
    /// Connection limit; -1 for none.
    pub connection_limit: i32,
    /// Comment on the database.
    pub comment: Option<String>,
    /// Size on the server in bytes when the dump began.
    pub size_bytes: u64,
    /// `ALTER DATABASE … SET`, and per role: each as the role (`None` for all roles), name and
    /// value.
    pub settings: Vec<DatabaseSetting>,
    /// Access privileges of the database as `aclitem` texts; `None` for the default.
    pub acl: Option<Vec<String>>,
    /// Extensions with versions.
    pub extensions: BTreeMap<String, String>,
    /// The archive.
    pub archive: ArchiveRecord,
    /// What the source held in the dump's own snapshot; `None` in backups of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// A setting of a database, as `pg_db_role_setting` holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// Role that it applies to; `None` for every role.
    pub role: Option<String>,
    /// Parameter.
    pub name: String,
    /// Value as stored.
    pub value: String,
}

/// An archive of pg_dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Format.
    pub format: DumpFormat,
    /// Compression, for example `zstd:3`, `gzip:1`, `none`.
    pub compression: String,
    /// Its files: one for custom and plain, one for each file of a directory archive.
    pub files: Vec<StoredFile>,
    /// Duration of the dump in seconds.
    pub seconds: f64,
    /// Arguments that changed what is in it (`--exclude-table-data=…`).
    pub filters: Vec<String>,
    /// What pg_dump said on standard error.
    pub warnings: Vec<String>,
    /// Who moved the rows; `None` in backups of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineRecord>,
}

/// Who moved the rows of an archive, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// `parallel`: sessions of ours side by side; `stock`: pg_dump alone.
    pub engine: String,
    /// How they reached the server, in words; `None` where pg_dump alone went by the backup's own
    /// transport.
    pub route: Option<String>,
    /// Sessions that moved rows side by side, or jobs of pg_dump.
    pub jobs: Option<u32>,
    /// Why not the faster one; `None` where the faster one was taken.
    pub reason: Option<String>,
}

impl EngineRecord {
    /// [`EngineRecord::engine`] where sessions of ours moved the rows.
    pub const PARALLEL: &str = "parallel";

    /// Whether sessions of ours moved the rows.
    #[must_use]
    pub fn moved_rows(&self) -> bool {
        self.engine == Self::PARALLEL
    }
}

impl ArchiveRecord {
    /// Stored size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A stored file: name in the backup's directory, size and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Name, relative to the backup's directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the stored bytes, lower-case hex.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use crate::attest::Attestation;

    /// A manifest that is read again has to be the one that was written: a proof compares the two.
    #[test]
    fn seconds_are_read_as_they_were_written() {
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let seconds = std::time::Duration::from_nanos(seed >> 28).as_secs_f64();
            let written = Attestation {
                seconds,
                ..Attestation::default()
            };
            let text = serde_json::to_string(&written).unwrap();
            let read: Attestation = serde_json::from_str(&text).unwrap();
            assert_eq!(read, written, "{seconds:?}");
        }
    }
}
