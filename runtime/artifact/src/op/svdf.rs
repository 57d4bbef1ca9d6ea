//! SVDF.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// The tensors of an SVDF; `filters = units * rank`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvdfTensors {
    /// `[batch, inputs]`, int8 or float32.
    pub input: TensorId,
    /// `[filters, inputs]`.
    pub feature_weights: TensorId,
    /// `[filters, memory]`, the oldest step first; int8, int16 or float32.
    pub time_weights: TensorId,
    /// `[units]`, int32 or float32.
    pub bias: Option<TensorId>,
    /// State `[batch, filters, memory]`, of the time weights' type.
    pub state: TensorId,
    /// `[batch, units]`.
    pub output: TensorId,
    /// Filters of a unit.
    pub rank: u32,
}

/// Body of [`crate::Kernel::SvdfI8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvdfI8 {
    /// The tensors.
    pub tensors: SvdfTensors,
    /// `[filters]`, int32: what folding in the input's zero point gives, if that is not 0.
    pub feature_bias: Option<TensorId>,
    /// Zero point of the state.
    pub state_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Input scale * feature weight scale / state scale.
    pub feature: Factor,
    /// State scale * time weight scale / output scale.
    pub time: Factor,
}

/// Body of [`crate::Kernel::SvdfF32`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SvdfF32 {
    /// The tensors.
    pub tensors: SvdfTensors,
    /// Smallest output.
    pub min: f32,
    /// Largest output.
    pub max: f32,
}
