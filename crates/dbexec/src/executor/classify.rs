//! What the words of a failed program mean. Programs run with `LC_ALL=C`; the server's own words
//! are in its `lc_messages`, so what is not recognised stays a plain failure with its words.

use crate::{
    creds::DbCreds,
    executor::{ExecError, PgProgram, ProgramExit},
};

/// Turns exit status and standard error into an error.
pub(crate) fn failure(
    program: PgProgram,
    exit: ProgramExit,
    stderr: Vec<String>,
    creds: Option<&DbCreds>,
) -> ExecError {
    if let Some(creds) = creds
        && let Some(error) = connection_failure(&stderr, creds)
    {
        return error;
    }
    // The status alone proves nothing: an engine also gives 126 for an exec whose client went away.
    let says_missing = stderr.iter().any(|line| {
        line.contains("not found") || line.contains("No such file") || line.contains("no such file")
    });
    if matches!(exit, ProgramExit::Code(126 | 127)) && says_missing {
        return ExecError::ProgramMissing {
            program,
            looked_in: stderr,
        };
    }
    ExecError::Failed {
        program,
        exit,
        stderr,
    }
}

/// Whether a connection was refused, and how.
pub(crate) fn connection_failure(stderr: &[String], creds: &DbCreds) -> Option<ExecError> {
    // Only the attempt to connect: `connection to server … failed:` since 14, `could not connect`
    // before; an error in the middle of the work is no refusal.
    let start = stderr.iter().position(|line| {
        line.contains("connection to server")
            || line.contains("could not connect")
            || line.contains("could not translate host name")
            || line.contains(": error: FATAL:")
            || line.starts_with("psql: ") && !line.contains("psql: error: ERROR")
    })?;
    let message = stderr[start..]
        .iter()
        .take(4)
        .cloned()
        .collect::<Vec<_>>()
        .join(" | ");
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["server closed the connection unexpectedly"]) && !has(&["connection to server"]) {
        return None;
    }
    let address = format!(
        "{}:{}",
        creds.host.as_deref().unwrap_or("local socket"),
        creds.port
    );
    if has(&["unsupported startup parameter"]) {
        let evidence = message;
        return Some(ExecError::Pooler { address, evidence });
    }
    if has(&[
        "certificate verify failed",
        "SSL error",
        "server does not support SSL",
        "root certificate file",
        "does not match host name",
        "certificate file",
        "private key file",
        "SSL SYSCALL",
        "certificate revoked",
        "sslv3 alert",
        "tlsv1 alert",
        "tlsv13 alert",
        "channel binding",
    ]) {
        return Some(ExecError::Tls { address, message });
    }
    let unreachable = has(&[
        "Connection refused",
        "No such file or directory",
        "could not translate host name",
        "timeout expired",
        "No route to host",
        "Network is unreachable",
        "Connection timed out",
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "sorry, too many clients",
        "remaining connection slots",
        "server closed the connection unexpectedly",
    ]);
    if unreachable {
        return Some(ExecError::ServerUnreachable { address, message });
    }
    if has(&[
        "FATAL:",
        "fe_sendauth",
        "no password supplied",
        "authentication",
    ]) {
        let (user, database) = (creds.user.clone(), creds.database.clone());
        return Some(ExecError::CredentialsRefused {
            user,
            database,
            message,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codes, creds::TlsOptions};

    #[test]
    fn words_of_real_servers() {
        let creds = DbCreds {
            host: Some("db".to_owned()),
            port: 5432,
            database: "shop".to_owned(),
            user: "u".to_owned(),
            password: None,
            tls: TlsOptions::default(),
        };
        let connect =
            "pg_dump: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: ";
        let table = [
            (
                "FATAL:  password authentication failed for user \"u\"",
                codes::CREDENTIALS_REFUSED,
            ),
            (
                "fe_sendauth: no password supplied",
                codes::CREDENTIALS_REFUSED,
            ),
            (
                "FATAL:  no pg_hba.conf entry for host \"10.0.0.9\"",
                codes::CREDENTIALS_REFUSED,
            ),
            (
                "FATAL:  database \"shop\" does not exist",
                codes::CREDENTIALS_REFUSED,
            ),
            ("Connection refused", codes::SERVER_UNREACHABLE),
            (
                "FATAL:  the database system is starting up",
                codes::SERVER_UNREACHABLE,
            ),
            (
                "FATAL:  sorry, too many clients already",
                codes::SERVER_UNREACHABLE,
            ),
            ("SSL error: certificate verify failed", codes::TLS_FAILED),
            (
                "server certificate for \"x\" does not match host name \"db\"",
                codes::TLS_FAILED,
            ),
            (
                "FATAL:  unsupported startup parameter in options",
                codes::POOLER_IN_THE_WAY,
            ),
        ];
        for (words, code) in table {
            let error = failure(
                PgProgram::PgDump,
                ProgramExit::Code(1),
                vec![format!("{connect}{words}")],
                Some(&creds),
            );
            assert_eq!(error.code(), code, "{words}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn an_error_in_the_middle_is_a_failure_of_the_program() {
        let creds = None;
        let lines = vec!["pg_dump: error: query failed: ERROR:  permission denied".to_owned()];
        let error = failure(PgProgram::PgDump, ProgramExit::Code(1), lines, creds);
        assert_eq!(error.code(), codes::PROGRAM_FAILED);
    }
}
