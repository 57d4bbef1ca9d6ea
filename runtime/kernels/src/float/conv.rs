//! 2-D convolution, with groups and dilation.

use super::{Weight, WindowOp, bias_at, check_weighted};
use crate::KernelError;
use crate::conv::{Patch, for_each_patch};
use crate::window::{Window, part};

/// How many output channels are computed together. Each channel's sum is one chain of dependent additions, so that
/// several chains keep the pipeline busy, and every input value is loaded once for all of them.
pub(super) const BLOCK: usize = 4;

/// 2-D convolution: `input` is `[batch, in_h, in_w, in_c]`, `weights` `[out_c, k_h, k_w, in_c / groups]`, `bias`
/// `[out_c]`, `output` `[batch, out_h, out_w, out_c]`. Padding counts as 0.
///
/// # Errors
/// [`KernelError::Parameter`] for an impossible window, [`KernelError::Shape`] when a slice does not fit it.
pub fn conv2d<W: Weight>(
    p: &WindowOp,
    input: &[f32],
    weights: &[W],
    bias: Option<&[f32]>,
    output: &mut [f32],
) -> Result<(), KernelError> {
    let window = &p.window;
    check_weighted(window, input.len(), weights.len(), bias, output.len())?;
    let multiply_add = |sum: f32, x: f32, w: W| sum + x * w.to_f32();
    convolve(window, input, weights, output, multiply_add, |sum, channel| {
        p.clamp.apply(sum + bias_at(bias, channel))
    });
    Ok(())
}

/// Convolution for any types of input, weight and sum: `multiply_add` extends a sum, `finish` makes the output of a
/// channel from it. The window is checked and the slices fit it.
#[inline(always)]
pub(crate) fn convolve<I: Copy, W: Copy, S: Copy + Default>(
    window: &Window,
    input: &[I],
    weights: &[W],
    output: &mut [f32],
    multiply_add: impl Fn(S, I, W) -> S + Copy,
    finish: impl Fn(S, usize) -> f32,
) {
    let group_channels = window.out_c / window.groups.max(1);
    for_each_patch(window, input, output, |patch, pixel| {
        for (group, channels) in pixel.chunks_exact_mut(group_channels.max(1)).enumerate() {
            for (index, block) in channels.chunks_mut(BLOCK).enumerate() {
                let channel = group * group_channels + index * BLOCK;
                let mut sums = [S::default(); BLOCK];
                let block_sums = sums.get_mut(..block.len()).unwrap_or_default();
                extend_by_patch(patch, weights, group, channel, block_sums, multiply_add);
                for (i, (out, sum)) in block.iter_mut().zip(sums).enumerate() {
                    *out = finish(sum, channel + i);
                }
            }
        }
    });
}

/// Extends the sums of the output channels from `channel` on, all in `group`, by the whole patch.
// A function of its own keeps the state of the outer loops out of the registers of the inner ones.
#[inline(never)]
fn extend_by_patch<I: Copy, W: Copy, S: Copy>(
    patch: &Patch<'_, I>,
    weights: &[W],
    group: usize,
    channel: usize,
    sums: &mut [S],
    multiply_add: impl Fn(S, I, W) -> S + Copy,
) {
    let window = patch.window;
    let depth = window.depth();
    let filter_len = window.k_h * window.k_w * depth;
    // Taps that are neighbours in the image and see all channels are one run of memory.
    let adjacent = window.dilation_w == 1 && window.groups == 1;
    let columns = patch.columns.count;
    let (runs, run) = if adjacent { (1, columns * depth) } else { (columns, depth) };
    patch.for_each_row(|pixel, tap| {
        for i in 0..runs {
            let start = (pixel + i * window.dilation_w) * window.in_c + group * depth;
            let filters = weights.get(channel * filter_len + (tap + i) * depth..).unwrap_or_default();
            extend_sums(part(patch.image, start, run), filters, filter_len, sums, multiply_add);
        }
    });
}

