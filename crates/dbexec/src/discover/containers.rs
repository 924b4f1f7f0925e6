//! Step 2: which running containers hold a PostgreSQL server, and what their settings say.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};

use super::{
    error::Candidate,
    evidence::{
        ContainerSettings, Destination, Enabled, compose_of, destination, enabled, glob, is_named,
        read_settings, signs, target_of,
    },
    inside::{Inside, look_inside},
    recorder::{CONTAINER_ENV, CONTAINER_LIST, CONTAINER_PROBE, Recorder},
    settings::Login,
    variables::{FileContents, IN_CONTAINER, files_named},
};
use crate::{
    ContainerIdentity, ContainerRuntime, RuntimeError,
    runtime::{ContainerDetails, ContainerState, ContainerSummary},
    trail::Outcome,
};

/// How many containers are inspected or looked into at once.
const PARALLEL: usize = 16;

/// How the search is narrowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Narrow {
    /// Name, id or `project/service` that the user gave.
    pub named: Option<String>,
    /// Image pattern that the user gave.
    pub image_pattern: Option<String>,
}

/// A container that runs a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerContainer {
    pub identity: ContainerIdentity,
    pub candidate: Candidate,
    pub settings: ContainerSettings,
    /// Logins that sibling containers (applications) use for this server, after its own.
    pub sibling_logins: Vec<Login>,
    pub inside: Inside,
    labelled: bool,
}

/// A container that only talks to a server elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct ClientContainer {
    pub identity: ContainerIdentity,
    pub candidate: Candidate,
    pub settings: ContainerSettings,
    pub host: String,
    labelled: bool,
}

/// What the search found.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub servers: Vec<ServerContainer>,
    pub clients: Vec<ClientContainer>,
    /// Why a named container cannot be used.
    pub named_problem: Option<String>,
}

struct Seen {
    details: ContainerDetails,
    summary: Option<ContainerSummary>,
    signs: Vec<String>,
    inside: Option<Inside>,
    settings: ContainerSettings,
    recorder: Recorder,
}

/// Searches running containers.
///
/// # Errors
/// The engine's failure, already in the trail.
pub(crate) async fn search(
    runtime: &Arc<dyn ContainerRuntime>,
    narrow: &Narrow,
    recorder: &mut Recorder,
) -> Result<Search, RuntimeError> {
    let since = Instant::now();
    let summaries = match runtime.list().await {
        Ok(summaries) => summaries,
        Err(error) => {
            recorder.add(
                CONTAINER_LIST,
                Outcome::Failed,
                since,
                format!("{}: {error}", runtime.describe()),
            );
            return Err(error);
        }
    };
    let inspected: Vec<(ContainerSummary, Result<ContainerDetails, RuntimeError>)> =
        stream::iter(summaries)
            .map(|summary| async move {
                let details = runtime.inspect(&summary.id).await;
                (summary, details)
            })
            .buffered(PARALLEL)
            .collect()
            .await;
    recorder.add(
        CONTAINER_LIST,
        if inspected.is_empty() {
            Outcome::Nothing
        } else {
            Outcome::Found
        },
        since,
        format!("{}: {} running", runtime.describe(), inspected.len()),
    );
    let mut seen = Vec::new();
    for (summary, details) in inspected {
        match details {
            Ok(details) => seen.push(Seen {
                signs: signs(&details, Some(&summary)),
                details,
                summary: Some(summary),
                inside: None,
                settings: ContainerSettings::default(),
                recorder: Recorder::default(),
            }),
            // It ended between the listing and the inspection.
            Err(RuntimeError::NotFound { .. }) => {}
            Err(error) => {
                recorder.add(
                    CONTAINER_PROBE,
                    Outcome::Failed,
                    since,
                    format!("container {}: {error}", summary.name),
                );
                return Err(error);
            }
        }
    }
    let mut search = Search::default();
    let named = match select_named(runtime, narrow, &mut seen, recorder).await? {
        Selection::All => None,
        Selection::Some(named) => Some(named),
        Selection::Problem(problem) => {
            search.named_problem = Some(problem);
            return Ok(search);
        }
    };
    look_into(runtime, narrow, named.as_deref(), &mut seen, recorder).await?;
    classify(named.as_deref(), &seen, &mut search, recorder);
    Ok(search)
}

enum Selection {
    All,
    Some(Vec<usize>),
    Problem(String),
}

