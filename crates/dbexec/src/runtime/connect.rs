//! Connecting to a container engine: the first endpoint that answers, with the reasons of those
//! that did not.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::RuntimeError;
use super::docker::{DockerRuntime, REQUEST_TIMEOUT, words};
use super::endpoint::{Endpoint, EndpointInput, Resolved, resolve};

/// Longest wait for an engine's first answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Oldest API: Docker 20.10, Podman 4.
const OLDEST_API: (u32, u32) = (1, 41);

/// Connects to the engine that the environment names, or to the first usual one that answers.
///
/// # Errors
/// [`RuntimeError::Unavailable`] with each endpoint that was tried, why it cannot be used and
/// what to do. An endpoint that was chosen by a setting is the only one that is tried.
pub async fn connect_runtime(input: &EndpointInput) -> Result<DockerRuntime, RuntimeError> {
    let candidates = match resolve(input, &|path: &Path| std::fs::read_to_string(path).ok()) {
        Resolved::Chosen(endpoint) => vec![endpoint],
        Resolved::Usual(list) => list,
        Resolved::Unusable(reason) => {
            return Err(RuntimeError::Unavailable {
                tried: vec![reason],
            });
        }
    };
    let mut tried = Vec::new();
    for endpoint in candidates {
        match connect(&endpoint).await {
            Ok(runtime) => return Ok(runtime),
            Err(Refusal { reason, go_on }) => {
                tried.push(format!(
                    "{} ({}): {reason}",
                    endpoint.address, endpoint.named_by
                ));
                // An engine that refuses us is not exchanged for another one in silence.
                if !go_on {
                    break;
                }
            }
        }
    }
    Err(RuntimeError::Unavailable { tried })
}

/// Why an endpoint cannot be used, and whether another may be tried.
struct Refusal {
    reason: String,
    go_on: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self {
            reason,
            go_on: true,
        }
    }
}

async fn connect(endpoint: &Endpoint) -> Result<DockerRuntime, Refusal> {
    let (seconds, api) = (REQUEST_TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION);
    let client = if let Some(path) = endpoint.address.strip_prefix("unix://") {
        look_at_socket(Path::new(path))?;
        bollard::Docker::connect_with_unix(path, seconds, api)
    } else {
        bollard::Docker::connect_with_http(&endpoint.address, seconds, api)
    };
    let client = client.map_err(|error| words(&error))?;
    let version = tokio::time::timeout(PING_TIMEOUT, client.version())
        .await
        .map_err(|_| format!("no answer within {} s", PING_TIMEOUT.as_secs()))?
        .map_err(|error| words(&error))?;
    let api = version.api_version.unwrap_or_default();
    if parse_api(&api).is_none_or(|api| api < OLDEST_API) {
        let reason = format!(
            "its API {api:?} is older than 1.41; update it (Docker 20.10 or Podman 4, or later)"
        );
        return Err(Refusal {
            reason,
            go_on: false,
        });
    }
    let components = version.components.unwrap_or_default();
    let is_podman = components
        .iter()
        .any(|component| component.name.contains("Podman"));
    let name = if is_podman { "Podman" } else { "Docker" };
    let number = version.version.unwrap_or_default();
    Ok(DockerRuntime::new(
        client,
        format!("{name} {number} at {}", endpoint.address),
        endpoint.address.starts_with("unix://"),
    ))
}

/// Tells a missing socket from one that may not be used, before a client library blurs both.
fn look_at_socket(path: &Path) -> Result<(), Refusal> {
    let Err(error) = std::os::unix::net::UnixStream::connect(path) else {
        return Ok(());
    };
    let reason = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the engine, or set DOCKER_HOST to where it is"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied; add the user to the group of the \
            socket (`sudo usermod -aG docker USER`, then log in again) or run as root"
            .to_owned(),
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; start the engine (`sudo systemctl start docker`)".to_owned()
        }
        _ => error.to_string(),
    };
    Err(Refusal {
        reason,
        go_on: error.kind() != io::ErrorKind::PermissionDenied,
    })
}

fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions() {
        assert_eq!(parse_api("1.41"), Some((1, 41)));
        assert!(parse_api("1.5") < Some(OLDEST_API));
        assert_eq!(parse_api("?"), None);
    }

    #[tokio::test]
    async fn bar_21_a_missing_chosen_socket_is_an_error_and_nothing_else_is_tried() {
        let env = [("DOCKER_HOST", "unix:///nonexistent/pgstow.sock")]
            .into_iter()
            .collect();
        let input = EndpointInput { env, home: None };
        let Err(RuntimeError::Unavailable { tried }) = connect_runtime(&input).await else {
            panic!("an engine was found");
        };
        assert_eq!(tried.len(), 1);
        assert!(tried[0].contains("no such socket") && tried[0].contains("DOCKER_HOST"));
    }
}
