//! A throw-away server in a container of its own, and how such a container is started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SandboxError;
use super::line::Line;
use super::owner;
use super::settings;
use super::spec::SandboxSpec;
use crate::context::ContainerIdentity;
use crate::runtime::{ContainerRuntime, PrivateContainer, PrivateNetwork, RuntimeError};

/// Most processes: sessions of a parallel restore, and room.
const PROCESSES: u32 = 512;
/// How long the engine may take to remove a container that ended.
const GONE_WAIT: Duration = Duration::from_secs(20);

/// A container that was started.
pub(crate) struct Boxed {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) identity: ContainerIdentity,
}

/// Makes and starts the container; what was made is removed when a step fails.
pub(crate) async fn start(
    spec: &SandboxSpec,
    runtime: &Arc<dyn ContainerRuntime>,
    image: &str,
    script: Vec<String>,
) -> Result<(Boxed, Line), SandboxError> {
    let engine = |operation| move |source| SandboxError::Engine { operation, source };
    let found = runtime
        .image(image)
        .await
        .map_err(engine("looking for the image"))?;
    let Some(found) = found else {
        return Err(SandboxError::ImageMissing {
            image: image.to_owned(),
        });
    };
    // PostgreSQL does not run as root; the images that start as root change to this user.
    let user = match found.user.as_str() {
        "" | "root" | "0" | "root:root" | "0:0" => "postgres".to_owned(),
        user => user.to_owned(),
    };
    let wanted = PrivateContainer {
        name: unique_name("pgstow-sandbox", &spec.run_id),
        // By content, so that what was looked at is what runs.
        image: found.digest,
        user,
        argv: [vec!["sh".to_owned()], script].concat(),
        env: settings::locale(&spec.env),
        labels: owner::labels(owner::SANDBOX_LABEL, &spec.run_id),
        network: PrivateNetwork::None,
        bind: None,
        read_only: false,
        memory_bytes: Some(spec.memory_bytes),
        cpus: Some(spec.cpus),
        processes: PROCESSES,
        shared_memory_bytes: Some(spec.memory_bytes / 2),
    };
    launch(runtime, image, wanted).await
}

/// A name that no other container has.
pub(crate) fn unique_name(kind: &str, run_id: &str) -> String {
    let tail = rand::random_range(0..1_u32 << 24);
    format!("{kind}-{run_id}-{tail:06x}")
}

/// Makes and starts a container of pgstow's own; what was made is removed when a step fails.
/// `image` is its name for people, `wanted` has it by content.
pub(crate) async fn launch(
    runtime: &Arc<dyn ContainerRuntime>,
    image: &str,
    mut wanted: PrivateContainer,
) -> Result<(Boxed, Line), SandboxError> {
    let engine = |operation| move |source| SandboxError::Engine { operation, source };
    let created = match runtime.create(&wanted).await {
        // More than the engine's machine has (`as there are only 2 CPUs available`) is no limit.
        // An engine that cannot limit them still takes the other walls.
        Err(RuntimeError::Refused { message, .. }) if message.contains("CPU") => {
            tracing::debug!(%message, "a throw-away server without a limit of processors");
            wanted.cpus = None;
            runtime.create(&wanted).await
        }
        created => created,
    };
    let id = created.map_err(engine("making a container"))?;
    let boxed = Boxed {
        runtime: Arc::clone(runtime),
        identity: ContainerIdentity {
            id: id.clone(),
            name: wanted.name,
            image: image.to_owned(),
            image_digest: wanted.image,
            compose: None,
        },
    };
    let begin = async {
        // Attached first: from its first moment the container ends when we go away.
        let attached = runtime
            .attach(&id)
            .await
            .map_err(engine("attaching to a container"))?;
        runtime
            .start(&id)
            .await
            .map_err(|source| explain(source, image))?;
        Ok(Line {
            output: attached.output,
            input: attached.input,
        })
    };
    match begin.await {
        Ok(line) => Ok((boxed, line)),
        Err(error) => {
            if let Err(left) = boxed.gone().await {
                tracing::warn!(%left, "after a failed start");
            }
            Err(error)
        }
    }
}

/// What the engine means when it cannot start the script.
fn explain(source: RuntimeError, image: &str) -> SandboxError {
    if let RuntimeError::Refused { message, .. } = &source {
        if message.contains("executable file not found")
            || message.contains("no such file or directory")
        {
            let image = image.to_owned();
            return SandboxError::NoShell { image };
        }
        if message.contains("unable to find user") || message.contains("no matching entries") {
            let reason = message.clone();
            return SandboxError::NoUser { reason };
        }
    }
    SandboxError::Engine {
        operation: "starting a container",
        source,
    }
}

impl Boxed {
    /// Makes sure that the container and its volumes are gone.
    pub(crate) async fn gone(&self) -> Result<(), SandboxError> {
        let (id, name) = (&self.identity.id, &self.identity.name);
        let deadline = Instant::now() + GONE_WAIT;
        let mut asked = Ok(());
        loop {
            let reason = match self.runtime.inspect(id).await {
                Err(RuntimeError::NotFound { .. }) => return Ok(()),
                Err(error) => error.to_string(),
                Ok(_) => {
                    asked = self.runtime.remove(id).await;
                    "it is still there".to_owned()
                }
            };
            if Instant::now() > deadline {
                return Err(SandboxError::NotRemoved {
                    what: format!("container {name}"),
                    reason: asked.err().map_or(reason, |error| error.to_string()),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words() {
        let refused = |message: &str| RuntimeError::Refused {
            operation: "start a container",
            message: message.to_owned(),
        };
        let error = explain(
            refused("exec: \"sh\": executable file not found in $PATH"),
            "x",
        );
        assert!(matches!(error, SandboxError::NoShell { .. }));
        let error = explain(refused("unable to find user postgres: no matching"), "x");
        assert!(matches!(error, SandboxError::NoUser { .. }));
        let error = explain(refused("no space left on device"), "x");
        assert_eq!(error.code(), crate::codes::SANDBOX_FAILED);
    }
}
