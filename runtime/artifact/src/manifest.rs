//! What the file says about itself.

use serde::{Deserialize, Serialize};

/// Descriptive facts. Nothing that the runtime needs to run the program is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// The model's name, as given to the compiler.
    #[serde(borrow)]
    pub name: &'a str,
    /// Compiler and version that wrote the file.
    #[serde(borrow)]
    pub producer: &'a str,
    /// The target that weights are packed for; `generic` runs everywhere.
    #[serde(borrow)]
    pub target: &'a str,
    /// Format of the source file, for example `tflite`.
    #[serde(borrow)]
    pub source_format: &'a str,
    /// SHA-256 of the source file.
    pub source_digest: [u8; 32],
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// The sum of the bytes that are live at the busiest instruction: no plan can have a smaller arena.
    pub arena_bound: u32,
    /// Names of the inputs, then of the outputs, separated by line feeds.
    #[serde(borrow)]
    pub io_names: &'a str,
}
