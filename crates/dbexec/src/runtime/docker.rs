//! Docker's API (also Podman's) by bollard, with the rules that its streams need.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ContainerStateStatusEnum as Status;
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, InspectContainerOptions, ListContainersOptions,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use secrecy::ExposeSecret;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::docker_private;
use super::private::{Attached, ImageDetails, LabelledContainer, PrivateContainer};
use super::tar;
use super::types::{
    ContainerDetails, ContainerRuntime, ContainerState, ContainerSummary, ExecSession, ExecSpec,
    ExecStatus, Frame, PublishedPort, PutFile, RuntimeError,
};
use crate::env::EnvSnapshot;

/// Longest wait for an answer; streams are not bound by it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest upload of one file.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Frames arrive in at most 32 KiB.
const FRAME_CAPACITY: usize = 64 * 1024;

/// An engine that answered.
#[derive(Debug)]
pub struct DockerRuntime {
    client: Docker,
    uploads: Docker,
    description: String,
    local: bool,
}

impl DockerRuntime {
    /// An engine that answered through this client; `local` when by a socket of this host.
    pub(crate) fn new(client: Docker, description: String, local: bool) -> Self {
        let mut uploads = client.clone();
        uploads.set_timeout(UPLOAD_TIMEOUT);
        Self {
            client,
            uploads,
            description,
            local,
        }
    }
}

/// The innermost words of an error: outer ones only say that something failed.
pub(crate) fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

pub(crate) fn failed(operation: &'static str, container: &str, error: &Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError {
            status_code: 404,
            message,
        } if message.contains("No such container")
            || message.contains("no such container")
            || message.contains("No such exec") =>
        {
            RuntimeError::NotFound {
                container: container.to_owned(),
            }
        }
        Error::DockerResponseServerError { message, .. } => RuntimeError::Refused {
            operation,
            message: message.clone(),
        },
        other => RuntimeError::Broken {
            operation,
            message: words(other),
        },
    }
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_local(&self) -> bool {
        self.local
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        // Without `all` the engine lists running and paused containers.
        let list = self
            .client
            .list_containers(None::<ListContainersOptions>)
            .await;
        let list = list.map_err(|error| failed("list containers", "", &error))?;
        Ok(list
            .into_iter()
            .filter_map(|item| {
                let ports = item.ports.unwrap_or_default();
                let mut ports: Vec<String> = ports
                    .into_iter()
                    .filter_map(|port| {
                        let address = port.ip.unwrap_or_default();
                        Some(format!(
                            "{address}:{}->{}",
                            port.public_port?, port.private_port
                        ))
                    })
                    .collect();
                ports.sort();
                ports.dedup();
                Some(ContainerSummary {
                    id: item.id?,
                    name: plain_name(item.names.unwrap_or_default().first()?),
                    image: item.image.unwrap_or_default(),
                    labels: item.labels.unwrap_or_default().into_iter().collect(),
                    ports,
                })
            })
            .collect())
    }

    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError> {
        let found = self
            .client
            .inspect_container(container, None::<InspectContainerOptions>)
            .await;
        let found = found.map_err(|error| failed("inspect a container", container, &error))?;
        let config = found.config.unwrap_or_default();
        let state = found.state.unwrap_or_default();
        let process = state.pid.and_then(|pid| u32::try_from(pid).ok());
        let state = state.status;
        let settings = found.network_settings.unwrap_or_default();
        let networks = settings.networks;
        let network_mode = found.host_config.and_then(|config| config.network_mode);
        let env: EnvSnapshot = config
            .env
            .unwrap_or_default()
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(ContainerDetails {
            id: found.id.unwrap_or_default(),
            name: plain_name(&found.name.unwrap_or_default()),
            image: config.image.unwrap_or_default(),
            image_digest: found.image.unwrap_or_default(),
            labels: config
                .labels
                .unwrap_or_default()
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            env,
            state: match state {
                Some(Status::RUNNING) => ContainerState::Running,
                Some(Status::PAUSED) => ContainerState::Paused,
                Some(Status::RESTARTING) => ContainerState::Restarting,
                _ => ContainerState::NotRunning,
            },
            addresses: networks
                .unwrap_or_default()
                .into_values()
                .filter_map(|network| network.ip_address)
                .filter(|address| !address.is_empty())
                .collect(),
            host_network: network_mode.as_deref() == Some("host"),
            process: process.filter(|process| *process > 0),
            published: published(settings.ports.unwrap_or_default()),
        })
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        let operation = "start a program in the container";
        let config = CreateExecOptions {
            attach_stdin: Some(spec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // A TTY would merge standard error into the data and change every newline.
            tty: Some(false),
            env: Some(
                spec.env
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.expose_secret()))
                    .collect(),
            ),
            cmd: Some(spec.argv.clone()),
            user: spec.user.clone(),
            ..CreateExecOptions::default()
        };
        let created = self.client.create_exec(container, config).await;
        let exec_id = created
            .map_err(|error| failed(operation, container, &error))?
            .id;
        let start = StartExecOptions {
            detach: false,
            tty: false,
            output_capacity: Some(FRAME_CAPACITY),
        };
        let started = self.client.start_exec(&exec_id, Some(start)).await;
        match started.map_err(|error| failed(operation, container, &error))? {
            StartExecResults::Attached { output, input } => Ok(ExecSession {
                exec_id,
                output: Box::pin(output.filter_map(|item| async { frame(item) })),
                input: spec.stdin.then_some(input),
            }),
            StartExecResults::Detached => Err(RuntimeError::Refused {
                operation,
                message: "the engine did not attach to it".to_owned(),
            }),
        }
    }

    async fn exec_status(&self, exec_id: &str) -> Result<ExecStatus, RuntimeError> {
        let status = self.client.inspect_exec(exec_id).await;
        let status = status.map_err(|error| failed("read an exit status", exec_id, &error))?;
        Ok(ExecStatus {
            // An answer that does not say so is no proof of an end.
            running: status.running.unwrap_or(true),
            exit_code: status.exit_code,
        })
    }

    async fn put_file(
        &self,
        container: &str,
        file: &PutFile,
        content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), RuntimeError> {
        let operation = "copy a file into the container";
        let header = tar::header(&file.name, file.size, file.mode)
            .map_err(|message| RuntimeError::Refused { operation, message })?;
        let exact = tar::Exact::new(content, file.size);
        let head = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from(header))]);
        let body = ReaderStream::with_capacity(exact, FRAME_CAPACITY);
        let tail = futures_util::stream::iter([Ok(Bytes::from(tar::trailer(file.size)))]);
        let options = UploadToContainerOptionsBuilder::default()
            .path(&file.directory)
            .build();
        let stream = bollard::body_try_stream(head.chain(body).chain(tail));
        let uploaded = self
            .uploads
            .upload_to_container(container, Some(options), stream)
            .await;
        uploaded.map_err(|error| failed(operation, container, &error))
    }

    async fn get_tar(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, RuntimeError> {
        let operation = "copy files out of the container";
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(path)
            .build();
        let mut stream = self
            .client
            .download_from_container(container, Some(options))
            .boxed();
        // The first piece tells whether there is anything to copy.
        let first = stream.next().await.transpose();
        let first = first.map_err(|error| failed(operation, container, &error))?;
        let all = futures_util::stream::iter(first.map(Ok)).chain(stream.map_err(io::Error::other));
        Ok(Box::pin(StreamReader::new(all)))
    }

    async fn image(&self, image: &str) -> Result<Option<ImageDetails>, RuntimeError> {
        docker_private::image(&self.client, image).await
    }

    async fn create(&self, wanted: &PrivateContainer) -> Result<String, RuntimeError> {
        docker_private::create(&self.client, wanted).await
    }

    async fn attach(&self, container: &str) -> Result<Attached, RuntimeError> {
        docker_private::attach(&self.client, container).await
    }

    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        docker_private::start(&self.client, container).await
    }

    async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        docker_private::remove(&self.client, container).await
    }

    async fn labelled(&self, label: &str) -> Result<Vec<LabelledContainer>, RuntimeError> {
        docker_private::labelled(&self.client, label).await
    }
}

