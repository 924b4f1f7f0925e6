//! The entry points of discovery.

use async_trait::async_trait;

use super::{
    DiscoverError, DiscoverInput,
    credentials::{CredentialProbe, Place},
    flow::Flow,
    recorder::Recorder,
};
use crate::{DbContext, DbCreds, ExecError, PgProgram, ServerIdentity};

/// Finds one server with credentials that work.
///
/// # Errors
/// See [`DiscoverError`]; each carries the trail.
#[tracing::instrument(name = "discover", skip_all)]
pub async fn discover_db_context(input: &DiscoverInput) -> Result<DbContext, DiscoverError> {
    discover_with(input, &ExecutorProbe { input }).await
}

/// Discovery with a probe of the caller's; the seam of the tests.
pub(crate) async fn discover_with(
    input: &DiscoverInput,
    probe: &dyn CredentialProbe,
) -> Result<DbContext, DiscoverError> {
    let flow = Flow {
        input,
        probe,
        recorder: Recorder::default(),
    };
    flow.run().await
}

/// The real probe: psql, next to the server.
struct ExecutorProbe<'a> {
    input: &'a DiscoverInput,
}

#[async_trait]
impl CredentialProbe for ExecutorProbe<'_> {
    async fn identity(
        &self,
        place: Place<'_>,
        creds: &DbCreds,
    ) -> Result<ServerIdentity, ExecError> {
        // The executor's own login test takes this place as soon as it is there.
        let _ = (self.input, place, creds);
        Err(ExecError::ProgramMissing {
            program: PgProgram::Psql,
            looked_in: Vec::new(),
        })
    }
}
