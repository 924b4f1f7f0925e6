//! `discover --all`: every server that can be seen, with the source of its credentials or the
//! reason why it cannot be used. Each is tried as if it had been found alone; nothing is chosen.

use std::time::Instant;

use futures_util::future::join_all;

use super::{
    Candidate, DiscoverInput,
    containers::{Narrow, Search, search},
    credentials::{Attempts, CredentialProbe, Place, try_logins},
    explicit::overlay,
    flow::{Flow, default_user, server_words, unique},
    flow_containers::distinct_clients,
    own_environment::{OwnEnvironment, read_own_environment},
    persisted::read_persisted,
    recorder::{CONTAINER_LIST, ENVIRONMENT, PERSISTED_FILE, Recorder},
    settings::{Fields, distinct, logins_of},
};
use crate::causes::in_words;
use crate::{
    ContainerIdentity, CredentialSource, DbCreds, DbMode, FieldSources, ServerIdentity, Trail,
    trail::Outcome,
};

/// One server that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// What to type to choose it, what it is and why it is listed.
    pub candidate: Candidate,
    /// Where it runs.
    pub mode: DbMode,
    /// Source that named it.
    pub source: CredentialSource,
    /// The container, where one is involved.
    pub container: Option<ContainerIdentity>,
    /// Tested login, or why there is none: a sentence with the stable code in front.
    pub login: Result<FoundLogin, String>,
}

/// A login that worked.
#[derive(Debug, Clone)]
pub struct FoundLogin {
    /// The credentials.
    pub creds: DbCreds,
    /// Source of each field.
    pub field_sources: FieldSources,
    /// The server as it described itself.
    pub server: ServerIdentity,
}

/// Lists everything; failures are entries of the trail.
pub(crate) async fn all_with(
    input: &DiscoverInput,
    probe: &dyn CredentialProbe,
) -> (Vec<Found>, Trail) {
    let mut flow = Flow {
        input,
        probe,
        recorder: Recorder::default(),
    };
    let since = Instant::now();
    let (own, _) = read_own_environment(&input.env);
    let mut found = Vec::new();
    match &own {
        OwnEnvironment::Broken(problem) => {
            flow.recorder
                .add(ENVIRONMENT, Outcome::Refused, since, problem.clone());
        }
        OwnEnvironment::Read(fields) if fields.is_empty() => {
            flow.recorder.add(
                ENVIRONMENT,
                Outcome::Nothing,
                since,
                "no variable names a server",
            );
        }
        OwnEnvironment::Read(fields) => {
            flow.recorder
                .add(ENVIRONMENT, Outcome::Found, since, server_words(fields));
            let item = external(&mut flow, fields, CredentialSource::Env, None).await;
            // "Here" without a server of this host is no finding; the containers follow.
            let here_and_nobody = fields.is_local()
                && item
                    .login
                    .as_ref()
                    .is_err_and(|why| why.starts_with(crate::codes::SERVER_UNREACHABLE));
            if !here_and_nobody {
                found.push(item);
            }
        }
    }
    containers(&mut flow, &own, &mut found).await;
    persisted(&mut flow, &mut found).await;
    (found, flow.recorder.into_trail())
}

