//! The dump engine: pg_dump's table of contents, rows moved by sessions of our own side by side, a
//! stock archive.

mod attempt;
mod board;
mod choose;
mod emit;
mod encode;
mod facts;
mod mover;
mod objects;
mod plan;
mod program;
mod settings;
mod split;
mod statement;
mod watch;

pub(crate) use attempt::{Job, dump};
pub(crate) use choose::{Before, Size, may, movers, pays, processors, room_for_next};
pub use choose::{parallel_refusal, sessions_wanted};
pub(crate) use emit::{Failure, Target};
pub(crate) use mover::Stage;
pub(crate) use program::{Started, failure, start};
