//! A copy of a database compared with what was attested: [`observe()`] dumps the copy through the
//! same reader that read the backup, [`compare`] is a function of the two.

mod differ;
mod expected;
mod observe;
mod observed;
mod queries;

pub use differ::{CatalogueState, Comparison, Difference, compare};
pub use expected::{CatalogueRule, Expected, ExpectedFrom, ExpectedTable, WrittenBy};
pub use observe::observe;
pub use observed::{Observed, ObservedTable, Wanted};