async fn containers(flow: &mut Flow<'_>, own: &OwnEnvironment, found: &mut Vec<Found>) {
    let since = Instant::now();
    let runtime = match &flow.input.runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let reason = in_words(error.as_ref());
            flow.recorder
                .add(CONTAINER_LIST, Outcome::Failed, since, reason);
            return;
        }
    };
    let narrow = Narrow {
        named: None,
        image_pattern: flow.input.explicit.image_pattern.clone(),
    };
    // The failure is in the trail already.
    let Ok(Search {
        servers, clients, ..
    }) = search(runtime, &narrow, &mut flow.recorder).await
    else {
        return;
    };
    // Side by side; each keeps its own trail until all are done.
    let tried = servers.into_iter().map(|server| {
        let mut part = Flow {
            input: flow.input,
            probe: flow.probe,
            recorder: Recorder::default(),
        };
        async move {
            let source = CredentialSource::RunningContainer;
            let login = part
                .try_container(&server, &Fields::default(), own, source)
                .await;
            (server, login, part.recorder)
        }
    });
    for (server, login, recorder) in join_all(tried).await {
        flow.recorder.append(recorder);
        found.push(Found {
            candidate: server.candidate,
            mode: DbMode::InContainer,
            source: CredentialSource::RunningContainer,
            container: Some(server.identity),
            login: match login {
                Ok((accepted, None)) => Ok(FoundLogin {
                    creds: accepted.creds,
                    field_sources: accepted.sources,
                    server: accepted.server,
                }),
                Ok((_, Some((expected, found)))) => Err(format!(
                    "{}: another server answers (system identifier {found}, expected {expected})",
                    crate::codes::CONTAINER_CHANGED
                )),
                Err(error) => Err(format!("{}: {}", error.code(), in_words(&error))),
            },
        });
    }
    for client in distinct_clients(clients) {
        let mut fields = client.settings.fields.clone();
        fields.tls = crate::TlsOptions {
            mode: fields.tls.mode,
            ..crate::TlsOptions::default()
        };
        let mut item = external(
            flow,
            &fields,
            CredentialSource::RunningContainer,
            Some(client.identity),
        )
        .await;
        item.candidate = client.candidate;
        found.push(item);
    }
}

async fn persisted(flow: &mut Flow<'_>, found: &mut Vec<Found>) {
    let since = Instant::now();
    let Some(path) = &flow.input.persisted_file else {
        return;
    };
    let persisted = match read_persisted(path) {
        Ok(Some(persisted)) => persisted,
        Ok(None) => return,
        Err(error) => {
            flow.recorder
                .add(PERSISTED_FILE, Outcome::Refused, since, error.words());
            return;
        }
    };
    let place = persisted.place();
    flow.recorder.add(
        PERSISTED_FILE,
        Outcome::Found,
        since,
        format!("the last backup was of {place}"),
    );
    let seen = found.iter().any(|item| match (&item.login, item.mode) {
        (Ok(login), mode) => {
            mode == persisted.mode
                && persisted.system_identifier.is_some()
                && login.server.system_identifier == persisted.system_identifier
        }
        (Err(_), _) => false,
    });
    if persisted.mode == DbMode::External && !seen {
        let source = CredentialSource::PersistedFile;
        let item = external(flow, &persisted.fields(source), source, None).await;
        found.push(item);
    }
}

async fn external(
    flow: &mut Flow<'_>,
    said: &Fields,
    source: CredentialSource,
    container: Option<ContainerIdentity>,
) -> Found {
    let mut fields = Fields::default();
    overlay(&mut fields, said.clone());
    let (user, default) = match &fields.user {
        Some(user) => (user.clone(), false),
        None => (default_user(source), true),
    };
    let databases = match &fields.database {
        Some(database) => vec![database.value.clone()],
        None => unique(["postgres".to_owned(), user.value.clone()]),
    };
    let attempts = Attempts {
        place: Place::Host,
        server: server_words(&fields),
        fields: &fields,
        host_source: source,
        hosts: vec![fields.host_value().map(str::to_owned)],
        port: fields.port_value(),
        databases,
        logins: distinct(logins_of(&user, default, &fields.passwords)),
    };
    let login = try_logins(flow.probe, &attempts, &mut flow.recorder).await;
    Found {
        candidate: Candidate {
            target: format!("postgres://{}", address(&fields, &user.value)),
            image: String::new(),
            ports: Vec::new(),
            evidence: format!("named by {}", source.as_str()),
        },
        mode: DbMode::External,
        source,
        container,
        login: login
            .map(|accepted| FoundLogin {
                creds: accepted.creds,
                field_sources: accepted.sources,
                server: accepted.server,
            })
            .map_err(|error| format!("{}: {}", error.code(), in_words(&error))),
    }
}

/// `USER@HOST:PORT/DATABASE`, percent-encoded, without the password.
fn address(fields: &Fields, user: &str) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let host = match fields.host_value() {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) if host.starts_with(['/', '@']) => encode(host),
        Some(host) => host.to_owned(),
        None => String::new(),
    };
    let database = fields
        .database
        .as_ref()
        .map_or_else(String::new, |database| {
            format!("/{}", encode(&database.value))
        });
    format!("{}@{host}:{}{database}", encode(user), fields.port_value())
}