/// One item of an attach stream. Bytes that are no frame mean that the stream was torn: there is
/// no TTY.
pub(crate) fn frame(item: Result<LogOutput, Error>) -> Option<Result<Frame, RuntimeError>> {
    match item {
        Ok(LogOutput::StdOut { message }) => Some(Ok(Frame::Stdout(message))),
        Ok(LogOutput::StdErr { message }) => Some(Ok(Frame::Stderr(message))),
        Ok(LogOutput::StdIn { .. }) => None,
        Ok(LogOutput::Console { message }) => {
            let message = format!("{} bytes outside any frame", message.len());
            Some(Err(RuntimeError::TornStream { message }))
        }
        Err(error) => Some(Err(failed("read a program's output", "", &error))),
    }
}

/// TCP ports of the host that lead to a container.
fn published(ports: bollard::models::PortMap) -> Vec<PublishedPort> {
    let mut list = Vec::new();
    for (inner, bindings) in ports {
        let Some(container_port) = inner
            .strip_suffix("/tcp")
            .and_then(|port| port.parse().ok())
        else {
            continue;
        };
        for binding in bindings.unwrap_or_default() {
            let Some(port) = binding.host_port.and_then(|port| port.parse().ok()) else {
                continue;
            };
            let address = match binding.host_ip.as_deref() {
                None | Some("" | "0.0.0.0") => "127.0.0.1",
                Some("::") => "::1",
                Some(address) => address,
            };
            list.push(PublishedPort {
                container_port,
                address: address.to_owned(),
                port,
            });
        }
    }
    // IPv4 first, and the same in each run.
    list.sort_by_key(|port| (port.address.contains(':'), port.address.clone(), port.port));
    list
}

fn plain_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}
