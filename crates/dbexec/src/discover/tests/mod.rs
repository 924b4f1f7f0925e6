//! The flow of discovery over a fake engine and fake servers.

mod fakes;
mod flow;
