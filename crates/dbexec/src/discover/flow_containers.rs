//! Step 2 of the flow: the server is in a container, or a container's settings name it.

use std::sync::Arc;
use std::time::Instant;

use super::{
    DiscoverError,
    containers::{ClientContainer, Narrow, Search, ServerContainer, search},
    credentials::{Accepted, Attempts, Place, try_logins},
    explicit::overlay,
    flow::{Flow, default_user, persisted_login, server_words, unique},
    inside::Inside,
    own_environment::OwnEnvironment,
    persisted::Persisted,
    recorder::{CONTAINER, CONTAINER_LIST, EXPLICIT, PERSISTED_FILE},
    settings::{Fields, Login, distinct, is_socket, logins_of},
};
use crate::{
    ContainerIdentity, CredentialSource, DbContext, DbMode, ExecError, SeenPrograms, trail::Outcome,
};

impl Flow<'_> {
    /// Step 2, and what follows when it finds nothing.
    pub(crate) async fn containers(
        mut self,
        named: Option<String>,
        typed: &Fields,
        own: &OwnEnvironment,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let narrow = Narrow {
            named: named.clone(),
            image_pattern: self.input.explicit.image_pattern.clone(),
        };
        let searched = match &self.input.runtime {
            Ok(runtime) => search(runtime, &narrow, &mut self.recorder)
                .await
                .map_err(Arc::new),
            Err(error) => {
                self.recorder.add(
                    CONTAINER_LIST,
                    Outcome::Failed,
                    since,
                    format!("failed: {error}"),
                );
                Err(Arc::clone(error))
            }
        };
        let Search {
            mut servers,
            clients,
            named_problem,
        } = match searched {
            Ok(search) => search,
            Err(source) => {
                // Somebody who asks for a container must not get another database; an engine that
                // answers and then fails may hold the one that is meant.
                let asked = named.is_some() || narrow.image_pattern.is_some();
                if asked || self.input.runtime.is_ok() {
                    return Err(self.runtime(source));
                }
                return self.without_containers(typed, own, Some(source)).await;
            }
        };
        if let Some(reason) = named_problem {
            return Err(DiscoverError::ContainerNotFound {
                wanted: named.unwrap_or_default(),
                reason,
                trail: self.recorder.into_trail(),
            });
        }
        self.narrow_by_published_port(&mut servers, own);
        let source = if named.is_some() {
            CredentialSource::Explicit
        } else {
            CredentialSource::RunningContainer
        };
        name_apart(&mut servers);
        if servers.len() > 1 {
            return Err(self.ambiguous(servers.into_iter().map(|s| s.candidate).collect()));
        }
        if let Some(server) = servers.into_iter().next() {
            self.recorder.add(
                CONTAINER,
                Outcome::Found,
                Instant::now(),
                format!(
                    "container {}: {}",
                    server.identity.name, server.candidate.evidence
                ),
            );
            return self.in_container(server, typed, own, source).await;
        }
        let clients = distinct_clients(clients);
        if clients.len() > 1 {
            return Err(self.ambiguous(clients.into_iter().map(|c| c.candidate).collect()));
        }
        if let Some(client) = clients.into_iter().next() {
            return self.container_client(client, typed, source).await;
        }
        if let Some(pattern) = narrow.image_pattern {
            return Err(DiscoverError::ContainerNotFound {
                wanted: pattern,
                reason: "no running container whose image fits the pattern runs PostgreSQL"
                    .to_owned(),
                trail: self.recorder.into_trail(),
            });
        }
        self.recorder.add(
            CONTAINER,
            Outcome::Nothing,
            Instant::now(),
            "no running container has a PostgreSQL server",
        );
        self.without_containers(typed, own, None).await
    }

    /// Where the environment names a local address with a port, the container that publishes this
    /// port is what the address means: no guess.
    fn narrow_by_published_port(
        &mut self,
        servers: &mut Vec<ServerContainer>,
        own: &OwnEnvironment,
    ) {
        let Some(fields) = own.fields() else { return };
        let (Some(host), Some(port)) = (&fields.host, &fields.port) else {
            return;
        };
        if servers.len() < 2 || !fields.is_local() || is_socket(&host.value) {
            return;
        }
        let publishes = |server: &ServerContainer| {
            server
                .candidate
                .ports
                .iter()
                .any(|published| published_port(published) == Some(port.value))
        };
        if servers.iter().filter(|server| publishes(server)).count() == 1 {
            servers.retain(publishes);
            self.recorder.add(
                CONTAINER,
                Outcome::Found,
                Instant::now(),
                format!(
                    "several containers run PostgreSQL; {} and {} mean the one that publishes port {}: {}",
                    host.origin, port.origin, port.value, servers[0].identity.name
                ),
            );
        }
    }

    /// The server runs in this container.
    pub(crate) async fn in_container(
        mut self,
        server: ServerContainer,
        typed: &Fields,
        own: &OwnEnvironment,
        source: CredentialSource,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let name = server.identity.name.clone();
        if source != CredentialSource::Explicit
            && !typed.passwords.is_empty()
            && !self.input.allow_mixed_sources
        {
            let problem = format!(
                "a password was given, but no target: it would go to container {name}, which was found by searching. Name the target ({}), or allow it with --allow-mixed-sources",
                server.candidate.target
            );
            return Err(self.mixed(EXPLICIT, since, problem));
        }
        match self.try_container(&server, typed, own, source).await {
            Ok((accepted, from_persisted)) => {
                if let Some((expected, found)) = from_persisted {
                    self.recorder.add(
                        PERSISTED_FILE,
                        Outcome::Refused,
                        since,
                        format!("its password was accepted, but by another server: system identifier {found}, expected {expected}"),
                    );
                    let source = ExecError::ServerChanged {
                        target: server.candidate.target,
                        expected,
                        found,
                    };
                    return Err(self.unusable(format!("container {name}"), source));
                }
                let Inside {
                    shell,
                    installations,
                    ..
                } = server.inside;
                let programs = SeenPrograms(shell.then_some(installations));
                let container = Some(server.identity);
                Ok(self.context(DbMode::InContainer, accepted, source, container, programs))
            }
            Err(error) => Err(self.unusable(format!("container {name}"), error)),
        }
    }

    /// Tries what is known for one container. The second part of the result is set when the
    /// persisted password won on a server that is not the one it was written for.
    pub(crate) async fn try_container(
        &mut self,
        server: &ServerContainer,
        typed: &Fields,
        own: &OwnEnvironment,
        source: CredentialSource,
    ) -> Result<(Accepted, Option<(String, String)>), ExecError> {
        let mut fields = typed.clone();
        fields.host = None;
        let said = &server.settings.fields;
        let port = typed.port.as_ref().map_or_else(
            || server.inside.port(said.port.as_ref().map(|p| p.value)),
            |port| port.value,
        );
        overlay(
            &mut fields,
            Fields {
                host: None,
                port: said.port.clone().filter(|p| p.value == port),
                passwords: Vec::new(),
                ..said.clone()
            },
        );
        let mut logins = container_logins(server, typed);
        let allowed = source == CredentialSource::Explicit || self.input.allow_mixed_sources;
        if let Some(own) = own.fields()
            && allowed
            && own.is_local()
            && typed.passwords.is_empty()
        {
            let user = typed
                .user
                .clone()
                .or(own.user.clone())
                .or(said.user.clone());
            let default = user.is_none();
            let user = user.unwrap_or_else(|| default_user(CredentialSource::Env));
            if !own.passwords.is_empty() {
                logins.extend(logins_of(&user, default, &own.passwords));
            }
        }
        let identity = &server.identity;
        let persisted = self.persisted().filter(|persisted| {
            persisted.mode == DbMode::InContainer && same_container(persisted, identity)
        });
        if let Some(persisted) = &persisted
            && typed.passwords.is_empty()
            && typed
                .user
                .as_ref()
                .is_none_or(|user| user.value == persisted.creds.user)
        {
            logins.push(persisted_login(persisted));
        }
        let logins = distinct(logins);
        let mut databases = Vec::new();
        match &typed.database {
            Some(database) => databases.push(database.value.clone()),
            None => {
                databases.extend(said.database.as_ref().map(|d| d.value.clone()));
                databases.push("postgres".to_owned());
                databases.extend(fields.user.as_ref().map(|user| user.value.clone()));
                databases.push("template1".to_owned());
            }
        }
        let attempts = Attempts {
            place: Place::Container(identity),
            server: format!("container {}", identity.name),
            fields: &fields,
            host_source: source,
            hosts: server.inside.hosts(port),
            port,
            databases: unique(databases),
            logins,
        };
        let accepted = try_logins(self.probe, &attempts, &mut self.recorder).await?;
        let from_persisted = accepted.sources.password == Some(CredentialSource::PersistedFile);
        let changed = persisted
            .filter(|_| from_persisted)
            .and_then(|persisted| persisted.system_identifier)
            .zip(accepted.server.system_identifier.clone())
            .filter(|(expected, found)| expected != found);
        Ok((accepted, changed))
    }

    /// A container's settings name a server outside of the containers.
    async fn container_client(
        mut self,
        client: ClientContainer,
        typed: &Fields,
        source: CredentialSource,
    ) -> Result<DbContext, DiscoverError> {
        let since = Instant::now();
        let name = &client.identity.name;
        let mut fields = typed.clone();
        let mut said = client.settings.fields.clone();
        // Certificate files of the container are not files of this host.
        said.tls.root_cert = None;
        said.tls.cert = None;
        said.tls.key = None;
        said.tls.crl = None;
        // The engine's own name for the machine that it runs on means nothing outside containers.
        if let Some(host) = &mut said.host
            && ["host.docker.internal", "host.containers.internal"].contains(&host.value.as_str())
        {
            host.value = "localhost".to_owned();
        }
        let typed_password = !typed.passwords.is_empty();
        overlay(&mut fields, said);
        let server = server_words(&fields);
        if typed_password && !self.input.allow_mixed_sources {
            let problem = format!(
                "a password was given, but the host {server} comes from the settings of container {name}. Name the server with --url or --host, or allow it with --allow-mixed-sources"
            );
            return Err(self.mixed(EXPLICIT, since, problem));
        }
        if fields.database.is_none() || fields.user.is_none() {
            let problem = format!(
                "the settings of container {name} name the host {}, but not {}",
                client.host,
                match (&fields.database, &fields.user) {
                    (None, None) =>
                        "the database and the user (POSTGRES_DATABASE, POSTGRES_USERNAME)",
                    (None, _) => "the database (POSTGRES_DATABASE or POSTGRES_DB)",
                    _ => "the user (POSTGRES_USERNAME or POSTGRES_USER)",
                }
            );
            return Err(self.invalid(CONTAINER, since, problem));
        }
        self.recorder.add(
            CONTAINER,
            Outcome::Found,
            since,
            format!("container {name} runs no server itself; its settings name {server}"),
        );
        let logins = fields
            .user
            .as_ref()
            .map(|user| logins_of(user, false, &fields.passwords))
            .unwrap_or_default();
        let databases = fields.database.iter().map(|d| d.value.clone()).collect();
        let identity = client.identity.clone();
        let host_source = CredentialSource::RunningContainer;
        let _ = source;
        self.external(&fields, logins, databases, host_source, Some(identity))
            .await
            .map_err(|source| self.unusable(server, source))
    }
}

