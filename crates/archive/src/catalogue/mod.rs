//! What an archive says of every object but its rows, in a form that can be compared.

mod compare;
mod model;
mod reduce;

pub use compare::{CatalogueDifference, DifferenceKind};
pub(crate) use model::CatalogueBuilder;
pub use model::{Catalogue, CatalogueObject, read_catalogue};
