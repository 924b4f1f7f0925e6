//! One file for each verb: settings and session in, exit code out.

pub(crate) mod backup;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod discover;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod list;
pub(crate) mod prove;
pub(crate) mod prune;
pub(crate) mod restore;
pub(crate) mod rollback;
pub(crate) mod show;
pub(crate) mod verify;
