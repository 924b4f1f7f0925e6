//! Find a PostgreSQL server wherever it runs, and run its client programs next to it.
//!
//! Data flows one way: a [`DiscoverInput`] becomes a [`DbContext`] by
//! [`discover_db_context`]; a context becomes a [`PgExecutor`] by [`open_executor`]; every
//! dump, restore and query runs through that executor. Nothing here prints, reads the
//! environment or looks at the clock: what is needed is passed in.

mod causes;
pub mod codes;
pub mod context;
pub mod creds;
pub mod discover;
pub mod env;
pub mod executor;
pub mod native;
pub mod query;
pub mod runtime;
pub mod sandbox;
pub mod session;
pub mod sidecar;
pub mod target;
pub mod trail;

pub use context::{
    ComposeService, ContainerIdentity, CredentialSource, DbContext, DbMode, FieldSources,
    RunningServer, SeenPrograms, ServerIdentity,
};
pub use creds::{DbCreds, SslMode, TlsOptions};
pub use discover::{DiscoverError, DiscoverInput, ExplicitSettings, discover_db_context};
pub use env::EnvSnapshot;
pub use executor::{
    ConnectionSettings, ExecError, Invocation, PgExecutor, PgProgram, ProgramInfo, RunningProgram,
    Transport, open_executor,
};
pub use native::{NativeError, NativeRoute, NativeSession, NoRoute, Route};
pub use runtime::{ContainerRuntime, RuntimeError};
pub use sandbox::{Sandbox, SandboxError, SandboxPlace, SandboxSpec, reap_sandboxes};
pub use session::PsqlSession;
pub use sidecar::{NoSidecar, SidecarPgExecutor, open_sidecar, reap_sidecars};
pub use target::TargetSpec;
pub use trail::{Outcome, Trail, TrailEntry};
