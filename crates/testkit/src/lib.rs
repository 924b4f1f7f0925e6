//! What the tests of pgstow stand on: a container engine, images of several PostgreSQL majors,
//! servers in containers, schemas, proxies that cut, small disks and a hermetic command line.
//!
//! Everything is blocking and made of real parts. A missing engine is an error, never a skip.

pub mod cli;
pub mod container;
pub mod disk;
pub mod engine;
pub mod images;
pub mod process;
pub mod proxy;
pub mod schema;
pub mod sets;
pub mod tls;

pub use cli::{Cli, Run};
pub use container::{PgContainer, PgContainerBuilder};