async fn select_named(
    runtime: &Arc<dyn ContainerRuntime>,
    narrow: &Narrow,
    seen: &mut Vec<Seen>,
    recorder: &mut Recorder,
) -> Result<Selection, RuntimeError> {
    let Some(wanted) = &narrow.named else {
        return Ok(Selection::All);
    };
    let since = Instant::now();
    let exact: Vec<usize> = (0..seen.len())
        .filter(|at| seen[*at].details.name == wanted.trim_start_matches('/'))
        .collect();
    let matching: Vec<usize> = if exact.is_empty() {
        (0..seen.len())
            .filter(|at| {
                seen[*at]
                    .summary
                    .as_ref()
                    .is_some_and(|summary| is_named(summary, wanted))
            })
            .collect()
    } else {
        exact
    };
    let problem = match matching.as_slice() {
        [] if wanted.contains('/') => format!(
            "no running container carries these compose labels; running: {}. Start it with `docker compose up -d`, or name another",
            names(seen)
        ),
        [] => match runtime.inspect(wanted).await {
            Ok(details) => match details.state {
                ContainerState::Running => {
                    seen.push(Seen {
                        signs: signs(&details, None),
                        details,
                        summary: None,
                        inside: None,
                        settings: ContainerSettings::default(),
                        recorder: Recorder::default(),
                    });
                    return Ok(Selection::Some(vec![seen.len() - 1]));
                }
                state => state_problem(&details.name, state),
            },
            Err(RuntimeError::NotFound { .. }) => {
                format!("there is no such container; running: {}", names(seen))
            }
            Err(error) => return Err(error),
        },
        [one] if seen[*one].details.state != ContainerState::Running => {
            state_problem(&seen[*one].details.name, seen[*one].details.state)
        }
        many => return Ok(Selection::Some(many.to_vec())),
    };
    recorder.add(
        CONTAINER_PROBE,
        Outcome::Nothing,
        since,
        format!("container {wanted}: {problem}"),
    );
    Ok(Selection::Problem(problem))
}

