//! Why a model could not be compiled.

use thiserror::Error;

/// Why a model could not be compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The file is of no known format.
    #[error("not a model file that Dunlin can read; supported: .tflite")]
    UnknownFormat,
    /// The file is damaged or inconsistent.
    #[error("malformed model: {0}")]
    Malformed(String),
    /// An operator cannot be compiled.
    #[error("operator {index} ({operator}) [{tensors}]: {reason}")]
    Unsupported {
        /// Position in the source file.
        index: usize,
        /// The operator's name.
        operator: String,
        /// Types and shapes of its inputs and outputs.
        tensors: String,
        /// What is wrong and what would work.
        reason: String,
    },
    /// The model as a whole has a property that is not supported.
    #[error("{0}")]
    Model(String),
    /// The model cannot be calibrated with these samples, or not monitored in the way asked for.
    #[error("{0}")]
    Calibration(String),
    /// The compiled program does not run: an error of the compiler.
    #[error("internal error: the compiled program fails: {0}")]
    Internal(String),
}

/// Why one operator cannot be lowered; becomes [`CompileError::Unsupported`] together with the operator.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

impl Unsupported {
    /// An error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Unsupported(reason.into())
    }
}

/// Shorthand: `Err(Unsupported::new(reason))`.
pub(crate) fn unsupported<T>(reason: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported::new(reason))
}
