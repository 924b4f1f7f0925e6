//! Sidecars beside real servers.

use std::sync::Arc;

use dbexec::discover::{DiscoverInput, ExplicitSettings};
use dbexec::executor::HostPrograms;
use dbexec::runtime::{ContainerRuntime, EndpointInput, connect_runtime};
use dbexec::{
    ConnectionSettings, EnvSnapshot, NoSidecar, PgExecutor, SidecarPgExecutor, TargetSpec,
    discover_db_context, open_executor, open_sidecar, query,
};
use testkit::PgContainer;
use testkit::process::docker;

async fn runtime() -> Arc<dyn ContainerRuntime> {
    let runtime = connect_runtime(&EndpointInput::default()).await;
    Arc::new(runtime.expect("an engine answers"))
}

#[tokio::test]
async fn first() {
    let _ = docker;
}
