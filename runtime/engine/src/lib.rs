//! The Dunlin runtime: runs a compiled model in memory that the caller owns.
//!
//! No std, no allocation, no unsafe code, and no panic whatever the artifact's bytes. Only the kernels that a
//! model names are linked: [`model!`] reads the list from the artifact at compile time.
//!
//! ```text
//! dunlin_runtime::model!(kws, "kws.dunlin");
//!
//! let mut arena = kws::Arena::new();
//! let mut session = kws::session(&mut arena)?;
//! session.input_mut::<i8>(0)?.copy_from_slice(&samples);
//! session.run()?;
//! let scores: &[i8] = session.output(0)?;
//! ```
#![no_std]

mod arena;
mod context;
mod dispatch;
mod error;
mod golden;
mod macros;
mod ops;
mod session;

pub use arena::{Aligned, Arena};
pub use dunlin_artifact as artifact;
pub use dunlin_artifact::{Artifact, DType, FormatError, Kernel, Tensor};
pub use error::RunError;
pub use golden::{Mismatch, verify_golden};
pub use session::{ALL_KERNELS, Element, Session, Step};
