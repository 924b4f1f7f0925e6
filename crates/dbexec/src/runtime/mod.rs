//! The container runtime behind our own small trait: list, inspect, exec, put and get files.

mod connect;
mod docker;
mod endpoint;
mod tar;
mod types;

pub use connect::connect_runtime;
pub use docker::DockerRuntime;
pub use endpoint::EndpointInput;
pub use types::{
    ContainerDetails, ContainerRuntime, ContainerState, ContainerSummary, ExecSession, ExecSpec,
    ExecStatus, Frame, PutFile, RuntimeError,
};
