//! Stable error codes of backup and restore; documented in `docs/errors.md`.

/// The backup run failed; nothing was published.
pub const BACKUP_FAILED: &str = "BACKUP_FAILED";
/// The archive does not hold what the server counted in the dump's own snapshot.
pub const ATTESTATION_FAILED: &str = "ATTESTATION_FAILED";
/// The role may not read everything that the backup would need.
pub const RIGHTS_MISSING: &str = "RIGHTS_MISSING";
/// Another run holds the target's lock.
pub const TARGET_LOCKED: &str = "TARGET_LOCKED";
/// No backup matches the id, prefix or `latest`.
pub const BACKUP_NOT_FOUND: &str = "BACKUP_NOT_FOUND";
/// More than one backup matches the prefix.
pub const BACKUP_AMBIGUOUS: &str = "BACKUP_AMBIGUOUS";
/// A manifest is damaged, or of a newer format than this program reads.
pub const MANIFEST_UNREADABLE: &str = "MANIFEST_UNREADABLE";
/// A stored file is missing, cut, changed or does not decode to its end.
pub const VERIFY_FAILED: &str = "VERIFY_FAILED";
/// The restore was refused before anything was touched.
pub const RESTORE_REFUSED: &str = "RESTORE_REFUSED";
/// The restore failed; the target is as it was before.
pub const RESTORE_FAILED: &str = "RESTORE_FAILED";
/// The restore failed and left something on the target that needs attention.
pub const RESTORE_NEEDS_ATTENTION: &str = "RESTORE_NEEDS_ATTENTION";
/// The state directory cannot be used.
pub const STATE_UNUSABLE: &str = "STATE_UNUSABLE";
/// Pruning was refused (clock backwards, failing runs, nothing good left).
pub const PRUNE_REFUSED: &str = "PRUNE_REFUSED";

/// Every code of this crate, for the test that compares them with `docs/errors.md`.
pub const ALL: &[&str] = &[
    BACKUP_FAILED,
    ATTESTATION_FAILED,
    RIGHTS_MISSING,
    TARGET_LOCKED,
    BACKUP_NOT_FOUND,
    BACKUP_AMBIGUOUS,
    MANIFEST_UNREADABLE,
    VERIFY_FAILED,
    RESTORE_REFUSED,
    RESTORE_FAILED,
    RESTORE_NEEDS_ATTENTION,
    STATE_UNUSABLE,
    PRUNE_REFUSED,
];
