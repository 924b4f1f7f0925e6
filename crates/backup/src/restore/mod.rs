//! Restore: plan (nothing is touched), then fill a new database or an existing one, in phases that
//! each know the name of the database they work on. Staging with a swap is a later caller of the
//! same phases.

mod analyze;
mod apply;
mod check;
mod count;
mod create;
mod early;
mod extensions;
mod facts;
mod feed;
mod fill;
mod messages;
mod needs;
mod plan;
mod preflight;
mod psql;
mod roles;
mod source;
mod target;

pub use apply::restore;
pub use plan::plan_restore;

pub(crate) use feed::{checked_stored, plain_stream, upload_stored};
pub(crate) use plan::PlannedWork;
pub(crate) use source::{Source, SourceFormat, of_backup as source_of_backup};
