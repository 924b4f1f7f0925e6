//! Which entries of a table of contents a partial restore takes.

mod graph;
mod pattern;
mod selection;

pub use pattern::{Pattern, PatternError};
pub use selection::{Selected, Selection, list_file, select};