/// Extends each of at most [`BLOCK`] sums by the products of `inputs` with its filter; the filters start every
/// `stride` weights.
#[inline(always)]
pub(super) fn extend_sums<I: Copy, W: Copy, S: Copy>(
    inputs: &[I],
    weights: &[W],
    stride: usize,
    sums: &mut [S],
    multiply_add: impl Fn(S, I, W) -> S,
) {
    let filter = |i: usize| part(weights, i * stride, inputs.len());
    if let Some(sums) = sums.as_mut_array::<BLOCK>() {
        let [mut a, mut b, mut c, mut d] = *sums;
        let pairs = filter(0).iter().zip(filter(1)).zip(filter(2).iter().zip(filter(3)));
        for (&x, ((&wa, &wb), (&wc, &wd))) in inputs.iter().zip(pairs) {
            a = multiply_add(a, x, wa);
            b = multiply_add(b, x, wb);
            c = multiply_add(c, x, wc);
            d = multiply_add(d, x, wd);
        }
        *sums = [a, b, c, d];
    } else {
        for (i, sum) in sums.iter_mut().enumerate() {
            for (&x, &w) in inputs.iter().zip(filter(i)) {
                *sum = multiply_add(*sum, x, w);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::Clamp;
    use super::super::testing::{assert_close, plain, sequence, values};
    use super::*;
    use half::f16;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// `CONV_2D` with two groups, dilation 2 x 1, SAME padding and ReLU6, run by TensorFlow Lite Micro.
    #[test]
    fn equals_tensorflow_lite_micro() {
        let window = Window {
            out_h: 3,
            out_w: 4,
            dilation_h: 2,
            pad_top: 1,
            groups: 2,
            ..plain([3, 4, 2], [2, 2], 2)
        };
        let p = WindowOp { window, clamp: Clamp::RELU6 };
        let input = sequence(24, 7, 11, -5, 4.0);
        let weights = sequence(8, 5, 7, -3, 3.0);
        let expected = [
            0.26666668,
            0.8,
            0.0,
            0.7166667,
            0.0,
            0.0,
            0.1,
            0.0,
            1.0166667,
            1.3833333,
            0.26666668,
            1.3833333,
            1.35,
            0.0,
            0.0,
            0.0,
            0.93333334,
            0.13333331,
            0.6833334,
            0.0,
            0.43333337,
            0.0,
            0.0,
            0.049999997,
        ];
        let mut output = [9.0; 24];
        conv2d(&p, &input, &weights, Some(&[0.1, -0.2]), &mut output).unwrap();
        assert_eq!(output, expected);
    }

    #[test]
    fn half_precision_weights_read_as_their_values() {
        let p = WindowOp { window: plain([4, 4, 3], [2, 2], 5), clamp: Clamp::NONE };
        let input = values(48, 1);
        let halves: Vec<f16> = values(60, 2).into_iter().map(f16::from_f32).collect();
        let bits: Vec<u16> = halves.iter().map(|h| h.to_bits()).collect();
        let widened: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
        let (mut a, mut b) = ([0.0; 45], [1.0; 45]);
        conv2d(&p, &input, &bits, None, &mut a).unwrap();
        conv2d(&p, &input, &widened, None, &mut b).unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn refuses_slices_that_do_not_fit() {
        let p = WindowOp { window: plain([3, 3, 2], [2, 2], 3), clamp: Clamp::NONE };
        let (x, w, b) = ([0.0; 18], [0.0; 24], [0.0; 3]);
        let mut y = [0.0; 12];
        assert_eq!(conv2d(&p, &x, &w, Some(&b), &mut y), Ok(()));
        assert_eq!(conv2d(&p, &x[1..], &w, Some(&b), &mut y), Err(KernelError::Shape));
        assert_eq!(conv2d(&p, &x, &w[1..], Some(&b), &mut y), Err(KernelError::Shape));
        assert_eq!(conv2d(&p, &x, &w, Some(&b[1..]), &mut y), Err(KernelError::Shape));
        assert_eq!(conv2d(&p, &x, &w, Some(&b), &mut y[1..]), Err(KernelError::Shape));
    }

    /// The sum in the order of the definition: rows, columns, channels.
    fn definition(window: &Window, input: &[f32], weights: &[f32], output: &mut [f32]) {
        let (depth, per_group) = (window.in_c / window.groups, window.out_c / window.groups);
        for (i, out) in output.iter_mut().enumerate() {
            let (pixel, channel) = (i / window.out_c, i % window.out_c);
            let (image, x) = (pixel / window.out_w / window.out_h, pixel % window.out_w);
            let y = pixel / window.out_w % window.out_h;
            for tap in 0..window.k_h * window.k_w {
                let (ky, kx) = (tap / window.k_w, tap % window.k_w);
                let row = (y * window.stride_h + ky * window.dilation_h).wrapping_sub(window.pad_top);
                let column = (x * window.stride_w + kx * window.dilation_w).wrapping_sub(window.pad_left);
                if row >= window.in_h || column >= window.in_w {
                    continue;
                }
                let source = ((image * window.in_h + row) * window.in_w + column) * window.in_c;
                for c in 0..depth {
                    *out += input[source + channel / per_group * depth + c]
                        * weights[(channel * window.k_h * window.k_w + tap) * depth + c];
                }
            }
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            (batch, groups, depth, per_group) in (1usize..3, 1usize..4, 1usize..4, 1usize..7),
            (in_h, in_w, out_h, out_w) in (1usize..6, 1usize..6, 1usize..5, 1usize..5),
            (k_h, k_w, stride_h, stride_w) in (1usize..4, 1usize..4, 1usize..4, 1usize..4),
            (dilation_h, dilation_w, pad_top, pad_left) in (1usize..3, 1usize..3, 0usize..4, 0usize..4),
        ) {
            let (in_c, out_c) = (groups * depth, groups * per_group);
            let window = Window {
                batch, in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, dilation_h, dilation_w,
                pad_top, pad_left, groups,
            };
            let input = values(window.input_len().unwrap(), 3);
            let weights = values(window.weight_len().unwrap(), 4);
            let mut output = vec![9.0; window.output_len().unwrap()];
            let mut expected = vec![0.0; output.len()];
            definition(&window, &input, &weights, &mut expected);
            conv2d(&WindowOp { window, clamp: Clamp::NONE }, &input, &weights, None, &mut output).unwrap();
            assert_close(&output, &expected);
            prop_assert_eq!(output, expected);
        }
    }
}
