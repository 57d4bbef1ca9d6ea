//! Why a session could not be made or run.

use core::fmt;

use dunlin_artifact::{DType, FormatError, TensorId};
use dunlin_kernels::KernelError;

/// Why a session could not be made or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The artifact was refused.
    Format(FormatError),
    /// The arena has `given` bytes, the model needs `needed`.
    ArenaTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The arena does not start at a multiple of 16 bytes; use [`crate::Arena`].
    ArenaMisaligned,
    /// The program names a kernel (by number) that is not linked or not known to this version.
    MissingKernel(u8),
    /// The model has no input or output with this index.
    NoSuchTensor(usize),
    /// An input or output was viewed as `asked`, but holds `actual`.
    WrongType {
        /// The tensor's type.
        actual: DType,
        /// The type asked for.
        asked: DType,
    },
    /// An instruction's parameters cannot be decoded.
    BadInstruction,
    /// An instruction names a tensor that does not exist or has the wrong type or size.
    BadTensor(TensorId),
    /// Two operands of an instruction overlap in a way that the kernel does not allow.
    Overlap,
    /// A kernel refused its parameters.
    Kernel(KernelError),
    /// The program does more work than it declares.
    WorkExceeded,
}

impl From<FormatError> for RunError {
    fn from(error: FormatError) -> Self {
        RunError::Format(error)
    }
}

impl From<KernelError> for RunError {
    fn from(error: KernelError) -> Self {
        RunError::Kernel(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::ArenaTooSmall { needed, given } => {
                write!(f, "the arena has {given} bytes, the model needs {needed}")
            }
            Self::ArenaMisaligned => f.write_str("the arena is not aligned to 16 bytes"),
            Self::MissingKernel(code) => write!(f, "kernel {code} is not linked into this program"),
            Self::NoSuchTensor(index) => write!(f, "the model has no tensor {index} on this side"),
            Self::WrongType { actual, asked } => write!(f, "the tensor holds {actual}, not {asked}"),
            Self::BadInstruction => f.write_str("malformed instruction"),
            Self::BadTensor(id) => write!(f, "tensor {id} does not fit the instruction"),
            Self::Overlap => f.write_str("operands overlap"),
            Self::Kernel(error) => error.fmt(f),
            Self::WorkExceeded => f.write_str("the program does more work than it declares"),
        }
    }
}

impl core::error::Error for RunError {}
