//! Importers: one folder per format.

pub mod tflite;

use crate::CompileError;
use crate::graph::Graph;

/// A model read from a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model.
    pub graph: Graph,
    /// The format's name.
    pub format: &'static str,
}

/// Reads a model of any known format.
pub fn import(bytes: &[u8]) -> Result<Imported, CompileError> {
    if bytes.get(4..8) == Some(b"TFL3") {
        return Ok(Imported { graph: tflite::import(bytes)?, format: "tflite" });
    }
    Err(CompileError::UnknownFormat)
}
