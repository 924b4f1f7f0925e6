//! Stable error codes: what scripts, monitoring and `docs/errors.md` may rely on.
//!
//! A code never changes its meaning and is never reused. `docs/errors.md` documents each with
//! its cause and remedy; a test compares the page with [`ALL`].

/// No container has the name or label that was asked for, or none runs PostgreSQL.
pub const CONTAINER_NOT_FOUND: &str = "CONTAINER_NOT_FOUND";
/// Two or more containers match; pgstow never guesses between them.
pub const CONTAINER_AMBIGUOUS: &str = "CONTAINER_AMBIGUOUS";
/// The container was recreated or replaced between discovery and use.
pub const CONTAINER_CHANGED: &str = "CONTAINER_CHANGED";
/// The container engine does not answer, or refuses us.
pub const RUNTIME_UNAVAILABLE: &str = "RUNTIME_UNAVAILABLE";
/// The container engine answered with an error, or its stream broke.
pub const RUNTIME_FAILED: &str = "RUNTIME_FAILED";
/// No step of discovery found a database.
pub const DATABASE_NOT_FOUND: &str = "DATABASE_NOT_FOUND";
/// Settings name a database incompletely or contradict each other.
pub const INVALID_DB_CONFIG: &str = "INVALID_DB_CONFIG";
/// The server refused every credential that was found.
pub const CREDENTIALS_REFUSED: &str = "CREDENTIALS_REFUSED";
/// The credentials and the host come from different sources, and consent was not given.
pub const MIXED_SOURCES: &str = "MIXED_SOURCES";
/// The server does not answer at the address that was found.
pub const SERVER_UNREACHABLE: &str = "SERVER_UNREACHABLE";
/// The TLS handshake failed: certificate, authority or host name.
pub const TLS_FAILED: &str = "TLS_FAILED";
/// A transaction pooler is in the way of work that needs one session.
pub const POOLER_IN_THE_WAY: &str = "POOLER_IN_THE_WAY";
/// The persisted credentials file is unsafe to use (link, foreign owner, loose mode) or damaged.
pub const PERSISTED_FILE_UNSAFE: &str = "PERSISTED_FILE_UNSAFE";
/// A PostgreSQL program that is needed is not installed where it has to run.
pub const PROGRAM_MISSING: &str = "PROGRAM_MISSING";
/// The installed PostgreSQL programs are older than the server.
pub const PROGRAM_TOO_OLD: &str = "PROGRAM_TOO_OLD";
/// A program ended with a non-zero status or by a signal.
pub const PROGRAM_FAILED: &str = "PROGRAM_FAILED";
/// A program neither moved bytes nor was seen working for too long.
pub const PROGRAM_STALLED: &str = "PROGRAM_STALLED";
/// The run was cancelled by a signal or by its caller.
pub const INTERRUPTED: &str = "INTERRUPTED";
/// A query of pgstow's own failed.
pub const QUERY_FAILED: &str = "QUERY_FAILED";
/// No throw-away server can be had here: image, programs, user or room is missing.
pub const SANDBOX_UNAVAILABLE: &str = "SANDBOX_UNAVAILABLE";
/// A throw-away server did not start, ended by itself or could not be removed.
pub const SANDBOX_FAILED: &str = "SANDBOX_FAILED";
/// Sessions of pgstow's own cannot reach the server; the stock programs can.
pub const ROUTE_UNAVAILABLE: &str = "ROUTE_UNAVAILABLE";

/// Every code of this crate, for the test that compares them with `docs/errors.md`.
pub const ALL: &[&str] = &[
    CONTAINER_NOT_FOUND,
    CONTAINER_AMBIGUOUS,
    CONTAINER_CHANGED,
    RUNTIME_UNAVAILABLE,
    RUNTIME_FAILED,
    DATABASE_NOT_FOUND,
    INVALID_DB_CONFIG,
    CREDENTIALS_REFUSED,
    MIXED_SOURCES,
    SERVER_UNREACHABLE,
    TLS_FAILED,
    POOLER_IN_THE_WAY,
    PERSISTED_FILE_UNSAFE,
    PROGRAM_MISSING,
    PROGRAM_TOO_OLD,
    PROGRAM_FAILED,
    PROGRAM_STALLED,
    INTERRUPTED,
    QUERY_FAILED,
    SANDBOX_UNAVAILABLE,
    SANDBOX_FAILED,
    ROUTE_UNAVAILABLE,
];
