//! Sessions of pgstow's own with the server: raw COPY rows at the speed of the wire.
//!
//! A thin client over the codec of `postgres-protocol` (ADR 0010). Programs next to the server stay
//! the way for everything that PostgreSQL's own tools do; these sessions only move rows and ask
//! short questions, and only to a server that was proven to be the discovered one.

mod cancel;
mod container_socket;
mod copy_in;
mod copy_out;
mod dial;
mod error;
pub(crate) mod find;
mod login;
mod message;
mod quote;
mod route;
mod session;
mod stream;
mod tls;
mod wire;

pub use cancel::Canceller;
pub use copy_in::CopyIn;
pub use copy_out::CopyOut;
pub use error::NativeError;
pub use route::{NativeRoute, NoRoute, Route};
pub use session::{NativeSession, Parameter};
