//! Which containers are worth a look inside, and what their settings say. Pure.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{
    settings::{Fields, Login, Setting, distinct, is_local_host, logins_of},
    variables::{FileContents, IN_CONTAINER, Reader, SUPERUSER_PASSWORD},
};
use crate::{
    ComposeService, CredentialSource, EnvSnapshot,
    runtime::{ContainerDetails, ContainerSummary},
};

/// Label by which a container is offered to pgstow (`true`) or kept from it (`false`).
pub const ENABLE_LABEL: &str = "pgstow.enable";

/// What the label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enabled {
    Yes,
    No,
    Unsaid,
}

/// Reads `pgstow.enable`.
pub(crate) fn enabled(labels: &BTreeMap<String, String>) -> Enabled {
    match labels.get(ENABLE_LABEL).map(|value| value.trim()) {
        Some(value)
            if ["true", "1", "yes", "on"]
                .iter()
                .any(|yes| value.eq_ignore_ascii_case(yes)) =>
        {
            Enabled::Yes
        }
        Some(value)
            if ["false", "0", "no", "off"]
                .iter()
                .any(|no| value.eq_ignore_ascii_case(no)) =>
        {
            Enabled::No
        }
        _ => Enabled::Unsaid,
    }
}

/// Compose identity from the labels.
pub(crate) fn compose_of(labels: &BTreeMap<String, String>) -> Option<ComposeService> {
    Some(ComposeService {
        project: labels.get("com.docker.compose.project")?.clone(),
        service: labels.get("com.docker.compose.service")?.clone(),
    })
}

/// What a user types to choose this container.
pub(crate) fn target_of(name: &str, labels: &BTreeMap<String, String>) -> String {
    // A scaled compose service has several containers under one identity, so the container's own
    // name is what is offered unless the container is the service's first.
    match compose_of(labels) {
        Some(compose)
            if labels
                .get("com.docker.compose.container-number")
                .is_none_or(|number| number == "1") =>
        {
            format!("{}/{}", compose.project, compose.service)
        }
        _ => format!("container:{name}"),
    }
}

/// Signs, visible from outside, that a container has to do with PostgreSQL; empty means that it is
/// not worth a look inside. The image's name is a hint only.
pub(crate) fn signs(details: &ContainerDetails, summary: Option<&ContainerSummary>) -> Vec<String> {
    let mut signs = Vec::new();
    if enabled(&details.labels) == Enabled::Yes {
        signs.push(format!("label {ENABLE_LABEL}=true"));
    }
    let variables = postgres_variables(&details.env);
    if !variables.is_empty() {
        signs.push(format!("variables {}", variables.join(", ")));
    }
    let image = details.image.to_ascii_lowercase();
    if ["postgres", "postgis", "timescale", "pgvector", "citus"]
        .iter()
        .any(|word| image.contains(word))
    {
        signs.push(format!("image name {}", details.image));
    }
    if let Some(summary) = summary
        && summary
            .ports
            .iter()
            .any(|port| port.contains("5432/") || port.ends_with("5432"))
    {
        signs.push("port 5432".to_owned());
    }
    signs
}

/// Names of PostgreSQL variables in an environment, a few of them, for messages.
fn postgres_variables(env: &EnvSnapshot) -> Vec<String> {
    const EXACT: &[&str] = &[
        "PG_MAJOR",
        "PG_VERSION",
        "PGDATA",
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
    ];
    let mut names: Vec<String> = EXACT
        .iter()
        .filter(|name| env.get(name).is_some())
        .map(|name| (*name).to_owned())
        .collect();
    for prefix in ["POSTGRES_", "POSTGRESQL_"] {
        names.extend(env.with_prefix(prefix).map(|(name, _)| name.to_owned()));
    }
    if env
        .get("DATABASE_URL")
        .is_some_and(crate::target::is_postgres_url)
    {
        names.push("DATABASE_URL".to_owned());
    }
    const SHOWN: usize = 4;
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        names.truncate(SHOWN);
        names.push(format!("{more} more"));
    }
    names
}

