//! The Dunlin compiler: from a trained model to an artifact.
//!
//! ```text
//! import ─▶ graph ─▶ passes ─▶ lower ─▶ plan ─▶ assemble
//! ```
//! [`import`] reads a file into a format-neutral [`graph`]; `passes` rewrite it; `lower` turns every node into
//! instructions with all constants ready (multipliers, tables, folded biases); `plan` lays out the arena;
//! `assemble` writes the file and computes its golden vectors with the runtime itself. [`calibrate()`] runs a finished
//! artifact over sample inputs and adds the baseline that devices count against.

mod assemble;
pub mod calibrate;
mod compile;
mod error;
mod flexbuffer;
pub mod graph;
pub mod import;
mod lower;
mod lut;
mod passes;
pub mod plan;
mod program;
mod quantize;
mod report;
mod resize;

pub use assemble::{AlignedBytes, Bounds};
pub use calibrate::{Calibration, calibrate};
pub use compile::{Compiled, Options, Step, Target, compile, compile_watched, source_digest};
pub use error::{CompileError, Unsupported};
pub use lower::supported_operators;
pub use report::{OperatorReport, Report};
