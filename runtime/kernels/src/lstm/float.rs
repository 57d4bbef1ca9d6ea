//! LSTM of float32.

use super::{GATES, LstmShape, LstmWeights};
use crate::KernelError;
use crate::float::{Clamp, logistic};
use crate::window::part;

/// Parameters of a float32 LSTM.
#[derive(Clone, Debug)]
pub struct LstmF32 {
    /// The shapes.
    pub shape: LstmShape,
    /// Bound of the cell state's magnitude; none unless positive.
    pub cell_clip: f32,
}

/// LSTM of float32. `hidden` and `cell` (`[batch, units]` each) are read and updated; untouched states hold zeros.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the shape, [`KernelError::Parameter`] when an extent is 0.
pub fn lstm_f32(
    p: &LstmF32,
    weights: &LstmWeights<'_, f32, f32>,
    input: &[f32],
    hidden: &mut [f32],
    cell: &mut [f32],
    output: &mut [f32],
) -> Result<(), KernelError> {
    p.shape.check(weights, input, hidden, cell, output)?;
    if !weights.recurrent_bias.is_empty() {
        return Err(KernelError::Shape);
    }
    p.shape.run(input, hidden, cell, output, |x, hidden, cell, out| {
        for (unit, (cell, out)) in cell.iter_mut().zip(out).enumerate() {
            let from_input = multiply(weights.input, unit, x);
            let from_hidden = multiply(weights.recurrent, unit, hidden);
            let bias = weights.bias.as_chunks::<GATES>().0.get(unit).copied().unwrap_or_default();
            let [input, forget, candidate, output] =
                core::array::from_fn(|gate| (from_input[gate] + bias[gate]) + from_hidden[gate]);

            *cell = logistic(forget) * *cell + logistic(input) * libm::tanhf(candidate);
            if p.cell_clip > 0.0 {
                *cell = Clamp { min: -p.cell_clip, max: p.cell_clip }.apply(*cell);
            }
            *out = libm::tanhf(*cell) * logistic(output);
        }
    });
    Ok(())
}

/// The products of `x` with a unit's rows of `weights`, one for each gate.
#[inline(always)]
fn multiply(weights: &[f32], unit: usize, x: &[f32]) -> [f32; GATES] {
    let row = |gate: usize| part(weights, (GATES * unit + gate) * x.len(), x.len());
    let mut sums = [0.0; GATES];
    let [a, b, c, d] = &mut sums;
    for ((((&x, wa), wb), wc), wd) in x.iter().zip(row(0)).zip(row(1)).zip(row(2)).zip(row(3)) {
        *a += x * wa;
        *b += x * wb;
        *c += x * wc;
        *d += x * wd;
    }
    sums
}
