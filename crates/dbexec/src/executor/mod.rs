//! Running PostgreSQL's client programs next to the server: one trait, two implementations.

mod error;
mod types;

pub use error::{ExecError, ProgramExit};
pub use types::{
    ConnectionSettings, Finished, HostPrograms, Input, Invocation, PgExecutor, PgProgram,
    ProgramInfo, ProgramOutput, ReapReport, RunningProgram, ScratchDir, Transport, conninfo_dbname,
    open_executor,
};
