//! LSTM.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// The tensors of an LSTM. `time, batch` stands for `batch, time` unless time is major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LstmTensors {
    /// `[time, batch, inputs]`.
    pub input: TensorId,
    /// `[units, 4, inputs]`: for each unit the rows of the gates input, forget, cell, output.
    pub input_weights: TensorId,
    /// `[units, 4, units]`.
    pub recurrent_weights: TensorId,
    /// `[units, 4]`; with int8 activations the input's zero point is folded in. int32, int64 or float32 for int8, int16
    /// or float32 activations.
    pub bias: TensorId,
    /// `[units, 4]`: what folding in the hidden state's zero point gives, if that is not 0. int8 activations only.
    pub recurrent_bias: Option<TensorId>,
    /// State `[batch, units]`, of the activations' type.
    pub hidden: TensorId,
    /// State `[batch, units]`, int16 or float32.
    pub cell: TensorId,
    /// `[time, batch, units]`.
    pub output: TensorId,
    /// Input and output are `[time, batch, _]` rather than `[batch, time, _]`.
    pub time_major: bool,
}

/// Body of [`crate::Kernel::LstmI8`] and [`crate::Kernel::LstmI16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LstmInt {
    /// The tensors.
    pub tensors: LstmTensors,
    /// Of each gate: input scale * weight scale * 2^12.
    pub input_factors: [Factor; 4],
    /// Of each gate: hidden state's scale * weight scale * 2^12.
    pub recurrent_factors: [Factor; 4],
    /// Forget gate * cell state to cell state.
    pub forget: Factor,
    /// Input gate * cell gate to cell state.
    pub update: Factor,
    /// Output gate * tanh(cell state) to hidden state.
    pub output: Factor,
    /// Zero point of the hidden state.
    pub hidden_zero_point: i32,
    /// Bound of the cell state's magnitude.
    pub cell_clip: Option<i16>,
    /// Cell state to the argument of tanh in units of 1/12288: `(cell * multiplier) >> shift`, rounded.
    pub tanh_multiplier: i32,
    /// See `tanh_multiplier`; 0 ..= 31.
    pub tanh_shift: u8,
}

/// Body of [`crate::Kernel::LstmF32`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LstmF32 {
    /// The tensors.
    pub tensors: LstmTensors,
    /// Bound of the cell state's magnitude; none unless positive.
    pub cell_clip: f32,
}
