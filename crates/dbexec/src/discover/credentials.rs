//! Testing credentials by a query before they win, one attempt per distinct credential.

use std::time::Instant;

use async_trait::async_trait;

use super::{
    recorder::{CREDENTIALS, Recorder},
    settings::{Fields, Login, creds_of, is_socket, sources_of},
};
use crate::causes::in_words;
use crate::{
    ContainerIdentity, CredentialSource, DbCreds, ExecError, FieldSources, ServerIdentity,
    trail::Outcome,
};

/// Where the client program of the test runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Inside this container.
    Container(&'a ContainerIdentity),
    /// On this host.
    Host,
}

/// Logs in and asks the server who it is. A seam: the real one runs psql, tests have a table.
#[async_trait]
pub(crate) trait CredentialProbe: Send + Sync {
    /// One attempt.
    async fn identity(
        &self,
        place: Place<'_>,
        creds: &DbCreds,
    ) -> Result<ServerIdentity, ExecError>;
}

/// What is tried on one server.
pub(crate) struct Attempts<'a> {
    pub place: Place<'a>,
    /// Server in words, for the trail.
    pub server: String,
    pub fields: &'a Fields,
    /// Source of the host, or of the container that stands for it.
    pub host_source: CredentialSource,
    /// Hosts as the client program sees them, in order; `None` is its default socket directory.
    pub hosts: Vec<Option<String>>,
    pub port: u16,
    /// Databases of the first connection, in order.
    pub databases: Vec<String>,
    pub logins: Vec<Login>,
}

/// Credentials that worked.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub creds: DbCreds,
    pub sources: FieldSources,
    pub server: ServerIdentity,
}

/// What a failed attempt leaves to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The login was judged and refused.
    Login,
    /// The login was not judged: the same one may be tried at the next host.
    Host,
    /// The login was accepted, the database does not exist.
    Database,
    /// Trying further cannot help.
    Stop,
}

/// Judges a failed attempt. The server answers the login before it looks for the database, and
/// judges a password only where `pg_hba.conf` asks for one.
pub(crate) fn judge(error: &ExecError) -> Next {
    match error {
        ExecError::CredentialsRefused { message, .. } | ExecError::Query { message, .. } => {
            let message = message.to_ascii_lowercase();
            if message.contains("database \"") && message.contains("does not exist") {
                Next::Database
            } else if [
                "peer authentication failed",
                "ident authentication failed",
                "no pg_hba.conf entry",
                "pg_hba.conf rejects",
            ]
            .iter()
            .any(|words| message.contains(words))
            {
                Next::Host
            } else if matches!(error, ExecError::CredentialsRefused { .. }) {
                Next::Login
            } else {
                Next::Stop
            }
        }
        ExecError::ServerUnreachable { .. } => Next::Host,
        _ => Next::Stop,
    }
}

/// Tries logins, hosts and databases in order until one is accepted.
///
/// # Errors
/// The first refusal when the server judged any login, else the last failure.
pub(crate) async fn try_logins(
    probe: &dyn CredentialProbe,
    attempts: &Attempts<'_>,
    recorder: &mut Recorder,
) -> Result<Accepted, ExecError> {
    let mut refusal = None;
    let mut failure = None;
    // A host that does not answer, or asks for no password at all, is not asked again.
    let mut hosts = attempts.hosts.clone();
    for login in &attempts.logins {
        let mut at = 0;
        let mut database = 0;
        while let Some(host) = hosts.get(at).cloned() {
            let name = attempts
                .databases
                .get(database)
                .map_or("postgres", String::as_str);
            let creds = creds_of(attempts.fields, host.as_deref(), attempts.port, name, login);
            let since = Instant::now();
            let place = host.as_deref().unwrap_or("its local socket");
            let error = match probe.identity(attempts.place, &creds).await {
                Ok(server) => {
                    recorder.add(
                        CREDENTIALS,
                        Outcome::Found,
                        since,
                        format!(
                            "{} accepted {} on database {name:?} over {place} port {} (PostgreSQL {})",
                            attempts.server,
                            login.words(),
                            attempts.port,
                            server.version
                        ),
                    );
                    return Ok(Accepted {
                        sources: sources_of(
                            attempts.fields,
                            Some(attempts.host_source),
                            name,
                            login,
                        ),
                        creds,
                        server,
                    });
                }
                Err(error) => error,
            };
            let next = judge(&error);
            recorder.add(
                CREDENTIALS,
                match next {
                    Next::Login | Next::Database => Outcome::Refused,
                    Next::Host | Next::Stop => Outcome::Failed,
                },
                since,
                format!(
                    "{} over {place} port {}, {}, database {name:?}: {}",
                    attempts.server,
                    attempts.port,
                    login.words(),
                    in_words(&error),
                ),
            );
            match next {
                Next::Database if database + 1 < attempts.databases.len() => {
                    database += 1;
                    continue;
                }
                Next::Host if matches!(error, ExecError::ServerUnreachable { .. }) => {
                    hosts.remove(at);
                }
                // `peer` and `pg_hba.conf` judge sockets alike, wherever they lie.
                Next::Host => {
                    let socket = host.as_deref().is_none_or(is_socket);
                    at += 1;
                    while socket
                        && hosts
                            .get(at)
                            .is_some_and(|host| host.as_deref().is_none_or(is_socket))
                    {
                        at += 1;
                    }
                }
                Next::Login | Next::Database => {
                    refusal.get_or_insert(error);
                    break;
                }
                Next::Stop => return Err(error),
            }
            failure = Some(error);
        }
    }
    Err(refusal
        .or(failure)
        .unwrap_or_else(|| ExecError::ServerUnreachable {
            address: attempts.server.clone(),
            message: "there was nothing to try".to_owned(),
        }))
}
