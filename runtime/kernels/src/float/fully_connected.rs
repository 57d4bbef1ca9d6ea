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
        let block_sums = sums.get_mut(..block.len()).unwrap_or_default();
        extend_sums(row, filters, row.len(), block_sums, multiply_add);
        for (i, (out, sum)) in block.iter_mut().zip(sums).enumerate() {
            *out = finish(sum, unit + i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sequence;
    use super::*;

    /// `FULLY_CONNECTED` with ReLU, run by TensorFlow Lite Micro.
    #[test]
    fn equals_tensorflow_lite_micro() {
        let p = FullyConnected { rows: 2, inputs: 3, outputs: 5, clamp: Clamp::RELU };
        let input = sequence(6, 7, 11, -5, 4.0);
        let weights = sequence(15, 5, 7, -3, 3.0);
        let bias = sequence(5, 1, 5, 0, 10.0);
        let mut output = [9.0; 10];
        fully_connected(&p, &input, &weights, Some(&bias), &mut output).unwrap();
        assert_eq!(output, [1.5833334, 1.2666668, 0.0, 0.0, 0.31666663, 0.0, 0.0, 0.0, 0.0, 1.4833333]);
    }

    #[test]
    fn refuses_slices_that_do_not_fit() {
        let p = FullyConnected { rows: 2, inputs: 3, outputs: 5, clamp: Clamp::NONE };
        let mut output = [0.0; 10];
        assert_eq!(fully_connected(&p, &[0.0; 6], &[0u16; 15], None, &mut output), Ok(()));
        assert_eq!(fully_connected(&p, &[0.0; 5], &[0u16; 15], None, &mut output), Err(KernelError::Shape));
        assert_eq!(fully_connected(&p, &[0.0; 6], &[0u16; 14], None, &mut output), Err(KernelError::Shape));
        let p = FullyConnected { rows: usize::MAX, inputs: 2, ..p };
        assert_eq!(fully_connected(&p, &[0.0; 6], &[0u16; 10], None, &mut output), Err(KernelError::Shape));
        let p = FullyConnected { rows: 0, ..p };
        assert_eq!(fully_connected(&p, &[], &[0u16; 10], None, &mut []), Err(KernelError::Parameter));
    }
}
