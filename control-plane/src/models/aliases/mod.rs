//! Aliases: names such as `champion` for versions of a model, which may move from one version to another.
//!
//! Whoever assigns a version by its alias gets the version that it names at that moment: moving an alias changes nothing
//! on devices.

mod api;
mod store;
#[cfg(test)]
mod tests;

pub(super) use api::router;
pub(super) use store::{Alias, of_model};
