//! Restore: plan (nothing is touched), then fill a new database or an existing one, in phases that
//! each know the name of the database they work on. Staging with a swap is a later caller of the
//! same phases.

mod apply;
mod check;
mod count;
mod create;
mod facts;
mod fill;
mod plan;
mod preflight;
mod psql;
mod roles;
mod source;
mod target;

pub use apply::restore;
pub use plan::plan_restore;

pub(crate) use apply::carry_out;
pub(crate) use create::{drop as drop_database, oid as database_oid};
pub(crate) use fill::{checked_stored, plain_stream, upload_stored};
pub(crate) use plan::{PlannedWork, role_statements};
pub(crate) use psql::run as run_script;
pub(crate) use source::{Source, SourceFormat, chosen, of_backup as source_of_backup};
