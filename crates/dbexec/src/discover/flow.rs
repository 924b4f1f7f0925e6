//! The order of the steps, and what ends the search.
//!
//! 0. `explicit`: what the user typed; 1. `environment`: a host elsewhere; 2. running containers;
//!    then a server of this host at the local address of the environment; 3. the persisted file.
//!
//! A step that names a server decides: when that server cannot be used, discovery fails there and
//! says so, instead of going on to another database.

use std::sync::Arc;
use std::time::Instant;

use super::{
    Candidate, DiscoverError, DiscoverInput,
    credentials::{Accepted, Attempts, CredentialProbe, Place, try_logins},
    explicit::{Asked, asked, overlay, overlay_tls},
    own_environment::{OwnEnvironment, read_own_environment},
    persisted::{Persisted, read_persisted},
    recorder::{CONTAINER, ENVIRONMENT, EXPLICIT, Recorder},
    settings::{Fields, Login, Setting, distinct, is_socket, logins_of},
};
use crate::{
    ContainerIdentity, CredentialSource, DbContext, DbMode, ExecError, RuntimeError, SeenPrograms,
    trail::Outcome,
};

/// One discovery under way.
pub(crate) struct Flow<'a> {
    pub input: &'a DiscoverInput,
    pub probe: &'a dyn CredentialProbe,
    pub recorder: Recorder,
}

