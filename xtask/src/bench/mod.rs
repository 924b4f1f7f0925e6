//! `cargo xtask bench`: pgstow beside the stock tools, in turn on one server, outputs restored and
//! compared.

mod measure;
mod report;
mod rig;
mod run;

pub(crate) use run::run;
