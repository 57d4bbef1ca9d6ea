//! Models that the server compiles itself: a source comes in, waits, is compiled by one of the processes, and becomes a
//! version of its model.
//!
//! A process compiles one source at a time and holds a lease for it meanwhile. When it dies, another one begins again;
//! compiling twice gives the same artifact, and so the same version.

mod api;
mod job;
mod store;
#[cfg(test)]
mod tests;
mod worker;

pub(super) use api::{enqueue, router};
pub(super) use job::CompilationView;
pub use worker::run;

use object_store::path::Path;

/// Where a source is in the object store until it is compiled.
fn path(id: &str) -> Path {
    Path::from(format!("sources/{id}"))
}