impl Flow<'_> {
    /// Runs the steps.
    pub(crate) async fn run(mut self) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let asked = asked(&self.input.explicit, self.input.env.get("TARGET_CONTAINER"))
            .map_err(|problem| self.invalid(EXPLICIT, since, problem))?;
        let (own, notes) = read_own_environment(&self.input.env);
        match asked {
            Asked::Server(fields) => self.explicit_server(fields, &own).await,
            Asked::Container { wanted, fields } => {
                self.recorder.add(
                    EXPLICIT,
                    Outcome::Found,
                    since,
                    format!("container {wanted} was named"),
                );
                self.containers(Some(wanted), &fields, &own).await
            }
            Asked::Nothing(fields) => {
                self.recorder.add(
                    EXPLICIT,
                    Outcome::Nothing,
                    since,
                    if fields.is_empty() {
                        "no target, URL, host or container was given"
                    } else {
                        "no target, URL, host or container was given; the fields that were given overlay what is found"
                    },
                );
                self.unnamed(fields, own, notes).await
            }
        }
    }

    async fn unnamed(
        mut self,
        typed: Fields,
        own: OwnEnvironment,
        notes: Vec<String>,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        if self.input.explicit.image_pattern.is_some() {
            self.recorder.add(
                ENVIRONMENT,
                Outcome::Skipped,
                since,
                "an image pattern was given, which asks for a container",
            );
            return self.containers(None, &typed, &own).await;
        }
        let fields = match &own {
            OwnEnvironment::Broken(problem) => {
                return Err(self.invalid(ENVIRONMENT, since, problem.clone()));
            }
            OwnEnvironment::Read(fields) => fields.as_ref().clone(),
        };
        let notes = if notes.is_empty() {
            String::new()
        } else {
            format!("; {}", notes.join("; "))
        };
        if fields.is_local() {
            let reason = match &fields.host {
                Some(host) => format!(
                    "{} is {:?}, which means here: a container of this machine, or this host itself{notes}",
                    host.origin, host.value
                ),
                None if fields.is_empty() => {
                    format!("none of POSTGRES_HOST, DATABASE_URL, PGHOST is set{notes}")
                }
                None => format!(
                    "some variables are set, but none of POSTGRES_HOST, DATABASE_URL, PGHOST names a host{notes}"
                ),
            };
            self.recorder
                .add(ENVIRONMENT, Outcome::Nothing, since, reason);
            return self.containers(None, &typed, &own).await;
        }
        self.environment_server(typed, fields, since, &notes).await
    }

    /// A host elsewhere, named by the environment.
    async fn environment_server(
        mut self,
        typed: Fields,
        own: Fields,
        since: Instant,
        notes: &str,
    ) -> Result<DbContext, DiscoverError> {
        let mut fields = typed;
        overlay(&mut fields, own.clone());
        let origin = own.host.as_ref().map_or("", |host| host.origin.as_str());
        let mut missing = Vec::new();
        if fields.database.is_none() {
            missing.push("the database (POSTGRES_DATABASE or POSTGRES_DB, PGDATABASE, or a path in DATABASE_URL)");
        }
        if fields.user.is_none() {
            missing.push(
                "the user (POSTGRES_USERNAME or POSTGRES_USER, PGUSER, or a user in DATABASE_URL)",
            );
        }
        if !missing.is_empty() {
            let problem = format!(
                "{origin} names the host {}, but nothing names {}",
                own.host_value().unwrap_or_default(),
                missing.join(" and ")
            );
            return Err(self.invalid(ENVIRONMENT, since, problem));
        }
        let server = server_words(&fields);
        self.recorder.add(
            ENVIRONMENT,
            Outcome::Found,
            since,
            format!("{origin} names {server}{notes}"),
        );
        let mut logins = Vec::new();
        if let Some(user) = &fields.user {
            logins = logins_of(user, false, &fields.passwords);
            if let Some(persisted) = self.persisted_password(|persisted| {
                persisted.mode == DbMode::External
                    && persisted.creds.host.as_deref() == fields.host_value()
                    && persisted.creds.port == fields.port_value()
                    && persisted.creds.user == user.value
            }) {
                logins.push(persisted);
            }
        }
        let databases = fields.database.iter().map(|d| d.value.clone()).collect();
        self.external(&fields, logins, databases, CredentialSource::Env, None)
            .await
            .map_err(|source| self.unusable(server, source))
    }

    /// A server that the user named by its address.
    async fn explicit_server(
        mut self,
        mut fields: Fields,
        own: &OwnEnvironment,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let server = server_words(&fields);
        self.recorder.add(
            EXPLICIT,
            Outcome::Found,
            since,
            format!("{server} was named"),
        );
        let mut withheld = None;
        // A database that was not typed is a suggestion: another may be there instead.
        let typed_database = fields.database.is_some();
        if let OwnEnvironment::Read(own) = own {
            let same = fields.same_server(own);
            let same_user = match (&fields.user, &own.user) {
                (Some(typed), Some(own)) => typed.value == own.value,
                _ => true,
            };
            // Names are no secrets, unless they are those of another server.
            if same || own.host.is_none() {
                fields.database = fields.database.take().or(own.database.clone());
                fields.user = fields.user.take().or(own.user.clone());
            }
            // A password goes only where its own source sends it.
            if fields.passwords.is_empty() && same_user && !own.passwords.is_empty() {
                if same || self.input.allow_mixed_sources {
                    fields.add_passwords(&own.passwords);
                } else {
                    withheld = own.passwords.first().map(|p| p.origin.clone());
                }
            }
            // PGSSLMODE and its relatives hold for every host: dropping them would weaken what
            // somebody asked for.
            overlay_tls(&mut fields.tls, own.tls.clone());
        }
        let (user, default) = match &fields.user {
            Some(user) => (user.clone(), false),
            None => (default_user(CredentialSource::Explicit), true),
        };
        let logins = logins_of(&user, default, &fields.passwords);
        let mut databases: Vec<String> = fields.database.iter().map(|d| d.value.clone()).collect();
        if !typed_database {
            databases.extend(["postgres".to_owned(), user.value.clone()]);
        }
        let databases = unique(databases);
        let result = self
            .external(&fields, logins, databases, CredentialSource::Explicit, None)
            .await;
        match (result, withheld) {
            (Ok(context), _) => Ok(context),
            (Err(ExecError::CredentialsRefused { message, .. }), Some(origin)) => {
                let problem = format!(
                    "{server} wants a password ({message}); {origin} holds one, but it comes from the environment and the host was typed, so it was not sent. Give the password with --password-file or in the URL, or allow it with --allow-mixed-sources"
                );
                Err(self.mixed(EXPLICIT, since, problem))
            }
            (Err(source), _) => Err(self.unusable(server, source)),
        }
    }

    /// Tests logins on a server outside containers, with programs of this host.
    pub(crate) async fn external(
        &mut self,
        fields: &Fields,
        logins: Vec<Login>,
        databases: Vec<String>,
        source: CredentialSource,
        container: Option<ContainerIdentity>,
    ) -> Result<DbContext, ExecError> {
        let attempts = Attempts {
            place: Place::Host,
            server: server_words(fields),
            fields,
            host_source: source,
            hosts: vec![fields.host_value().map(str::to_owned)],
            port: fields.port_value(),
            databases,
            logins: distinct(logins),
        };
        let accepted = try_logins(self.probe, &attempts, &mut self.recorder).await?;
        Ok(self.context(
            DbMode::External,
            accepted,
            source,
            container,
            SeenPrograms::default(),
        ))
    }

    pub(crate) fn context(
        &mut self,
        mode: DbMode,
        accepted: Accepted,
        source: CredentialSource,
        container: Option<ContainerIdentity>,
        programs: SeenPrograms,
    ) -> DbContext {
        DbContext {
            mode,
            creds: accepted.creds,
            source,
            field_sources: accepted.sources,
            container,
            server: accepted.server,
            trail: self.recorder.trail(),
            programs,
        }
    }

    /// The persisted file, where it may be read; a refusal is told when the step comes.
    pub(crate) fn persisted(&self) -> Option<Persisted> {
        let path = self.input.persisted_file.as_ref()?;
        read_persisted(path).ok().flatten()
    }

    pub(crate) fn persisted_password(&self, fits: impl Fn(&Persisted) -> bool) -> Option<Login> {
        let persisted = self.persisted()?;
        (fits(&persisted) && persisted.creds.password.is_some())
            .then(|| persisted_login(&persisted))
    }

    pub(crate) fn invalid(
        &mut self,
        step: &'static str,
        since: Instant,
        problem: String,
    ) -> DiscoverError {
        self.recorder
            .add(step, Outcome::Refused, since, problem.clone());
        DiscoverError::InvalidConfig {
            problem,
            trail: self.recorder.trail(),
        }
    }

    pub(crate) fn mixed(
        &mut self,
        step: &'static str,
        since: Instant,
        problem: String,
    ) -> DiscoverError {
        self.recorder
            .add(step, Outcome::Refused, since, problem.clone());
        DiscoverError::MixedSources {
            problem,
            trail: self.recorder.trail(),
        }
    }

    pub(crate) fn ambiguous(&mut self, candidates: Vec<Candidate>) -> DiscoverError {
        let targets: Vec<&str> = candidates.iter().map(|c| c.target.as_str()).collect();
        self.recorder.add(
            CONTAINER,
            Outcome::Ambiguous,
            Instant::now(),
            format!(
                "{} candidates, and pgstow never guesses: {}",
                targets.len(),
                targets.join(", ")
            ),
        );
        DiscoverError::Ambiguous {
            candidates,
            trail: self.recorder.trail(),
        }
    }

    pub(crate) fn runtime(&mut self, source: Arc<RuntimeError>) -> DiscoverError {
        DiscoverError::Runtime {
            source,
            trail: self.recorder.trail(),
        }
    }

    pub(crate) fn unusable(&mut self, target: String, source: ExecError) -> DiscoverError {
        DiscoverError::Unusable {
            target,
            source,
            trail: self.recorder.trail(),
        }
    }

    /// Nothing was found. Where containers could not be searched although the environment points
    /// here, or the engine refuses us, that is the finding.
    pub(crate) fn nothing(
        &mut self,
        own: &OwnEnvironment,
        runtime: Option<Arc<RuntimeError>>,
    ) -> DiscoverError {
        let points_here = own.fields().is_some_and(|own| !own.is_empty());
        match runtime {
            Some(source) if points_here || super::error::refuses_us(&source) => {
                self.runtime(source)
            }
            _ => DiscoverError::NotFound {
                trail: self.recorder.trail(),
            },
        }
    }
}

pub(crate) fn default_user(source: CredentialSource) -> Setting<String> {
    Setting::new("postgres".to_owned(), "pgstow's default", source)
}

/// `host db.example port 5432`, for messages.
pub(crate) fn server_words(fields: &Fields) -> String {
    match fields.host_value() {
        Some(host) if is_socket(host) => format!("socket {host} port {}", fields.port_value()),
        Some(host) => format!("host {host} port {}", fields.port_value()),
        None => format!("the local socket port {}", fields.port_value()),
    }
}

pub(crate) fn unique(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

pub(crate) fn persisted_login(persisted: &Persisted) -> Login {
    let source = CredentialSource::PersistedFile;
    Login {
        user: Setting::new(persisted.creds.user.clone(), "the persisted file", source),
        user_is_default: false,
        password: persisted
            .creds
            .password
            .clone()
            .map(|password| Setting::new(password, "the persisted file", source)),
    }
}
