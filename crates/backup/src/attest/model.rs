//! The attestation of one database, as the manifest holds it.

use archive::{Fingerprint, ItemHash, Name};
use serde::{Deserialize, Serialize};

/// What one database held when it was dumped.
///
/// Row counts come from the server, read in the snapshot that pg_dump used; fingerprints, bytes,
/// sequence values and the catalogue come from the stream that was stored. The run fails when the
/// two do not agree.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// Whether the server's counts were read in the dump's own snapshot.
    pub snapshot: bool,
    /// Which proof is missing, and why, in words; empty when nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The hash of rows and large objects in the fingerprints below; SHA-256 where it is not named,
    /// in manifests of format 1.
    #[serde(default = "super::text::hash::unnamed", with = "super::text::hash")]
    pub row_hash: ItemHash,
    /// Every table that holds rows of its own, in the order of schema and name.
    #[serde(deserialize_with = "super::text::tables")]
    pub tables: Vec<AttestedTable>,
    /// Every sequence whose value is in the archive, in the order of schema and name.
    pub sequences: Vec<AttestedSequence>,
    /// Large objects; `None` where the format does not tell (plain scripts).
    pub large_objects: Option<AttestedLargeObjects>,
    /// Fingerprint of the catalogue by SHA-256: every object's definition, owner and privileges as
    /// pg_dump wrote them, without regard to their order. 32 hex digits; `None` for plain scripts.
    pub catalogue: Option<String>,
    /// Seconds that attesting took beside the dump.
    pub seconds: f64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedTable {
    /// Oid in the source, by which an archive finds its table whatever encoding its names are in;
    /// 0 where it is not known (plain scripts).
    #[serde(default)]
    pub oid: u32,
    /// Schema, in UTF-8.
    #[serde(with = "super::text::shared")]
    pub schema: Name,
    /// Name, in UTF-8.
    #[serde(with = "super::text")]
    pub name: Name,
    /// Rows that a restore must give.
    pub rows: u64,
    /// Bytes of the rows in COPY's text format, as the archive holds them; `None` where that is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Order-independent fingerprint of the rows, 32 hex digits; `None` when the table did not
    /// fit the budget of fingerprints, or when its rows are not in COPY's text format.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::text::optional"
    )]
    pub fingerprint: Option<Fingerprint>,
    /// How much of the table the archive holds.
    #[serde(default)]
    pub scope: TableScope,
}

/// How much of a table's rows an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableScope {
    /// All rows.
    #[default]
    All,
    /// A configuration table of an extension: the rows that are not the extension's own. A
    /// restored table has at least these.
    Configuration,
    /// None: left out on request (`--exclude-table-data`), or unlogged on a standby.
    Excluded,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedSequence {
    /// Oid in the source.
    #[serde(default)]
    pub oid: u32,
    /// Schema, in UTF-8.
    pub schema: String,
    /// Name, in UTF-8.
    pub name: String,
    /// `last_value` in the archive.
    pub value: i64,
    /// `is_called` in the archive.
    pub called: bool,
}

/// All large objects of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedLargeObjects {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Order-independent fingerprint of oids and contents, 32 hex digits; `None` when over the
    /// budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}
