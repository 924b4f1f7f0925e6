//! Choosing the executor that fits a context.

use std::sync::Arc;

use super::types::{ConnectionSettings, HostPrograms, PgExecutor, PgProgram};
use super::{DockerPgExecutor, HostPgExecutor};
use crate::context::{DbContext, DbMode};
use crate::executor::ExecError;
use crate::runtime::{ContainerRuntime, RuntimeError};

/// Opens the executor that fits a context.
///
/// # Errors
/// When the context needs a container runtime and none is given, or host programs are missing
/// or too old. A container that is gone is told by the first program that is started in it.
pub async fn open_executor(
    context: DbContext,
    runtime: Option<Arc<dyn ContainerRuntime>>,
    host: HostPrograms,
    settings: ConnectionSettings,
) -> Result<Arc<dyn PgExecutor>, ExecError> {
    match context.mode {
        DbMode::InContainer => {
            let container = context
                .container
                .as_ref()
                .map_or_else(String::new, |c| c.name.clone());
            let runtime = runtime.ok_or_else(|| ExecError::Runtime {
                operation: "opening an executor",
                container,
                source: RuntimeError::Unavailable {
                    tried: vec!["none was given".to_owned()],
                },
            })?;
            Ok(Arc::new(DockerPgExecutor::new(context, runtime, settings)?))
        }
        DbMode::External => {
            let executor = HostPgExecutor::new(context, host, settings);
            // Said before anything begins, not in the middle of a run.
            executor.program(PgProgram::Psql).await?;
            executor.program(PgProgram::PgDump).await?;
            Ok(Arc::new(executor))
        }
    }
}
