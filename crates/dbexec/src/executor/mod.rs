//! Running PostgreSQL's client programs next to the server: one trait, two implementations.

mod classify;
mod docker;
pub(crate) mod drive;
mod environment;
mod error;
mod host;
mod open;
pub(crate) mod probe;
pub(crate) mod programs;
mod reader;
pub(crate) mod scripts;
mod sessions;
pub(crate) mod space;
pub(crate) mod stderr;
mod types;

pub use docker::DockerPgExecutor;
pub use error::{ExecError, ProgramExit};
pub use host::HostPgExecutor;
pub use open::open_executor;
pub use types::{
    ConnectionSettings, Finished, HostPrograms, Input, Invocation, PgExecutor, PgProgram,
    ProgramInfo, ProgramOutput, ReapReport, RunningProgram, ScratchDir, StderrWatch, Transport,
    conninfo_dbname,
};
