//! Exit codes, and the one table that turns an error code into kind, exit code and next steps.
//!
//! The numbers are part of the command line: they never change their meaning.

/// Done.
pub(crate) const DONE: u8 = 0;
/// Failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration cannot be understood.
pub(crate) const USAGE: u8 = 2;
/// Done, with a warning that matters (see `docs/errors.md`).
pub(crate) const WARNINGS: u8 = 3;
/// No backup matched.
pub(crate) const NOTHING_MATCHED: u8 = 4;
/// No database, or more than one, was found.
pub(crate) const DATABASE_NOT_FOUND: u8 = 10;
/// The server refused the credentials.
pub(crate) const CREDENTIALS_REFUSED: u8 = 11;
/// A PostgreSQL program is missing or too old.
pub(crate) const PROGRAM: u8 = 12;
/// The role lacks rights.
pub(crate) const RIGHTS_MISSING: u8 = 13;
/// The store cannot be reached, is full or must not be used.
pub(crate) const STORE: u8 = 20;
/// Another run holds the lock.
pub(crate) const LOCKED: u8 = 21;
/// Verification failed.
pub(crate) const VERIFY_FAILED: u8 = 30;
/// The restore failed; the target is untouched.
pub(crate) const RESTORE_FAILED: u8 = 40;
/// The restore failed; the target needs attention.
pub(crate) const RESTORE_NEEDS_ATTENTION: u8 = 41;
/// Refused before anything began.
pub(crate) const REFUSED: u8 = 42;
/// Ended by SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Codes of the binary's own errors, beside those of the libraries.
pub(crate) mod codes {
    /// Arguments that cannot be understood or contradict each other.
    pub(crate) const USAGE: &str = "USAGE";
    /// A configuration file or variable cannot be used.
    pub(crate) const INVALID_CONFIG: &str = "INVALID_CONFIG";
    /// The data directory cannot be made or must not be used.
    pub(crate) const DATA_DIR_UNSAFE: &str = "DATA_DIR_UNSAFE";
    /// The consent that a destructive step needs was not given.
    pub(crate) const NOT_CONFIRMED: &str = "NOT_CONFIRMED";
    /// A check of `doctor` failed.
    pub(crate) const DOCTOR_FAILED: &str = "DOCTOR_FAILED";
    /// The demo could not be set up, or a comparison in it differed.
    pub(crate) const DEMO_FAILED: &str = "DEMO_FAILED";
    /// Standard output or a file that was asked for could not be written.
    pub(crate) const OUTPUT_FAILED: &str = "OUTPUT_FAILED";

    /// Every code of the binary.
    #[cfg(test)]
    pub(crate) const ALL: &[&str] = &[
        USAGE,
        INVALID_CONFIG,
        DATA_DIR_UNSAFE,
        NOT_CONFIRMED,
        DOCTOR_FAILED,
        DEMO_FAILED,
        OUTPUT_FAILED,
    ];
}

/// What follows from an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// Word of the class, for JSON and `docs/errors.md`.
    pub(crate) kind: &'static str,
    /// Exit code.
    pub(crate) exit: u8,
    /// What to run or change next, where the error itself knows nothing better.
    pub(crate) hint: Option<&'static str>,
}