/// Containers of one scaled compose service share `project/service`; only their names tell them
/// apart.
fn name_apart(servers: &mut [ServerContainer]) {
    for at in 0..servers.len() {
        let target = servers[at].candidate.target.clone();
        let shared = servers.iter().enumerate().any(|(other, server)| {
            other != at
                && server.identity.compose.is_some()
                && server.identity.compose == servers[at].identity.compose
        });
        if shared && !target.starts_with("container:") {
            servers[at].candidate.target = format!("container:{}", servers[at].identity.name);
        }
    }
}

/// Logins for a server in a container: what was typed, else what its settings say, else what the
/// applications that use it say.
fn container_logins(server: &ServerContainer, typed: &Fields) -> Vec<Login> {
    let own = server.settings.logins.iter().chain(&server.sibling_logins);
    match &typed.user {
        Some(user) if !typed.passwords.is_empty() => logins_of(user, false, &typed.passwords),
        Some(user) => {
            let mut logins: Vec<Login> = own
                .filter(|login| login.user.value == user.value)
                .cloned()
                .map(|login| Login {
                    user: user.clone(),
                    user_is_default: false,
                    ..login
                })
                .collect();
            if logins.is_empty() {
                logins = logins_of(user, false, &[]);
            }
            logins
        }
        None if !typed.passwords.is_empty() => own
            .take(1)
            .flat_map(|login| logins_of(&login.user, login.user_is_default, &typed.passwords))
            .collect(),
        None => own.cloned().collect(),
    }
}

fn same_container(persisted: &Persisted, identity: &ContainerIdentity) -> bool {
    match (&persisted.compose, &identity.compose) {
        (Some(theirs), Some(ours)) => theirs == ours,
        (None, None) => persisted.container_name.as_deref() == Some(identity.name.as_str()),
        _ => false,
    }
}

/// Clients of one server are one candidate.
pub(crate) fn distinct_clients(clients: Vec<ClientContainer>) -> Vec<ClientContainer> {
    let mut kept: Vec<ClientContainer> = Vec::new();
    for client in clients {
        let known = kept.iter().any(|other| {
            other.host.eq_ignore_ascii_case(&client.host)
                && other.settings.fields.port_value() == client.settings.fields.port_value()
        });
        if !known {
            kept.push(client);
        }
    }
    kept
}

/// Host side of `0.0.0.0:55432->5432/tcp` or `55432->5432`.
pub(crate) fn published_port(published: &str) -> Option<u16> {
    let host = published
        .split("->")
        .next()
        .filter(|_| published.contains("->"))?;
    host.rsplit(':').next()?.parse().ok()
}
