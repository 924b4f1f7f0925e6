//! Renderers: the same events and values as terminal, JSON, tables and metrics.

pub(crate) mod events;
pub(crate) mod metrics;
pub(crate) mod tables;
pub(crate) mod text;
