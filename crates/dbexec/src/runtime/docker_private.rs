//! Containers of pgstow's own in Docker's API.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerSummaryStateEnum, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt;

use super::docker::{failed, frame};
use super::private::{Attached, ImageDetails, LabelledContainer, PrivateContainer, PrivateNetwork};
use super::types::RuntimeError;

pub(crate) async fn image(
    client: &Docker,
    image: &str,
) -> Result<Option<ImageDetails>, RuntimeError> {
    match client.inspect_image(image).await {
        Ok(found) => Ok(Some(ImageDetails {
            digest: found.id.unwrap_or_default(),
            user: found.config.and_then(|c| c.user).unwrap_or_default(),
        })),
        Err(Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(None),
        Err(error) => Err(failed("inspect an image", image, &error)),
    }
}

pub(crate) async fn create(
    client: &Docker,
    wanted: &PrivateContainer,
) -> Result<String, RuntimeError> {
    let bytes = |count: u64| i64::try_from(count).ok();
    let host = HostConfig {
        memory: wanted.memory_bytes.and_then(bytes),
        // The same as memory: no swap.
        memory_swap: wanted.memory_bytes.and_then(bytes),
        nano_cpus: wanted.cpus.map(nano),
        pids_limit: Some(wanted.processes.into()),
        shm_size: wanted.shared_memory_bytes.and_then(bytes),
        network_mode: Some(match &wanted.network {
            PrivateNetwork::None => "none".to_owned(),
            PrivateNetwork::Of(id) => format!("container:{id}"),
        }),
        // Not `binds`: the engine would make a directory that is not there.
        mounts: wanted.bind.as_ref().map(|bind| {
            vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(bind.from.display().to_string()),
                target: Some(bind.to.clone()),
                ..Mount::default()
            }]
        }),
        readonly_rootfs: Some(wanted.read_only),
        tmpfs: wanted.read_only.then(|| {
            let options = "rw,nosuid,nodev,noexec,size=16m,mode=1777";
            HashMap::from([("/tmp".to_owned(), options.to_owned())])
        }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        auto_remove: Some(true),
        // Rows of a user's tables may stand in messages; they are not to stay on this disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ulimits: Some(vec![ResourcesUlimits {
            name: Some("core".to_owned()),
            soft: Some(0),
            hard: Some(0),
        }]),
        ..HostConfig::default()
    };
    let (program, args) = wanted.argv.split_first().map_or_else(
        || (Vec::new(), Vec::new()),
        |(program, args)| (vec![program.clone()], args.to_vec()),
    );
    let body = ContainerCreateBody {
        image: Some(wanted.image.clone()),
        user: Some(wanted.user.clone()),
        entrypoint: Some(program),
        cmd: Some(args),
        env: Some(
            wanted
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        labels: Some(wanted.labels.clone().into_iter().collect()),
        working_dir: Some("/".to_owned()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // The engine closes it when whoever is attached goes away.
        stdin_once: Some(true),
        tty: Some(false),
        network_disabled: (wanted.network == PrivateNetwork::None).then_some(true),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default()
        .name(&wanted.name)
        .build();
    let created = client.create_container(Some(options), body).await;
    created
        .map(|created| created.id)
        .map_err(|error| failed("make a container", &wanted.image, &error))
}

/// Billionths of a processor.
fn nano(cpus: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to what an engine takes"
    )]
    let nano = (cpus.clamp(0.01, 1024.0) * 1e9) as i64;
    nano
}

pub(crate) async fn attach(client: &Docker, container: &str) -> Result<Attached, RuntimeError> {
    let options = AttachContainerOptionsBuilder::default()
        .stream(true)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .build();
    let attached = client.attach_container(container, Some(options)).await;
    let attached = attached.map_err(|error| failed("attach to a container", container, &error))?;
    Ok(Attached {
        output: Box::pin(attached.output.filter_map(|item| async { frame(item) })),
        input: attached.input,
    })
}

pub(crate) async fn start(client: &Docker, container: &str) -> Result<(), RuntimeError> {
    let started = client.start_container(container, None::<StartContainerOptions>);
    started
        .await
        .map_err(|error| failed("start a container", container, &error))
}

pub(crate) async fn remove(client: &Docker, container: &str) -> Result<(), RuntimeError> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    match client.remove_container(container, Some(options)).await {
        // Gone, or on its way.
        Ok(())
        | Err(Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => Ok(()),
        Err(error) => Err(failed("remove a container", container, &error)),
    }
}

pub(crate) async fn labelled(
    client: &Docker,
    label: &str,
) -> Result<Vec<LabelledContainer>, RuntimeError> {
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters)
        .build();
    let found = client.list_containers(Some(options)).await;
    let found = found.map_err(|error| failed("list containers", label, &error))?;
    Ok(found
        .into_iter()
        .filter_map(|item| {
            Some(LabelledContainer {
                id: item.id?,
                labels: item.labels.unwrap_or_default().into_iter().collect(),
                running: item.state == Some(ContainerSummaryStateEnum::RUNNING),
            })
        })
        .collect())
}
