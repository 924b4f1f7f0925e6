//! The container runtime behind our own small trait: list, inspect, exec, put and get
//! files; and containers of pgstow's own.

mod connect;
mod docker;
mod docker_private;
mod endpoint;
mod private;
mod tar;
mod types;

pub use connect::connect_runtime;
pub use docker::DockerRuntime;
pub use endpoint::EndpointInput;
pub use private::{Attached, ImageDetails, LabelledContainer, PrivateContainer};
pub use types::{
    ContainerDetails, ContainerRuntime, ContainerState, ContainerSummary, ExecSession, ExecSpec,
    ExecStatus, Frame, PublishedPort, PutFile, RuntimeError,
};
