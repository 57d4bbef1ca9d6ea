//! Depthwise 2-D convolution.

use super::{Weight, WindowOp, bias_at, check_weighted};
use crate::KernelError;
use crate::conv::{Patch, for_each_patch};
use crate::window::{Window, part};

/// How many output channels are computed together: neighbours in memory, whose sums fit into vector registers where
/// there are such, and into little stack elsewhere.
const BLOCK: usize = if cfg!(target_arch = "arm") { 8 } else { 16 };

/// Depthwise 2-D convolution: `input` is `[batch, in_h, in_w, in_c]`, `weights` `[1, k_h, k_w, out_c]`, `bias`
/// `[out_c]`, `output` `[batch, out_h, out_w, out_c]`. Output channel `c` sees input channel `c / (out_c / in_c)`;
/// `groups` equals `in_c`. Padding counts as 0.
///
/// # Errors
/// [`KernelError::Parameter`] for an impossible window, [`KernelError::Shape`] when a slice does not fit it.
pub fn depthwise_conv2d<W: Weight>(
    p: &WindowOp,
    input: &[f32],
    weights: &[W],
    bias: Option<&[f32]>,
    output: &mut [f32],
) -> Result<(), KernelError> {
    let window = &p.window;
    check_depthwise(window, input.len(), weights.len(), bias, output.len())?;
    let multiply_add = |sum: f32, x: f32, w: W| sum + x * w.to_f32();
    convolve_depthwise(window, input, weights, output, multiply_add, |sum, channel| {
        p.clamp.apply(sum + bias_at(bias, channel))
    });
    Ok(())
}

/// Checks the window and the slices' lengths.
pub(crate) fn check_depthwise(
    window: &Window,
    input: usize,
    weights: usize,
    bias: Option<&[f32]>,
    output: usize,
) -> Result<(), KernelError> {
    check_weighted(window, input, weights, bias, output)?;
    if window.groups == window.in_c { Ok(()) } else { Err(KernelError::Parameter) }
}

/// Depthwise convolution for any types of input, weight and sum: `multiply_add` extends a sum, `finish` makes the
/// output of a channel from it. The window is checked and the slices fit it.
#[inline(always)]
pub(crate) fn convolve_depthwise<I: Copy, W: Copy, S: Copy + Default>(
    window: &Window,
    input: &[I],
    weights: &[W],
    output: &mut [f32],
    multiply_add: impl Fn(S, I, W) -> S + Copy,
    finish: impl Fn(S, usize) -> f32,
) {
    for_each_patch(window, input, output, |patch, pixel| {
        for (index, block) in pixel.chunks_mut(BLOCK).enumerate() {
            let channel = index * BLOCK;
            let mut sums = [S::default(); BLOCK];
            let block_sums = sums.get_mut(..block.len()).unwrap_or_default();
            extend_by_patch(patch, weights, channel, block_sums, multiply_add);
            for (i, (out, sum)) in block.iter_mut().zip(sums).enumerate() {
                *out = finish(sum, channel + i);
            }
        }
    });
}

/// Extends the sums of the output channels from `channel` on by all taps of the patch.
// A function of its own, see the ordinary convolution's.
#[inline(never)]
fn extend_by_patch<I: Copy, W: Copy, S: Copy>(
    patch: &Patch<'_, I>,
    weights: &[W],
    channel: usize,
    sums: &mut [S],
    multiply_add: impl Fn(S, I, W) -> S,
) {
    let window = patch.window;
    let multiplier = (window.out_c / window.in_c.max(1)).max(1);
    let (source, used) = (channel / multiplier, channel % multiplier);
    let sources = if multiplier == 1 { sums.len() } else { window.in_c - source };
    patch.for_each_row(|pixel, tap| {
        for column in 0..patch.columns.count {
            let start = (pixel + column * window.dilation_w) * window.in_c + source;
            let inputs = part(patch.image, start, sources);
            let taps = part(weights, (tap + column) * window.out_c + channel, sums.len());
            if multiplier == 1 {
                for ((sum, &x), &w) in sums.iter_mut().zip(inputs).zip(taps) {
                    *sum = multiply_add(*sum, x, w);
                }
            } else {
                // Counting spares small processors a division per product.
                let (mut inputs, mut left) = (inputs.iter(), multiplier - used);
                let mut input = inputs.next();
                for (sum, &w) in sums.iter_mut().zip(taps) {
                    if left == 0 {
                        (input, left) = (inputs.next(), multiplier);
                    }
                    left -= 1;
                    if let Some(&x) = input {
                        *sum = multiply_add(*sum, x, w);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::Clamp;
    use super::super::testing::{plain, values};
    use super::*;

    /// Row-by-row sums straight from the definition, in the kernel's order.
    fn definition(window: &Window, input: &[f32], weights: &[f32], output: &mut [f32]) {
        let multiplier = window.out_c / window.in_c;
        for (i, out) in output.iter_mut().enumerate() {
            let (pixel, channel) = (i / window.out_c, i % window.out_c);
            let (y, x) = (pixel / window.out_w, pixel % window.out_w);
            for ky in 0..window.k_h {
                for kx in 0..window.k_w {
                    let row = (y * window.stride_h + ky * window.dilation_h).wrapping_sub(window.pad_top);
                    let column = (x * window.stride_w + kx * window.dilation_w).wrapping_sub(window.pad_left);
                    if row < window.in_h && column < window.in_w {
                        *out += input[(row * window.in_w + column) * window.in_c + channel / multiplier]
                            * weights[(ky * window.k_w + kx) * window.out_c + channel];
                    }
                }
            }
        }
    }

    #[test]
    fn equals_the_definition_for_all_multipliers() {
        for (in_c, multiplier) in [(1, 1), (5, 1), (37, 1), (1, 19), (9, 2), (6, 3), (3, 17)] {
            let out_c = in_c * multiplier;
            let window = Window {
                out_h: 4,
                out_w: 3,
                stride_h: 1,
                stride_w: 2,
                dilation_h: 2,
                pad_top: 2,
                pad_left: 1,
                groups: in_c,
                ..plain([4, 5, in_c], [3, 3], out_c)
            };
            let input = values(20 * in_c, 1);
            let weights = values(9 * out_c, 2);
            let mut output = std::vec![9.0; 12 * out_c];
            let mut expected = std::vec![0.0; 12 * out_c];
            definition(&window, &input, &weights, &mut expected);
            let p = WindowOp { window, clamp: Clamp::NONE };
            depthwise_conv2d(&p, &input, &weights, None, &mut output).unwrap();
            assert_eq!(output, expected, "{in_c} channels x {multiplier}");
        }
    }

    #[test]
    fn refuses_channels_that_do_not_match() {
        let p = WindowOp { window: plain([2, 2, 2], [1, 1], 4), clamp: Clamp::NONE };
        let mut output = [0.0; 16];
        // Groups say that this is an ordinary convolution.
        let refused = depthwise_conv2d(&p, &[0.0; 8], &[0.0; 8], None, &mut output);
        assert_eq!(refused, Err(KernelError::Parameter));
        let p = WindowOp { window: Window { groups: 2, ..p.window }, clamp: Clamp::NONE };
        assert_eq!(depthwise_conv2d(&p, &[0.0; 8], &[0.0; 4], None, &mut output), Ok(()));
        assert_eq!(depthwise_conv2d(&p, &[0.0; 8], &[0.0; 5], None, &mut output), Err(KernelError::Shape));
    }
}
