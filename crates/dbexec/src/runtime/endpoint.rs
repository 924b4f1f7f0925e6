//! Which container engine: a function of the environment, the home directory and a few files.
//!
//! Order (as the docker client's, then what else may run here): `DOCKER_HOST`, `DOCKER_CONTEXT`,
//! `currentContext` of the docker configuration, the default socket, the rootless sockets, the
//! sockets of Podman. What was chosen by name is never replaced by another engine.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::env::EnvSnapshot;

/// What the search for an engine depends on.
#[derive(Debug, Clone, Default)]
pub struct EndpointInput {
    /// The process's environment.
    pub env: EnvSnapshot,
    /// Home directory of the user; `None` skips what lies in it.
    pub home: Option<PathBuf>,
}

/// One engine that may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `unix://PATH` or `tcp://HOST:PORT`.
    pub address: String,
    /// Who says so, for messages.
    pub named_by: String,
}

impl Endpoint {
    fn socket(path: &Path, named_by: &str) -> Self {
        Self {
            address: format!("unix://{}", path.display()),
            named_by: named_by.to_owned(),
        }
    }
}

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// A setting chooses this one, and no other may take its place.
    Chosen(Endpoint),
    /// No setting chooses; these are tried in order.
    Usual(Vec<Endpoint>),
    /// A setting chooses something that cannot be used: why, and what to do.
    Unusable(String),
}

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The endpoints to try. `read` gives the text of a file, `None` where there is none.
pub(crate) fn resolve(input: &EndpointInput, read: &dyn Fn(&Path) -> Option<String>) -> Resolved {
    decide(input, read).unwrap_or_else(Resolved::Unusable)
}

fn decide(
    input: &EndpointInput,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Result<Resolved, String> {
    if let Some(host) = input.env.get("DOCKER_HOST") {
        return chosen(host, "DOCKER_HOST", &input.env).map(Resolved::Chosen);
    }
    let config_dir = input
        .env
        .get("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| input.home.as_ref().map(|home| home.join(".docker")));
    if let Some(name) = input.env.get("DOCKER_CONTEXT") {
        return context(name, "DOCKER_CONTEXT", config_dir.as_deref(), input, read)
            .map(Resolved::Chosen);
    }
    if let Some(dir) = &config_dir {
        let path = dir.join("config.json");
        let origin = format!("currentContext of {}", path.display());
        if let Some(name) = current_context(&path, read)? {
            return context(&name, &origin, Some(dir), input, read).map(Resolved::Chosen);
        }
    }
    Ok(Resolved::Usual(defaults(input)))
}

fn defaults(input: &EndpointInput) -> Vec<Endpoint> {
    let mut paths = vec![(PathBuf::from(DEFAULT_SOCKET), "default socket")];
    let run = input.env.get("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(run) = &run {
        paths.push((run.join("docker.sock"), "socket of rootless Docker"));
    }
    if let Some(home) = &input.home {
        paths.push((
            home.join(".docker/run/docker.sock"),
            "socket of the user's Docker",
        ));
    }
    if let Some(run) = &run {
        paths.push((
            run.join("podman/podman.sock"),
            "socket of the user's Podman",
        ));
    }
    paths.push((
        PathBuf::from("/run/podman/podman.sock"),
        "socket of the system's Podman",
    ));
    paths
        .into_iter()
        .map(|(path, named_by)| Endpoint::socket(&path, named_by))
        .collect()
}

/// One address that a setting names.
fn chosen(host: &str, origin: &str, env: &EnvSnapshot) -> Result<Endpoint, String> {
    let address = if let Some(path) = host.strip_prefix("unix://") {
        format!("unix://{path}")
    } else if host.starts_with('/') {
        format!("unix://{host}")
    } else if let Some(rest) = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"))
    {
        if env.get("DOCKER_TLS_VERIFY").is_some() || host.ends_with(":2376") {
            return Err(format!(
                "{host} ({origin}): an engine over TLS is not supported; forward its socket instead (ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock, or run pgstow on that machine"
            ));
        }
        let rest = rest.trim_end_matches('/');
        if has_port(rest) {
            format!("tcp://{rest}")
        } else {
            format!("tcp://{rest}:2375")
        }
    } else if host.starts_with("ssh://") {
        return Err(format!(
            "{host} ({origin}): an engine over ssh is not supported; forward its socket (ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock, or run pgstow on that machine"
        ));
    } else {
        return Err(format!(
            "{host:?} ({origin}): it is neither unix://PATH nor tcp://HOST:PORT; correct or unset {origin}"
        ));
    };
    Ok(Endpoint {
        address,
        named_by: origin.to_owned(),
    })
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

fn current_context(
    path: &Path,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Result<Option<String>, String> {
    let Some(text) = read(path) else {
        return Ok(None);
    };
    match serde_json::from_str::<Config>(&text) {
        Ok(config) => Ok(Some(config.current_context).filter(|name| !name.is_empty())),
        Err(error) => Err(format!(
            "{}: it is not readable as JSON ({error}); correct it, or set DOCKER_HOST",
            path.display()
        )),
    }
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Deserialize, Default)]
struct Endpoints {
    docker: Option<MetaEndpoint>,
}

#[derive(Deserialize)]
struct MetaEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// A context by name: `contexts/meta/<SHA-256 of the name>/meta.json`.
fn context(
    name: &str,
    origin: &str,
    config_dir: Option<&Path>,
    input: &EndpointInput,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Result<Endpoint, String> {
    if name == "default" {
        return Ok(Endpoint::socket(Path::new(DEFAULT_SOCKET), origin));
    }
    let Some(dir) = config_dir else {
        return Err(format!(
            "context {name:?} ({origin}): there is no home directory to look for it; set DOCKER_CONFIG or DOCKER_HOST"
        ));
    };
    let path = dir
        .join("contexts/meta")
        .join(hex(&Sha256::digest(name.as_bytes())))
        .join("meta.json");
    let text = read(&path).ok_or_else(|| {
        format!(
            "context {name:?} ({origin}): {} cannot be read; choose one of `docker context ls`, or set DOCKER_HOST",
            path.display()
        )
    })?;
    let host = serde_json::from_str::<Meta>(&text)
        .ok()
        .and_then(|meta| meta.endpoints.docker)
        .map(|docker| docker.host)
        .filter(|host| !host.is_empty())
        .ok_or_else(|| {
            format!(
                "context {name:?} ({origin}): {} names no docker endpoint; set DOCKER_HOST",
                path.display()
            )
        })?;
    chosen(&host, &format!("context {name:?}, {origin}"), &input.env)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
