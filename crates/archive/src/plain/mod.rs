//! Plain dumps: scripts for psql. Read without running them: are they whole, and do they hold
//! nothing but what pg_dump writes?

mod check;
mod lexer;
mod reader;

pub use check::{PlainKind, PlainSummary, check_plain};
pub use reader::{WithoutRanges, open_plain};
