//! The container runtime behind our own small trait: list, inspect, exec, put and get files.

mod types;

pub use types::{
    ContainerDetails, ContainerRuntime, ContainerState, ContainerSummary, ExecSession, ExecSpec,
    ExecStatus, Frame, PutFile, RuntimeError,
};
