//! What the whole-system tests share: reference data, running a model file from end to end, comparing, reporting.
//!
//! The tests themselves are in `tests/`, one file per kind of reference:
//! - `models.rs`: whole models with reference outputs: the repository's own, and a larger set where it exists;
//! - `layers.rs`: intermediate tensors and single-operator files of the larger set;
//! - `oracle.rs`: single-operator models that `tests/oracle/generate.py` makes.

pub mod array;
pub mod compare;
pub mod oracle;
pub mod reference;
pub mod report;
pub mod runner;

pub use array::Array;
pub use compare::{Difference, Tolerance};
pub use runner::Runner;
