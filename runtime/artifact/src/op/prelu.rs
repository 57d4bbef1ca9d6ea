//! PReLU.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::PreluI8`] and [`crate::Kernel::PreluI16`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prelu {
    /// Source.
    pub input: TensorId,
    /// int8 factors.
    pub alpha: TensorId,
    /// Destination with as many elements as the source.
    pub output: TensorId,
    /// The source seen with four axes.
    pub shape: [u32; 4],
    /// Alpha seen with four axes, each that of `shape` or 1.
    pub alpha_shape: [u32; 4],
    /// Zero point of the source.
    pub input_zero_point: i32,
    /// Zero point of alpha.
    pub alpha_zero_point: i32,
    /// Zero point of the destination.
    pub output_zero_point: i32,
    /// Input scale / output scale.
    pub positive: Factor,
    /// Input scale * alpha scale / output scale.
    pub negative: Factor,
}
