//! Reductions over axes.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::MeanI8`] and [`crate::Kernel::MeanI16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mean {
    /// Source.
    pub input: TensorId,
    /// Result, of the input's type; its shape is that of the input with the reduced axes left out or 1.
    pub output: TensorId,
    /// Bit `i` is set when axis `i` is reduced.
    pub reduced: u8,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Input scale / output scale, for a mean divided by the number of elements that make one result.
    pub factor: Factor,
}

/// What [`Reduce`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReduceOp {
    /// Sum; not for int8 and int16.
    Sum,
    /// Arithmetic mean; not for int8 and int16.
    Mean,
    /// Smallest element.
    Minimum,
    /// Largest element.
    Maximum,
}

/// Body of [`crate::Kernel::ReduceF32`], [`crate::Kernel::ReduceI32`], [`crate::Kernel::ReduceMinMaxI8`] and
/// [`crate::Kernel::ReduceMinMaxI16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// Source.
    pub input: TensorId,
    /// Result, of the input's type; its shape is that of the input with the reduced axes left out or 1.
    pub output: TensorId,
    /// Bit `i` is set when axis `i` is reduced.
    pub reduced: u8,
    /// What to compute.
    pub op: ReduceOp,
}

/// Body of [`crate::Kernel::ArgMinMaxI8`] and [`crate::Kernel::ArgMinMaxF32`]: the index of the first extreme element
/// along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgMinMax {
    /// Source.
    pub input: TensorId,
    /// int32 or int64, the input's shape without the axis.
    pub output: TensorId,
    /// The axis.
    pub axis: u8,
    /// Whether the largest element is wanted.
    pub maximum: bool,
}
