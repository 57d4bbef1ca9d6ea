//! The control plane: one binary that knows every device.
//!
//! One folder per domain ([`access`], …), each with its pure logic, its store (SQL) and its HTTP handlers in files of
//! their own. [`app::App`] is what they share; [`http`], [`db`] and [`config`] are what they stand on. A domain
//! reaches another through its public functions, never through its tables.

pub mod access;
pub mod app;
pub mod bus;
pub mod clock;
pub mod config;
pub mod db;
pub mod devices;
mod files;
pub mod http;
pub mod ids;
pub mod limits;
pub mod live;
pub mod models;
pub mod serve;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod time;
pub mod trust;
pub mod ui;

pub use app::App;
