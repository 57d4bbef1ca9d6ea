//! Telemetry in the database.

pub(crate) mod batch;
pub(crate) mod process;
pub(crate) mod query;
pub(crate) mod retention;
pub(crate) mod rollup;
mod sequences;
mod sql;
