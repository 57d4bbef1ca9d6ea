//! Normalization over the last axis.

use serde::{Deserialize, Serialize};

use crate::TensorId;

/// Body of [`crate::Kernel::L2NormI8`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2NormI8 {
    /// Source.
    pub input: TensorId,
    /// Destination of the same shape; scale 1/128 and zero point 0.
    pub output: TensorId,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// The model's tensors are uint8 (stored lowered by 128), which rounds differently.
    pub unsigned: bool,
}
