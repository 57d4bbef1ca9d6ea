//! Unary operators on int16; those on 8 bits are tables ([`super::Lut8`]).

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::UnaryI16`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnaryI16 {
    /// Source.
    pub input: TensorId,
    /// Destination with as many elements.
    pub output: TensorId,
    /// What is done with every element.
    pub function: FunctionI16,
}

/// A function of int16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FunctionI16 {
    /// Leaky ReLU; ReLU with a `negative` factor of 0.
    LeakyRelu {
        /// Zero point of the source.
        input_zero_point: i32,
        /// Zero point of the destination.
        output_zero_point: i32,
        /// Input scale / output scale.
        positive: Factor,
        /// |alpha| * input scale / output scale.
        negative: Factor,
        /// Whether alpha is negative.
        negate: bool,
    },
    /// Limits: ReLU6.
    Clamp {
        /// Smallest output.
        min: i16,
        /// Largest output.
        max: i16,
    },
    /// Absolute value; input scale / output scale.
    Abs(Factor),
    /// Reciprocal square root; 1 / (sqrt(input scale) * output scale).
    Rsqrt(Factor),
}

/// Body of [`crate::Kernel::SigmoidI16`]: logistic function and hyperbolic tangent. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigmoidI16 {
    /// Source, zero point 0.
    pub input: TensorId,
    /// Destination with as many elements; scale 1/32768 and zero point 0.
    pub output: TensorId,
    /// The hyperbolic tangent instead of the logistic function.
    pub tanh: bool,
    /// `multiplier * 2^-shift` = input scale * 3 * 4096.
    pub multiplier: i32,
    /// At most 31.
    pub shift: u8,
}
