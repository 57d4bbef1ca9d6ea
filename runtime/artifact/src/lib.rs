//! The Dunlin artifact: one file that holds a compiled model.
//!
//! An artifact is read in place from flash, a memory map or an aligned buffer. [`Artifact::parse`] validates it
//! once; afterwards no accessor can fail or panic, whatever the bytes. The byte layout is described in
//! `FORMAT.md` beside this crate.
//!
//! ```
//! # fn load(bytes: &[u8]) -> Result<(), dunlin_artifact::FormatError> {
//! let artifact = dunlin_artifact::Artifact::parse(bytes)?;
//! for tensor in artifact.inputs() {
//!     let shape = tensor.shape(); // for example [1, 49, 10, 1]
//! #   let _ = shape;
//! }
//! # Ok(())
//! # }
//! ```
#![no_std]
#[cfg(feature = "std")]
extern crate std;

pub mod baseline;
mod digest;
mod dtype;
mod error;
mod golden;
mod kernel;
pub mod layout;
pub mod limits;
mod manifest;
pub mod op;
mod reader;
mod tensor;
#[cfg(feature = "std")]
pub mod writer;

pub use baseline::{Baseline, monitored_counters, monitored_features};
pub use digest::Digester;
pub use dtype::DType;
pub use error::FormatError;
pub use golden::{Golden, GoldenInput, Pattern};
pub use kernel::Kernel;
pub use manifest::Manifest;
pub use reader::{Artifact, Instruction, StateInit, arena_len, kernel_set};
pub use tensor::{MAX_RANK, Place, Tensor, TensorId};
