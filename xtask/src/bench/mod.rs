//! `cargo xtask bench`: pgstow beside the stock tools, in turn on one server, outputs restored and
//! compared.

mod contenders;
mod cpu;
mod dumps;
mod extras;
mod measure;
mod options;
mod reading;
mod report;
mod restores;
mod rig;
mod run;
mod writing;

pub(crate) use reading::run as run_reading;
pub(crate) use run::run;
