//! Softmax and log-softmax over the last axis.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::SoftmaxI8`], which may run in place, and of [`crate::Kernel::SoftmaxI8I16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftmaxI8 {
    /// Source.
    pub input: TensorId,
    /// Destination of the same shape; scale 1/256 and zero point -128, or 1/65536 and -32768 for int16.
    pub output: TensorId,
    /// beta * input scale * 2^26; its exponent is not negative.
    pub factor: Factor,
    /// Differences to the row's maximum below this one are negligible.
    pub diff_min: i32,
}

/// Body of [`crate::Kernel::LogSoftmaxI8`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSoftmaxI8 {
    /// Source.
    pub input: TensorId,
    /// Destination of the same shape; scale 1/16 and zero point 127.
    pub output: TensorId,
    /// Input scale * 2^26; its exponent is not negative.
    pub factor: Factor,
    /// The inverse of `factor`.
    pub inverse: Factor,
    /// Differences to the row's maximum below this one are negligible.
    pub diff_min: i32,
}

/// Body of [`crate::Kernel::SoftmaxI16`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftmaxI16 {
    /// Source, zero point 0.
    pub input: TensorId,
    /// Destination of the same shape; scale 1/32768 and zero point 0.
    pub output: TensorId,
    /// beta * input scale * 65535 / 10.
    pub factor: Factor,
}
