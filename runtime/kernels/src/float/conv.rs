//! 2-D convolution, with groups and dilation.

use super::{Weight, WindowOp, bias_at, check_weighted, rows_of};
use crate::KernelError;
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
    let (in_image, out_image) = check_weighted(window, input.len(), weights.len(), bias, output.len())?;
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let multiply_add = |sum: f32, x: f32, w: W| sum + x * w.to_f32();
        convolve_image(window, image, weights, out, multiply_add, |sum, channel| {
            p.clamp.apply(sum + bias_at(bias, channel))
        });
    }
    Ok(())
}

/// Convolves one image, for any types of input, weight and sum: `multiply_add` extends a sum, `finish` makes the
/// output of a channel from it. The window is checked and the slices fit it.
#[inline(always)]
pub(crate) fn convolve_image<I: Copy, W: Copy, S: Copy + Default>(
    window: &Window,
    image: &[I],
    weights: &[W],
    output: &mut [f32],
    multiply_add: impl Fn(S, I, W) -> S + Copy,
    finish: impl Fn(S, usize) -> f32,
) {
    let depth = window.depth();
    let group_channels = window.out_c / window.groups.max(1);
    let filter = window.k_h * window.k_w * depth;
    // Taps that are neighbours in the image and see all channels are one run of memory.
    let adjacent = window.dilation_w == 1 && window.groups == 1;
    let mut pixels = output.chunks_exact_mut(window.out_c.max(1));
    for y in 0..window.out_h {
        let rows = window.rows(y);
        for x in 0..window.out_w {
            let columns = window.columns(x);
            let (runs, run) = if adjacent { (1, columns.count * depth) } else { (columns.count, depth) };
            let Some(pixel) = pixels.next() else { return };
            for (group, channels) in pixel.chunks_exact_mut(group_channels.max(1)).enumerate() {
                for (index, block) in channels.chunks_mut(BLOCK).enumerate() {
                    let channel = group * group_channels + index * BLOCK;
                    let mut sums = [S::default(); BLOCK];
                    for row in 0..rows.count {
                        let in_row =
                            (rows.position + row * window.dilation_h) * window.in_w + columns.position;
                        let tap_row = (rows.first + row) * window.k_w + columns.first;
                        for i in 0..runs {
                            let inputs = part(
                                image,
                                (in_row + i * window.dilation_w) * window.in_c + group * depth,
                                run,
                            );
                            let first = channel * filter + (tap_row + i) * depth;
                            let filters = weights.get(first..).unwrap_or_default();
                            extend_sums(inputs, filters, filter, &mut sums, block.len(), multiply_add);
                        }
                    }
                    for (i, (out, sum)) in block.iter_mut().zip(sums).enumerate() {
                        *out = finish(sum, channel + i);
                    }
                }
            }
        }
    }
}

/// Extends the first `count` sums by the products of `inputs` with the filters that start every `stride` weights.
#[inline(always)]
pub(super) fn extend_sums<I: Copy, W: Copy, S: Copy>(
    inputs: &[I],
    weights: &[W],
    stride: usize,
    sums: &mut [S; BLOCK],
    count: usize,
    multiply_add: impl Fn(S, I, W) -> S,
) {
    let filter = |i: usize| part(weights, i * stride, inputs.len());
    if count == BLOCK {
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
        for (i, sum) in sums.iter_mut().take(count).enumerate() {
            for (&x, &w) in inputs.iter().zip(filter(i)) {
                *sum = multiply_add(*sum, x, w);
            }
        }
    }
}
