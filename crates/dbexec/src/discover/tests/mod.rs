//! Discovery over a fake engine and fake servers, and its pure parts.

mod fakes;
mod flow;
mod persisted;
mod variables;
