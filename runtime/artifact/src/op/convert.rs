//! Changes of scale and of element type. The types stand in the tensor table.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::Quantize`] (float32 to int8, uint8 or int16) and [`crate::Kernel::Dequantize`] (int8, uint8
/// or int16 to float32).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantize {
    /// Source.
    pub input: TensorId,
    /// Result, with as many elements.
    pub output: TensorId,
    /// Scale of the quantized side.
    pub scale: f32,
    /// Zero point of the quantized side.
    pub zero_point: i32,
}

/// Body of [`crate::Kernel::Requantize`]: int8, int16 or int32 to int8, int16 or int32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requantize {
    /// Source.
    pub input: TensorId,
    /// Result, with as many elements.
    pub output: TensorId,
    /// Input scale / output scale.
    pub factor: Factor,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
}

/// Body of [`crate::Kernel::Cast`]: any two of int8, uint8, int16, int32, uint32, int64, float32 and bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// Source.
    pub input: TensorId,
    /// Result, with as many elements.
    pub output: TensorId,
}
