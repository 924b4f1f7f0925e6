//! Restores whose rows go over several sessions of pgstow's own.
//!
//! pg_restore makes everything but the rows: it reads a table of contents without data, a small
//! file next to the server, so that it can also work with several jobs inside a container. The
//! source is read once, from its beginning to its end, through the comparison with what was
//! checked; its rows are decoded on a thread and dealt to sessions that each run the entries' own
//! `COPY`: a big table in pieces to several of them, others whole, side by side. Large objects are
//! made and filled in batches. What a session took is compared with what was read, per table.

mod choose;
mod dealer;
mod lane;
mod lists;
mod objects;
mod pieces;
mod run;
mod settings;
mod source;

pub(super) use choose::{Facts, RowsWay, choose, may_pay};
pub(super) use lane::number;
pub(super) use run::{prepare, route};
