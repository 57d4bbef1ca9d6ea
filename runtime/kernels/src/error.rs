//! The error type shared by all kernels.

use core::fmt;

/// Why a kernel refused to run. Nothing has been written to the output when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// A slice's length does not match the geometry that the parameters describe.
    Shape,
    /// A parameter is outside its range (a zero stride, a shift of more than 31 bits, …).
    Parameter,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KernelError::Shape => "buffer length does not match the tensor shapes",
            KernelError::Parameter => "operator parameter out of range",
        })
    }
}

impl core::error::Error for KernelError {}
