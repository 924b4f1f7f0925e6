//! Restore: plan (nothing is touched), then fill a new database or an existing one, in phases that
//! each know the name of the database they work on. A restore that replaces a database fills a
//! staging database in the same phases and then exchanges the two names, with a journal.

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
mod journal;
mod live;
mod messages;
mod needs;
mod parallel;
mod partial;
mod plan;
mod preflight;
mod psql;
mod roles;
mod rollback;
mod source;
mod staged;
mod statistics;
mod sums;
mod swap;
mod target;

pub use apply::restore;
pub use journal::{
    KeptDatabase, RestoreJournal, RestoreStep, kept_databases, replacing_restores,
    unfinished_restores,
};
pub use live::LiveSession;
pub use partial::database_for_part;
pub use plan::plan_restore;

pub(crate) use apply::carry_out;
pub(crate) use check::catalogue;
pub(crate) use create::{drop as drop_database, oid as database_oid};
pub(crate) use feed::{checked_stored, plain_stream, upload_stored};
pub(crate) use plan::{PlannedWork, role_statements};
pub(crate) use psql::run as run_script;
pub(crate) use rollback::refuse_unfinished;
pub use rollback::{drop_kept, resume, rollback};
pub use source::database_to_restore;
pub(crate) use source::{Source, SourceFormat, chosen, of_backup as source_of_backup};
