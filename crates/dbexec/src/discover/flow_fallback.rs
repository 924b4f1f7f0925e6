//! What is tried when no container has the database: a server of this host at the local address
//! of the environment, then (step 3) the persisted file.

use std::sync::Arc;
use std::time::Instant;

use super::{
    DiscoverError,
    explicit::overlay,
    flow::{Flow, default_user, server_words, unique},
    own_environment::OwnEnvironment,
    persisted::{PersistedError, read_persisted},
    recorder::{LOCAL_SERVER, PERSISTED_FILE},
    settings::{Fields, logins_of},
};
use crate::{CredentialSource, DbContext, DbMode, ExecError, RuntimeError, trail::Outcome};

impl Flow<'_> {
    /// No container: a server of this host, then the persisted file.
    pub(crate) async fn without_containers(
        mut self,
        typed: &Fields,
        own: &OwnEnvironment,
        runtime: Option<Arc<RuntimeError>>,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let local = own.fields().filter(|own| !own.is_empty()).cloned();
        if let Some(own) = local {
            let mut fields = typed.clone();
            overlay(&mut fields, own.clone());
            let (user, default) = match &fields.user {
                Some(user) => (user.clone(), false),
                None => (default_user(CredentialSource::Env), true),
            };
            let logins = logins_of(&user, default, &fields.passwords);
            let mut databases: Vec<String> =
                fields.database.iter().map(|d| d.value.clone()).collect();
            if databases.is_empty() {
                databases = unique(["postgres".to_owned(), user.value.clone()]);
            }
            let server = format!("this host ({})", server_words(&fields));
            match self
                .external(&fields, logins, databases, CredentialSource::Env, None)
                .await
            {
                Ok(context) => return Ok(context),
                Err(ExecError::ServerUnreachable { address, message }) => {
                    self.recorder.add(
                        LOCAL_SERVER,
                        Outcome::Nothing,
                        since,
                        format!("no server of this host answers at {address}: {message}"),
                    );
                }
                Err(source) => return Err(self.unusable(server, source)),
            }
        } else {
            self.recorder.add(
                LOCAL_SERVER,
                Outcome::Skipped,
                since,
                "no variable speaks of a server on this host",
            );
        }
        self.persisted_step(typed, own, runtime).await
    }

    /// Step 3: reach the database again, or say where it was.
    async fn persisted_step(
        mut self,
        typed: &Fields,
        own: &OwnEnvironment,
        runtime: Option<Arc<RuntimeError>>,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let Some(path) = &self.input.persisted_file else {
            self.recorder.add(
                PERSISTED_FILE,
                Outcome::Skipped,
                since,
                "no data directory was given",
            );
            return Err(self.nothing(own, runtime));
        };
        let persisted = match read_persisted(path) {
            Ok(Some(persisted)) => persisted,
            Ok(None) => {
                let reason = format!(
                    "{} does not exist; it is written after the first successful backup",
                    path.display()
                );
                self.recorder
                    .add(PERSISTED_FILE, Outcome::Nothing, since, reason);
                return Err(self.nothing(own, runtime));
            }
            Err(error) => {
                let problem = error.words();
                let outcome = match error {
                    PersistedError::Unsafe { .. } => Outcome::Refused,
                    _ => Outcome::Failed,
                };
                self.recorder
                    .add(PERSISTED_FILE, outcome, since, problem.clone());
                return Err(DiscoverError::PersistedFileUnsafe {
                    problem,
                    trail: self.recorder.into_trail(),
                });
            }
        };
        if persisted.mode == DbMode::InContainer {
            let place = persisted.place();
            let name = persisted.container_name.clone().unwrap_or_default();
            let why = if runtime.is_some() {
                "containers cannot be searched now".to_owned()
            } else {
                format!("it is not running: `docker start {name}` (or `docker compose up -d`)")
            };
            self.recorder.add(
                PERSISTED_FILE,
                Outcome::Nothing,
                since,
                format!("the last backup was of {place}; {why}"),
            );
            return Err(self.nothing(own, runtime));
        }
        if let Some(host) = own.fields().and_then(|own| own.host.as_ref()) {
            self.recorder.add(
                PERSISTED_FILE,
                Outcome::Skipped,
                since,
                format!(
                    "the last backup was of {}, but {} asks for a server here",
                    persisted.place(),
                    host.origin
                ),
            );
            return Err(self.nothing(own, runtime));
        }
        let server = persisted.place();
        if !typed.passwords.is_empty() && !self.input.allow_mixed_sources {
            let problem = format!(
                "a password was given, but the host {server} comes from the persisted file. Name the server with --url or --host, or allow it with --allow-mixed-sources"
            );
            return Err(self.mixed(PERSISTED_FILE, since, problem));
        }
        self.recorder.add(
            PERSISTED_FILE,
            Outcome::Found,
            since,
            format!("the last backup was of {server}"),
        );
        let source = CredentialSource::PersistedFile;
        let mut fields = typed.clone();
        overlay(&mut fields, persisted.fields(source));
        let logins = fields
            .user
            .as_ref()
            .map(|user| logins_of(user, false, &fields.passwords))
            .unwrap_or_default();
        let databases = fields.database.iter().map(|d| d.value.clone()).collect();
        let context = self
            .external(&fields, logins, databases, source, None)
            .await
            .map_err(|source| self.unusable(server.clone(), source))?;
        match (
            &persisted.system_identifier,
            &context.server.system_identifier,
        ) {
            (Some(expected), Some(found)) if expected != found => Err(DiscoverError::Unusable {
                target: server.clone(),
                source: ExecError::ServerChanged {
                    target: server,
                    expected: expected.clone(),
                    found: found.clone(),
                },
                trail: context.trail,
            }),
            _ => Ok(context),
        }
    }
}
