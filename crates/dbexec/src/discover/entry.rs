//! The entry points of discovery.

use async_trait::async_trait;

use super::{
    DiscoverError, DiscoverInput, Found,
    all::all_with,
    credentials::{CredentialProbe, Place},
    flow::Flow,
    recorder::Recorder,
};
use crate::{
    DbContext, DbCreds, ExecError, ServerIdentity, Trail,
    executor::probe::{self, server_identity},
};

/// Finds one server with credentials that work.
///
/// # Errors
/// See [`DiscoverError`]; each carries the trail.
#[tracing::instrument(name = "discover", skip_all)]
pub async fn discover_db_context(input: &DiscoverInput) -> Result<DbContext, DiscoverError> {
    discover_with(input, &ExecutorProbe { input }).await
}

/// Finds every server that can be seen, with tested credentials or the reason why there are none.
/// Explicit settings other than the image pattern have no part in it.
#[tracing::instrument(name = "discover_all", skip_all)]
pub async fn discover_all(input: &DiscoverInput) -> (Vec<Found>, Trail) {
    all_with(input, &ExecutorProbe { input }).await
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
        let settings = &self.input.settings;
        match place {
            Place::Container(identity) => {
                let runtime = self.input.runtime.as_ref().map_err(|_| {
                    // Not reached: a container is known only where the engine answered.
                    ExecError::ContainerChanged {
                        name: identity.name.clone(),
                        id: identity.id.clone(),
                        found: "no container engine answers any more".to_owned(),
                    }
                })?;
                server_identity(&probe::Place::Container(runtime, identity), creds, settings).await
            }
            Place::Host => {
                let host = probe::Place::Host(&self.input.host_programs);
                server_identity(&host, creds, settings).await
            }
        }
    }
}
