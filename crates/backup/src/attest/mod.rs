//! Attestations: what a source held, read in the dump's own snapshot, kept in the manifest so
//! that every later copy can be compared with it row for row.

mod budget;
mod compare;
mod contents;
mod leader;
mod matched;
mod model;
mod server;
mod session;
mod settings;
mod settle;
mod text;

pub use model::{Attestation, AttestedLargeObjects, AttestedSequence, AttestedTable, TableScope};

pub(crate) use budget::Budget;
pub(crate) use compare::differences;
pub(crate) use contents::{Contents, Wanted};
pub(crate) use leader::Leader;
pub(crate) use matched::Matched;
pub(crate) use session::{Attested, Attesting};
pub(crate) use settings::{ServerSetting, choose as choose_settings};
pub(crate) use settle::{settle, settle_unread};
pub(crate) use text::{
    deserialize as own_name, shared::deserialize as shared_name, without_tables,
};
