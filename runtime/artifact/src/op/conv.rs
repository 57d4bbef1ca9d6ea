//! Integer layers with weights: convolutions and fully connected layers.

use serde::{Deserialize, Serialize};

use super::{Factor, Window2d};
use crate::TensorId;

/// `input scale * weight scale / output scale` for every output channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scales {
    /// One factor for all channels.
    Shared(Factor),
    /// One factor for each channel.
    PerChannel {
        /// int32 constant: the significands.
        multipliers: TensorId,
        /// int8 constant: the exponents.
        shifts: TensorId,
    },
}

/// Body of the integer convolutions: [`crate::Kernel::Conv2dI8`] and [`crate::Kernel::Conv2dI16`],
/// [`crate::Kernel::DepthwiseI8`] and [`crate::Kernel::DepthwiseI16`], [`crate::Kernel::TransposeConvI8`] and
/// [`crate::Kernel::TransposeConvI16`]. With int16 activations all zero points are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvInt {
    /// `[batch, rows, columns, channels]`.
    pub input: TensorId,
    /// int8 constant: `[out, rows, columns, in / groups]`, for a depthwise convolution `[1, rows, columns, out]`.
    pub weights: TensorId,
    /// Constant, `[out]`. int32 for int8 activations; the zero points of input and weights are in it already, save
    /// for a transposed convolution. For int16 activations int64, or for a plain convolution int32, which then makes
    /// the accumulators 32 bits wide.
    pub bias: Option<TensorId>,
    /// `[batch, rows, columns, out]`.
    pub output: TensorId,
    /// The steps of the window.
    pub window: Window2d,
    /// From accumulator to output.
    pub scales: Scales,
    /// What padding reads as.
    pub input_zero_point: i8,
    /// Other than 0 only in models that were uint8.
    pub weights_zero_point: i8,
    /// Added to the scaled accumulator.
    pub output_zero_point: i8,
    /// Smallest output.
    pub min: i16,
    /// Largest output.
    pub max: i16,
}

/// Body of [`crate::Kernel::FullyConnectedI8`] and [`crate::Kernel::FullyConnectedI16`]. With int16 activations all
/// zero points are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullyConnectedInt {
    /// Vectors one behind the other, in any shape.
    pub input: TensorId,
    /// int8 constant, `[out, in]`.
    pub weights: TensorId,
    /// Constant, `[out]`. int32 for int8 activations; the zero points of input and weights are in it already. int64
    /// for int16 activations, or int32, which then makes the accumulators 32 bits wide.
    pub bias: Option<TensorId>,
    /// As many vectors of `out` elements, in any shape.
    pub output: TensorId,
    /// From accumulator to output.
    pub scales: Scales,
    /// Usually 0.
    pub weights_zero_point: i8,
    /// Added to the scaled accumulator.
    pub output_zero_point: i8,
    /// Smallest output.
    pub min: i16,
    /// Largest output.
    pub max: i16,
}
