//! LSTM (long short-term memory) over sequences, as in TensorFlow Lite Micro's `UNIDIRECTIONAL_SEQUENCE_LSTM`.
//!
//! ```text
//! gate[g] = sigmoid(W[g] x + bias[g] + R[g] hidden)        g = input, forget, cell (with tanh), output
//! cell    = gate[forget] * cell + gate[input] * gate[cell]
//! hidden  = gate[output] * tanh(cell)
//! ```
//! No peepholes, projection or layer normalization. The two states belong to the caller and are kept from call to
//! call. Each step's hidden state is the output's row, so that no scratch memory is needed.

mod float;
mod int;

pub use float::{LstmF32, lstm_f32};
pub use int::{GateScales, LstmInt, lstm_i8, lstm_i16};

use crate::KernelError;
use crate::window::{part, product};

/// The number of gates.
pub const GATES: usize = 4;

/// Shapes of a sequence and its LSTM.
#[derive(Clone, Debug)]
pub struct LstmShape {
    /// Sequences; at least 1.
    pub batch: usize,
    /// Steps of a sequence; at least 1.
    pub steps: usize,
    /// Elements of an input vector; at least 1.
    pub inputs: usize,
    /// Elements of the hidden and of the cell state; at least 1.
    pub units: usize,
    /// Input and output are `[steps, batch, _]` rather than `[batch, steps, _]`.
    pub time_major: bool,
}

/// The weights of the gates. For every unit the rows of its gates follow one another, in the order input, forget,
/// cell, output.
#[derive(Clone, Copy, Debug)]
pub struct LstmWeights<'a, W, B> {
    /// `[units, GATES, inputs]`.
    pub input: &'a [W],
    /// `[units, GATES, units]`.
    pub recurrent: &'a [W],
    /// `[units, GATES]`.
    pub bias: &'a [B],
    /// `[units, GATES]`, or empty for zeros: only for int8, see [`lstm_i8`].
    pub recurrent_bias: &'a [B],
}

impl LstmShape {
    /// Checks all slices' lengths.
    fn check<A, C, W, B>(
        &self,
        weights: &LstmWeights<'_, W, B>,
        input: &[A],
        hidden: &[A],
        cell: &[C],
        output: &[A],
    ) -> Result<(), KernelError> {
        let LstmShape { batch, steps, inputs, units, .. } = *self;
        if batch == 0 || steps == 0 || inputs == 0 || units == 0 {
            return Err(KernelError::Parameter);
        }
        let states = product(&[batch, units]);
        let rows = product(&[GATES, units]);
        let fits = product(&[batch, steps, inputs]) == Some(input.len())
            && product(&[batch, steps, units]) == Some(output.len())
            && states == Some(hidden.len())
            && states == Some(cell.len())
            && product(&[GATES, units, inputs]) == Some(weights.input.len())
            && product(&[GATES, units, units]) == Some(weights.recurrent.len())
            && rows == Some(weights.bias.len())
            && (weights.recurrent_bias.is_empty() || rows == Some(weights.recurrent_bias.len()));
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }

    /// Walks through all sequences: `step` gets an input vector, the hidden state before, the cell state, and where to
    /// write the hidden state after. The slices have been checked.
    #[inline(always)]
    fn run<A: Copy, C>(
        &self,
        input: &[A],
        hidden: &mut [A],
        cell: &mut [C],
        output: &mut [A],
        mut step: impl FnMut(&[A], &[A], &mut [C], &mut [A]),
    ) {
        let LstmShape { inputs, units, .. } = *self;
        let states = hidden.chunks_exact_mut(units.max(1)).zip(cell.chunks_exact_mut(units.max(1)));
        for (sequence, (hidden, cell)) in states.enumerate() {
            for time in 0..self.steps {
                let row =
                    if self.time_major { time * self.batch + sequence } else { sequence * self.steps + time };
                let Some(out) = output.get_mut(row * units..(row + 1) * units) else { return };
                step(part(input, row * inputs, inputs), hidden, cell, out);
                for (state, &new) in hidden.iter_mut().zip(out.iter()) {
                    *state = new;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
