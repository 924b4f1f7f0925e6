//! `cargo xtask bench`: pgstow beside the stock tools, in turn on one server, outputs restored and
//! compared.

mod measure;
mod reading;
mod report;
mod rig;
mod run;
mod writing;

pub(crate) use reading::run as run_reading;
pub(crate) use run::run;
