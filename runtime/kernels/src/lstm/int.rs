//! Quantized LSTM.

use super::{GATES, LstmShape, LstmWeights};
use crate::KernelError;
use crate::conv::Activation;
use crate::fixed::Multiplier;
use crate::unary_i16::SigmoidI16;

/// Takes the sums of one gate to its pre-activation in Q3.12.
#[derive(Clone, Copy, Debug, Default)]
pub struct GateScales {
    /// Input scale * scale of the input weights * 2^12.
    pub input: Multiplier,
    /// Hidden state's scale * scale of the recurrent weights * 2^12.
    pub recurrent: Multiplier,
}

/// Parameters of a quantized LSTM: weights int8 (zero point 0), activated gates int16 in Q0.15, cell state int16 with
/// zero point 0.
#[derive(Clone, Debug)]
pub struct LstmInt {
    /// The shapes.
    pub shape: LstmShape,
    /// Scales of the gates in the order input, forget, cell, output.
    pub gates: [GateScales; GATES],
    /// Forget gate * cell state to cell state: 2^-15.
    pub forget: Multiplier,
    /// Input gate * cell gate to cell state: 2^-30 / cell scale.
    pub update: Multiplier,
    /// Bound of the cell state's magnitude.
    pub cell_clip: Option<i16>,
    /// Cell state to the argument of its hyperbolic tangent.
    pub cell_tanh: SigmoidI16,
    /// Output gate * tanh(cell state) to hidden state: 2^-30 / hidden state's scale.
    pub output: Multiplier,
    /// Zero point of the hidden state and the output.
    pub hidden_zero_point: i32,
}

/// LSTM with int8 activations. `hidden` (`[batch, units]`) and `cell` (`[batch, units]`) are read and updated; an
/// untouched hidden state holds its zero point, an untouched cell state zeros.
///
/// `weights.bias` has the zero point of the input folded in, `weights.recurrent_bias` (from 0) that of the hidden state:
/// see [`fold_bias`](crate::conv::fold_bias).
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the shape, [`KernelError::Parameter`] when an extent is 0 or an
/// exponent out of range.
pub fn lstm_i8(
    p: &LstmInt,
    weights: &LstmWeights<'_, i8, i32>,
    input: &[i8],
    hidden: &mut [i8],
    cell: &mut [i16],
    output: &mut [i8],
) -> Result<(), KernelError> {
    lstm(p, weights, input, hidden, cell, output)
}

/// LSTM with int16 activations, whose zero points are 0; otherwise as [`lstm_i8`]. Gates accumulate in 64 bits and are
/// rounded once.
///
/// # Errors
/// As [`lstm_i8`].
pub fn lstm_i16(
    p: &LstmInt,
    weights: &LstmWeights<'_, i8, i64>,
    input: &[i16],
    hidden: &mut [i16],
    cell: &mut [i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    lstm(p, weights, input, hidden, cell, output)
}

/// What differs between the types of activations.
trait Value: Activation {
    /// A sum times a factor, saturated to int16.
    fn scale(sum: Self::Sum, factor: Multiplier) -> i16;
    /// The nearest value.
    fn saturating_from(x: i32) -> Self;
}

impl Value for i8 {
    #[inline(always)]
    fn scale(sum: i32, factor: Multiplier) -> i16 {
        i16::saturating_from(factor.apply(sum))
    }
    #[inline(always)]
    fn saturating_from(x: i32) -> i8 {
        x.clamp(i32::from(i8::MIN), i32::from(i8::MAX)) as i8
    }
}

impl Value for i16 {
    #[inline(always)]
    fn scale(sum: i64, factor: Multiplier) -> i16 {
        i16::saturating_from(factor.apply_i64(sum))
    }
    #[inline(always)]
    fn saturating_from(x: i32) -> i16 {
        x.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    }
}

/// How to read the pre-activation of a gate: Q3.12.
const GATE_ARGUMENT: SigmoidI16 = SigmoidI16 { multiplier: 3, shift: 0 };

#[inline(always)]
fn lstm<T: Value>(
    p: &LstmInt,
    weights: &LstmWeights<'_, i8, T::Sum>,
    input: &[T],
    hidden: &mut [T],
    cell: &mut [i16],
    output: &mut [T],
) -> Result<(), KernelError> {
    p.shape.check(weights, input, hidden, cell, output)?;
    for gate in &p.gates {
        gate.input.check()?;
        gate.recurrent.check()?;
    }
    p.forget.check()?;
    p.update.check()?;
    p.output.check()?;
    p.shape.run(input, hidden, cell, output, |x, hidden, cell, out| {
        for (unit, (cell, out)) in cell.iter_mut().zip(out).enumerate() {
            let [input, forget, candidate, output] = p.gates(weights, unit, x, hidden);
            *cell = p.next_cell(*cell, input, forget, candidate);
            let scaled = p.output.apply(product(output, p.cell_tanh.tanh(*cell)));
            *out = T::saturating_from(scaled.wrapping_add(p.hidden_zero_point));
        }
    });
    Ok(())
}

impl LstmInt {
    /// The activated gates of a unit in Q0.15. Out of line: inlined, all of its constants would be kept on the stack
    /// from unit to unit.
    #[inline(never)]
    fn gates<T: Value>(
        &self,
        weights: &LstmWeights<'_, i8, T::Sum>,
        unit: usize,
        x: &[T],
        hidden: &[T],
    ) -> [i16; GATES] {
        let sums = |biases: &[T::Sum], weights: &[i8], x: &[T]| {
            let mut sums = biases.as_chunks::<GATES>().0.get(unit).copied().unwrap_or_default();
            let rows = weights.get(GATES * unit * x.len()..).unwrap_or_default();
            T::dot(&mut sums, x, 0, rows, x.len());
            sums
        };
        let from_input = sums(weights.bias, weights.input, x);
        let from_hidden = sums(weights.recurrent_bias, weights.recurrent, hidden);

        let [input, forget, candidate, output] = core::array::from_fn(|gate| {
            let GateScales { input, recurrent } = self.gates[gate];
            T::scale(from_input[gate], input).saturating_add(T::scale(from_hidden[gate], recurrent))
        });
        let sigmoid = |gate| GATE_ARGUMENT.logistic(gate);
        [sigmoid(input), sigmoid(forget), GATE_ARGUMENT.tanh(candidate), sigmoid(output)]
    }

    /// The cell state after a step.
    #[inline(always)]
    fn next_cell(&self, cell: i16, input: i16, forget: i16, candidate: i16) -> i16 {
        let kept = i16::saturating_from(self.forget.apply(product(forget, cell)));
        let added = i16::saturating_from(self.update.apply(product(input, candidate)));
        let cell = kept.saturating_add(added);
        match self.cell_clip {
            Some(clip) => cell.min(clip).max(clip.wrapping_neg()),
            None => cell,
        }
    }
}

#[inline(always)]
fn product(a: i16, b: i16) -> i32 {
    i32::from(a) * i32::from(b)
}