/// What a container's environment says about its database.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerSettings {
    pub fields: Fields,
    /// Logins in the order in which they are to be tried.
    pub logins: Vec<Login>,
    pub notes: Vec<String>,
}

/// Reads a container's environment in every known spelling.
///
/// # Errors
/// What is wrong, naming the variable.
pub(crate) fn read_settings(
    name: &str,
    env: &EnvSnapshot,
    files: &FileContents,
) -> Result<ContainerSettings, String> {
    let source = CredentialSource::RunningContainer;
    let reader = Reader {
        env,
        files,
        source,
        whose: format!(" of container {name}"),
        lenient: true,
        notes: RefCell::default(),
    };
    let fields = reader.read(IN_CONTAINER)?;
    let mut logins = Vec::new();
    // Bitnami makes POSTGRESQL_USERNAME an ordinary role and gives the superuser a password of
    // its own; a backup of roles and every database needs the superuser, so it is tried first.
    let mut superuser = Vec::new();
    for variable in SUPERUSER_PASSWORD {
        superuser.extend(reader.get(variable)?);
    }
    let default_user = || Setting::new("postgres".to_owned(), "pgstow's default", source);
    if !superuser.is_empty() {
        logins.extend(logins_of(&default_user(), true, &superuser));
    }
    match &fields.user {
        Some(user) => logins.extend(logins_of(user, false, &fields.passwords)),
        None => logins.extend(logins_of(&default_user(), true, &fields.passwords)),
    }
    Ok(ContainerSettings {
        fields,
        logins: distinct(logins),
        notes: reader.notes.into_inner(),
    })
}

/// What stands behind the host that a container's environment names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The container itself, or nothing was said.
    Here,
    /// Another container of this engine, by its index in the list.
    Sibling(usize),
    /// A host outside the containers that are known.
    Remote(String),
}

/// Finds out where a container's `POSTGRES_HOST` leads: to itself, to a sibling, elsewhere.
pub(crate) fn destination(
    host: Option<&str>,
    own: usize,
    containers: &[&ContainerDetails],
) -> Destination {
    let Some(host) = host.filter(|host| !is_local_host(host)) else {
        return Destination::Here;
    };
    let me = containers[own];
    if answers_to(me, host, me) {
        return Destination::Here;
    }
    let matching: Vec<usize> = containers
        .iter()
        .enumerate()
        .filter(|(at, other)| *at != own && answers_to(other, host, me))
        .map(|(at, _)| at)
        .collect();
    match matching.as_slice() {
        [one] => Destination::Sibling(*one),
        _ => Destination::Remote(host.to_owned()),
    }
}

/// Whether `container` is what `host` means to `asking`: its name, an address, the start of its
/// id, or its compose service within the same project.
fn answers_to(container: &ContainerDetails, host: &str, asking: &ContainerDetails) -> bool {
    let service = || {
        let theirs = compose_of(&container.labels)?;
        let ours = compose_of(&asking.labels)?;
        Some(theirs.project == ours.project && theirs.service.eq_ignore_ascii_case(host))
    };
    container.name.eq_ignore_ascii_case(host)
        || container.addresses.iter().any(|address| address == host)
        || (host.len() >= 12 && container.id.starts_with(host))
        || service().unwrap_or(false)
}

/// Whether a container is the one that a user named: name, id or its start, or `project/service`.
pub(crate) fn is_named(summary: &ContainerSummary, wanted: &str) -> bool {
    let compose = wanted.split_once('/').is_some_and(|(project, service)| {
        compose_of(&summary.labels)
            .is_some_and(|compose| compose.project == project && compose.service == service)
    });
    let id = wanted.len() >= 4
        && wanted.bytes().all(|byte| byte.is_ascii_hexdigit())
        && summary.id.starts_with(&wanted.to_ascii_lowercase());
    compose || summary.name == wanted.trim_start_matches('/') || id
}

/// Whether a name fits a pattern with `*` and `?`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
