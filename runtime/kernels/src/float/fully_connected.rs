//! Fully connected layers.

use super::conv::{BLOCK, extend_sums};
use super::{Clamp, Weight, bias_at, rows_of};
use crate::KernelError;
use crate::window::product;

/// Parameters of a fully connected layer.
#[derive(Clone, Debug)]
pub struct FullyConnected {
    /// Input vectors, each of which gives one output vector; at least 1.
    pub rows: usize,
    /// Elements of an input vector; at least 1.
    pub inputs: usize,
    /// Elements of an output vector; at least 1.
    pub outputs: usize,
    /// The fused activation.
    pub clamp: Clamp,
}

impl FullyConnected {
    /// Checks the slices' lengths.
    pub(crate) fn check(
        &self,
        input: usize,
        weights: usize,
        bias: Option<&[f32]>,
        output: usize,
    ) -> Result<(), KernelError> {
        if self.rows == 0 || self.inputs == 0 || self.outputs == 0 {
            return Err(KernelError::Parameter);
        }
        let fits = product(&[self.rows, self.inputs]) == Some(input)
            && product(&[self.outputs, self.inputs]) == Some(weights)
            && product(&[self.rows, self.outputs]) == Some(output)
            && bias.is_none_or(|bias| bias.len() == self.outputs);
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }
}

/// Fully connected layer: `input` is `[rows, inputs]`, `weights` `[outputs, inputs]`, `bias` `[outputs]`, `output`
/// `[rows, outputs]`.
///
/// # Errors
/// [`KernelError::Parameter`] for an empty layer, [`KernelError::Shape`] when a slice does not fit it.
pub fn fully_connected<W: Weight>(
    p: &FullyConnected,
    input: &[f32],
    weights: &[W],
    bias: Option<&[f32]>,
    output: &mut [f32],
) -> Result<(), KernelError> {
    p.check(input.len(), weights.len(), bias, output.len())?;
    for (row, out) in rows_of(input, p.inputs, output, p.outputs) {
        let multiply_add = |sum: f32, x: f32, w: W| sum + x * w.to_f32();
        multiply_row(row, weights, out, multiply_add, |sum, unit| p.clamp.apply(sum + bias_at(bias, unit)));
    }
    Ok(())
}

/// Multiplies one input vector with the weights, for any types of input, weight and sum: `multiply_add` extends a
/// sum, `finish` makes an output element from it.
#[inline(always)]
pub(crate) fn multiply_row<I: Copy, W: Copy, S: Copy + Default>(
    row: &[I],
    weights: &[W],
    output: &mut [f32],
    multiply_add: impl Fn(S, I, W) -> S + Copy,
    finish: impl Fn(S, usize) -> f32,
) {
    for (index, block) in output.chunks_mut(BLOCK).enumerate() {
        let unit = index * BLOCK;
        let filters = weights.get(unit * row.len()..).unwrap_or_default();
        let mut sums = [S::default(); BLOCK];
        extend_sums(row, filters, row.len(), &mut sums, block.len(), multiply_add);
        for (i, (out, sum)) in block.iter_mut().zip(sums).enumerate() {
            *out = finish(sum, unit + i);
        }
    }
}