/// The consequence of a code. `None` for a code that is not in the table: a test keeps it complete.
pub(crate) fn consequence(code: &str) -> Option<Consequence> {
    let (kind, exit, hint) = match code {
        codes::USAGE => ("usage", USAGE, Some("pgstow --help")),
        codes::INVALID_CONFIG => (
            "usage",
            USAGE,
            Some("pgstow config show --origin lists every key, its value and where it comes from"),
        ),
        codes::DATA_DIR_UNSAFE => (
            "store",
            STORE,
            Some("give a directory that belongs to you alone: --data-dir DIR or PGSTOW_DATA_DIR"),
        ),
        codes::NOT_CONFIRMED => ("refused", REFUSED, None),
        codes::DOCTOR_FAILED => ("failed", FAILED, None),
        codes::DEMO_FAILED => ("failed", FAILED, None),
        codes::OUTPUT_FAILED => ("failed", FAILED, None),

        dbexec::codes::CONTAINER_NOT_FOUND => (
            "not found",
            DATABASE_NOT_FOUND,
            Some("pgstow discover --all lists what can be named"),
        ),
        dbexec::codes::CONTAINER_AMBIGUOUS => ("not found", DATABASE_NOT_FOUND, None),
        dbexec::codes::CONTAINER_CHANGED => (
            "failed",
            FAILED,
            Some("run the command again: discovery then finds what is there now"),
        ),
        dbexec::codes::RUNTIME_UNAVAILABLE => (
            "not found",
            DATABASE_NOT_FOUND,
            Some("pgstow doctor says which container engine was tried and why it does not answer"),
        ),
        dbexec::codes::RUNTIME_FAILED => (
            "failed",
            FAILED,
            Some("the container engine's log says more; then run the command again"),
        ),
        dbexec::codes::DATABASE_NOT_FOUND => (
            "not found",
            DATABASE_NOT_FOUND,
            Some("pgstow discover --explain shows what was tried"),
        ),
        dbexec::codes::INVALID_DB_CONFIG => (
            "not found",
            DATABASE_NOT_FOUND,
            Some("pgstow discover --explain shows where each value comes from"),
        ),
        dbexec::codes::CREDENTIALS_REFUSED => (
            "credentials",
            CREDENTIALS_REFUSED,
            Some("give the right login: --username NAME --password-file FILE"),
        ),
        dbexec::codes::MIXED_SOURCES => (
            "refused",
            REFUSED,
            Some("let host and password come from one place, or add --allow-mixed-sources"),
        ),
        dbexec::codes::SERVER_UNREACHABLE => (
            "not found",
            DATABASE_NOT_FOUND,
            Some(
                "check that the server runs and listens at this address; pgstow doctor tries each step",
            ),
        ),
        dbexec::codes::TLS_FAILED => (
            "credentials",
            CREDENTIALS_REFUSED,
            Some(
                "check --sslmode and --sslrootcert (and --sslcert, --sslkey where the server asks for them)",
            ),
        ),
        dbexec::codes::POOLER_IN_THE_WAY => (
            "refused",
            REFUSED,
            Some("give the address of the server itself, or of a pool in session mode"),
        ),
        dbexec::codes::PERSISTED_FILE_UNSAFE => (
            "refused",
            REFUSED,
            Some(
                "look who changed the file, then remove it or chmod 600 it; pgstow writes it again after a backup",
            ),
        ),
        dbexec::codes::PROGRAM_MISSING => (
            "program",
            PROGRAM,
            Some(
                "install the PostgreSQL client programs where they have to run, or name their directory with --pg-bin-dir",
            ),
        ),
        dbexec::codes::PROGRAM_TOO_OLD => (
            "program",
            PROGRAM,
            Some(
                "install client programs of the server's major version or newer, or name their directory with --pg-bin-dir",
            ),
        ),
        dbexec::codes::PROGRAM_FAILED => ("failed", FAILED, None),
        dbexec::codes::PROGRAM_STALLED => (
            "failed",
            FAILED,
            Some(
                "look at the container or server (paused? waiting for a lock? out of disk?), then run the command again",
            ),
        ),
        dbexec::codes::INTERRUPTED => ("interrupted", INTERRUPTED, None),
        dbexec::codes::QUERY_FAILED => ("failed", FAILED, Some("pgstow doctor")),
        dbexec::codes::SANDBOX_UNAVAILABLE => (
            "failed",
            FAILED,
            Some("this says nothing about the backup; name an image of its major with --image"),
        ),
        dbexec::codes::ROUTE_UNAVAILABLE => (
            "failed",
            FAILED,
            Some("without --engine parallel the work goes through PostgreSQL's own programs"),
        ),
        dbexec::codes::SANDBOX_FAILED => (
            "failed",
            FAILED,
            Some("this says nothing about the backup; give more with --memory, or another --image"),
        ),

        storage::codes::STORE_UNREACHABLE => (
            "store",
            STORE,
            Some(
                "check the backup directory and its file system; pgstow doctor tries to write there",
            ),
        ),
        storage::codes::STORE_FULL => (
            "store",
            STORE,
            Some(
                "make room (pgstow prune --keep-last N shows what may go), or give another --data-dir",
            ),
        ),
        storage::codes::STORE_UNSAFE => (
            "store",
            STORE,
            Some(
                "the directory has to belong to you, be no link and not be writable by others: chmod 700 it",
            ),
        ),
        storage::codes::STORE_NOT_FOUND => (
            "store",
            STORE,
            Some("pgstow verify --all tells which backups are whole"),
        ),

        backup::codes::BACKUP_FAILED => ("failed", FAILED, None),
        backup::codes::ATTESTATION_FAILED => (
            "failed",
            FAILED,
            Some(
                "run the backup again; a table that was truncated or rewritten in the first moments of a dump differs once, anything else differs again and should be reported",
            ),
        ),
        backup::codes::RIGHTS_MISSING => (
            "rights",
            RIGHTS_MISSING,
            Some(
                "grant what is missing, or back up with a role that may read everything: --username NAME",
            ),
        ),
        backup::codes::TARGET_LOCKED => (
            "locked",
            LOCKED,
            Some("wait for the other run, or look at it with pgstow list"),
        ),
        backup::codes::BACKUP_NOT_FOUND => (
            "not found",
            NOTHING_MATCHED,
            Some("pgstow list shows the backups"),
        ),
        backup::codes::BACKUP_AMBIGUOUS => (
            "not found",
            NOTHING_MATCHED,
            Some("give more characters of the id"),
        ),
        backup::codes::MANIFEST_UNREADABLE => (
            "verification",
            VERIFY_FAILED,
            Some(
                "pgstow verify ID names each file that is damaged; docs/restore-by-hand.md works without the manifest",
            ),
        ),
        backup::codes::VERIFY_FAILED => (
            "verification",
            VERIFY_FAILED,
            Some(
                "do not rely on this backup: take a new one and check the disk; pgstow verify --all looks at the others",
            ),
        ),
        backup::codes::RESTORE_REFUSED => ("refused", REFUSED, None),
        backup::codes::RESTORE_FAILED => ("restore", RESTORE_FAILED, None),
        backup::codes::RESTORE_NEEDS_ATTENTION => ("restore", RESTORE_NEEDS_ATTENTION, None),
        backup::codes::STATE_UNUSABLE => (
            "store",
            STORE,
            Some("the state directory has to belong to you, be no link and have mode 0700"),
        ),
        backup::codes::PRUNE_REFUSED => (
            "refused",
            REFUSED,
            Some("pgstow list shows what is there and which runs failed"),
        ),
        _ => return None,
    };
    Some(Consequence { kind, exit, hint })
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