fn names(seen: &[Seen]) -> String {
    if seen.is_empty() {
        return "none".to_owned();
    }
    let mut names: Vec<&str> = seen.iter().map(|seen| seen.details.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

fn state_problem(name: &str, state: ContainerState) -> String {
    match state {
        ContainerState::Paused => {
            format!("it is paused, so nothing in it answers; `docker unpause {name}`")
        }
        ContainerState::Restarting => {
            format!("it is restarting again and again; `docker logs {name}` says why")
        }
        ContainerState::NotRunning => format!("it is not running; `docker start {name}`"),
        ContainerState::Running => "it is running".to_owned(),
    }
}

/// Looks into the containers that are worth it, all at once.
async fn look_into(
    runtime: &Arc<dyn ContainerRuntime>,
    narrow: &Narrow,
    named: Option<&[usize]>,
    seen: &mut [Seen],
    recorder: &mut Recorder,
) -> Result<(), RuntimeError> {
    let mut skipped = 0_usize;
    let mut looks = Vec::new();
    let mut failure = None;
    let leads_to = named.map(|named| siblings_of(named, seen));
    for (at, seen) in seen.iter_mut().enumerate() {
        let since = Instant::now();
        let name = &seen.details.name;
        let is_named = named.is_some_and(|named| named.contains(&at));
        // With a name given, another is looked into only when the named one's settings lead to it.
        if !is_named && leads_to.as_ref().is_some_and(|leads| !leads.contains(&at)) {
            continue;
        }
        let mut skip = |outcome: Outcome, reason: &str| {
            seen.recorder.add(
                CONTAINER_PROBE,
                outcome,
                since,
                format!("container {name}: {reason}"),
            );
        };
        if !is_named {
            if enabled(&seen.details.labels) == Enabled::No {
                skip(
                    Outcome::Skipped,
                    "label pgstow.enable=false keeps it from pgstow",
                );
                seen.signs.clear();
                continue;
            }
            if named.is_none()
                && let Some(pattern) = &narrow.image_pattern
            {
                if !glob(pattern, &seen.details.image) {
                    skip(
                        Outcome::Skipped,
                        &format!("image {} does not fit {pattern}", seen.details.image),
                    );
                    seen.signs.clear();
                    continue;
                }
                seen.signs.push(format!("image fits {pattern}"));
            }
            if seen.signs.is_empty() {
                skipped += 1;
                continue;
            }
            if seen.details.state != ContainerState::Running {
                let problem = state_problem(name, seen.details.state);
                skip(Outcome::Skipped, &problem);
                seen.signs.clear();
                continue;
            }
        }
        looks.push(async move {
            let since = Instant::now();
            let mut paths: Vec<String> = files_named(&seen.details.env, IN_CONTAINER)
                .into_iter()
                .map(|(_, path)| path)
                .collect();
            paths.sort_unstable();
            paths.dedup();
            let id = &seen.details.id;
            let mut result = look_inside(runtime.as_ref(), id, &paths).await;
            // It may have ended since it was listed; the engine then refuses the exec.
            if result.is_err()
                && !runtime
                    .inspect(id)
                    .await
                    .is_ok_and(|now| now.state == ContainerState::Running)
            {
                result = Err(RuntimeError::NotFound {
                    container: seen.details.name.clone(),
                });
            }
            (seen, since, result)
        });
    }
    let mut looks = stream::iter(looks).buffered(PARALLEL);
    while let Some((seen, since, result)) = looks.next().await {
        let name = seen.details.name.clone();
        match result {
            Ok(inside) => {
                let server = inside.server || !inside.shell;
                seen.recorder.add(
                    CONTAINER_PROBE,
                    if server {
                        Outcome::Found
                    } else {
                        Outcome::Nothing
                    },
                    since,
                    format!("container {name}: {}", inside.words()),
                );
                let files: &FileContents = &inside.files;
                // Lenient reading has no errors; a remark is all that is lost if it had.
                match read_settings(&name, &seen.details.env, files) {
                    Ok(settings) => seen.settings = settings,
                    Err(problem) => seen.settings.notes.push(problem),
                }
                seen.inside = Some(inside);
            }
            Err(error) => {
                seen.recorder.add(
                    CONTAINER_PROBE,
                    Outcome::Failed,
                    since,
                    format!("container {name}: {error}"),
                );
                // What cannot be looked into may be the database that is meant: choosing another
                // one would be a guess.
                if !matches!(error, RuntimeError::NotFound { .. }) {
                    failure.get_or_insert(error);
                }
            }
        }
    }
    drop(looks);
    for seen in seen.iter_mut() {
        recorder.append(std::mem::take(&mut seen.recorder));
    }
    if skipped > 0 {
        recorder.add(
            CONTAINER_PROBE,
            Outcome::Skipped,
            Instant::now(),
            format!(
                "{skipped} more running, with no sign of PostgreSQL (label pgstow.enable=true, variables, image name, port 5432)"
            ),
        );
    }
    failure.map_or(Ok(()), Err)
}

/// Containers to which the settings of the named ones lead.
fn siblings_of(named: &[usize], seen: &[Seen]) -> Vec<usize> {
    let details: Vec<&ContainerDetails> = seen.iter().map(|seen| &seen.details).collect();
    named
        .iter()
        .filter_map(|at| {
            let own = details[*at];
            let settings = read_settings(&own.name, &own.env, &FileContents::new()).ok()?;
            match destination(settings.fields.host_value(), *at, &details) {
                Destination::Sibling(sibling) => Some(sibling),
                Destination::Here | Destination::Remote(_) => None,
            }
        })
        .collect()
}

fn classify(named: Option<&[usize]>, seen: &[Seen], search: &mut Search, recorder: &mut Recorder) {
    let details: Vec<&ContainerDetails> = seen.iter().map(|seen| &seen.details).collect();
    let wanted = |at: usize| named.is_none_or(|named| named.contains(&at));
    let is_server = |seen: &Seen| {
        seen.inside.as_ref().is_some_and(|inside| {
            // Without a shell the signs have to do; the test of the credentials proves them.
            inside.server || (!inside.shell && !seen.signs.is_empty())
        })
    };
    let mut servers: Vec<Option<ServerContainer>> = seen
        .iter()
        .enumerate()
        .map(|(at, seen)| (wanted(at) && is_server(seen)).then(|| server_container(seen)))
        .collect();
    let since = Instant::now();
    for (at, this) in seen.iter().enumerate() {
        if this.inside.is_none() {
            continue;
        }
        let name = &this.details.name;
        let leads = destination(this.settings.fields.host_value(), at, &details);
        let mut words = settings_words(&this.settings, &leads, seen);
        if !this.settings.notes.is_empty() {
            words = format!("{words}; {}", this.settings.notes.join("; "));
        }
        let outcome = if is_server(this) || matches!(leads, Destination::Remote(_)) {
            Outcome::Found
        } else {
            Outcome::Nothing
        };
        if named.is_none() || wanted(at) {
            recorder.add(
                CONTAINER_ENV,
                outcome,
                since,
                format!("container {name}: {words}"),
            );
        }
        if is_server(this) {
            continue;
        }
        match leads {
            Destination::Here => {}
            Destination::Sibling(sibling) => {
                if is_server(&seen[sibling]) && (wanted(at) || wanted(sibling)) {
                    let server =
                        servers[sibling].get_or_insert_with(|| server_container(&seen[sibling]));
                    server
                        .sibling_logins
                        .extend(this.settings.logins.iter().cloned());
                    server.candidate.evidence =
                        format!("{}; used by container {name}", server.candidate.evidence);
                }
            }
            Destination::Remote(host) if wanted(at) => {
                let mut client = ClientContainer {
                    identity: identity(&this.details),
                    candidate: candidate(this),
                    settings: this.settings.clone(),
                    host,
                    labelled: enabled(&this.details.labels) == Enabled::Yes,
                };
                client.candidate.evidence = format!(
                    "runs no server; its settings name {} port {}",
                    client.host,
                    client.settings.fields.port_value()
                );
                search.clients.push(client);
            }
            Destination::Remote(_) => {}
        }
    }
    search.servers = servers.into_iter().flatten().collect();
    // A labelled container is what somebody meant; the others are then not in question.
    if named.is_none() {
        if search.servers.iter().any(|server| server.labelled) {
            search.servers.retain(|server| server.labelled);
        }
        if search.clients.iter().any(|client| client.labelled) {
            search.clients.retain(|client| client.labelled);
        }
    }
    if let Some(named) = named
        && search.servers.is_empty()
        && search.clients.is_empty()
    {
        let why = named
            .first()
            .and_then(|at| seen[*at].inside.as_ref())
            .map_or_else(|| "it could not be looked into".to_owned(), Inside::words);
        search.named_problem = Some(why);
    }
}

fn settings_words(settings: &ContainerSettings, leads: &Destination, seen: &[Seen]) -> String {
    let fields = &settings.fields;
    let host = match leads {
        Destination::Here => "the server is in the container itself".to_owned(),
        Destination::Sibling(at) => format!(
            "{} is container {}",
            fields
                .host
                .as_ref()
                .map_or("the host", |host| host.origin.as_str()),
            seen[*at].details.name
        ),
        Destination::Remote(host) => format!(
            "{} names {host}, outside the containers that are known",
            fields
                .host
                .as_ref()
                .map_or("the host", |host| host.origin.as_str()),
        ),
    };
    let user = fields.user.as_ref().map_or_else(
        || "no user (postgres is tried)".to_owned(),
        |user| format!("user {:?} from {}", user.value, user.origin),
    );
    let password = fields
        .passwords
        .iter()
        .map(|password| password.origin.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let password = if password.is_empty() {
        "no password".to_owned()
    } else {
        format!("password from {password}")
    };
    format!("{host}; {user}, {password}")
}

pub(crate) fn identity(details: &ContainerDetails) -> ContainerIdentity {
    ContainerIdentity {
        id: details.id.clone(),
        name: details.name.clone(),
        image: details.image.clone(),
        image_digest: details.image_digest.clone(),
        compose: compose_of(&details.labels),
    }
}

fn candidate(seen: &Seen) -> Candidate {
    Candidate {
        target: target_of(&seen.details.name, &seen.details.labels),
        image: seen.details.image.clone(),
        ports: seen
            .summary
            .as_ref()
            .map(|summary| summary.ports.clone())
            .unwrap_or_default(),
        evidence: seen.signs.join("; "),
    }
}

fn server_container(seen: &Seen) -> ServerContainer {
    let inside = seen.inside.clone().unwrap_or_default();
    let mut candidate = candidate(seen);
    candidate.evidence = match candidate.evidence.as_str() {
        "" => inside.words(),
        signs => format!("{}; {signs}", inside.words()),
    };
    ServerContainer {
        identity: identity(&seen.details),
        candidate,
        settings: seen.settings.clone(),
        sibling_logins: Vec::new(),
        inside,
        labelled: enabled(&seen.details.labels) == Enabled::Yes,
    }
}
