//! Integer transposed 2-D convolution.
//!
//! Each output pixel gathers the input pixels that reach it. TensorFlow Lite Micro scatters instead, into a buffer
//! of accumulators as large as the output; the sums are the same.

use crate::KernelError;
use crate::conv::{Activation, BLOCK, Conv2D, at, filter_block};
use crate::fixed::ChannelMultipliers;
use crate::window::{Window, part};

/// Transposed 2-D convolution of int8: input `[batch, in_h, in_w, in_c]`, weights `[out_c, k_h, k_w, in_c]`, output
/// `[batch, out_h, out_w, out_c]`. Input pixel `(y, x)` reaches the output pixels from
/// `(y * stride_h - pad_top, x * stride_w - pad_left)` on. Dilations and groups are 1.
///
/// `bias` holds one value per output channel as it stands in the model: how many taps meet differs from pixel to
/// pixel, so that zero points cannot be folded in. `multipliers` and `shifts` are
/// `input scale * weight scale / output scale`, one per output channel or one for all.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the window, [`KernelError::Parameter`] when a field of `p` or a
/// shift is out of range.
pub fn transpose_conv2d_i8(
    p: &Conv2D,
    input: &[i8],
    weights: &[i8],
    bias: Option<&[i32]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    p.check_i8()?;
    check_dense(&p.window)?;
    p.check_lengths(input, weights, bias.map(<[i32]>::len), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    transpose_conv(p, input, weights, output, |channel, sum| {
        p.finish_i8(scale.get(channel).apply(sum.wrapping_add(at(bias, channel))))
    });
    Ok(())
}

/// Transposed 2-D convolution of int16 activations with int8 weights; shapes and multipliers as in
/// [`transpose_conv2d_i8`], all zero points 0, 64-bit accumulators.
///
/// # Errors
/// As [`transpose_conv2d_i8`].
pub fn transpose_conv2d_i16(
    p: &Conv2D,
    input: &[i16],
    weights: &[i8],
    bias: Option<&[i64]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i16],
) -> Result<(), KernelError> {
    p.check_i16()?;
    check_dense(&p.window)?;
    p.check_lengths(input, weights, bias.map(<[i64]>::len), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    transpose_conv(p, input, weights, output, |channel, sum| {
        p.finish_i16(scale.get(channel).apply_i64(sum.wrapping_add(at(bias, channel))))
    });
    Ok(())
}

fn check_dense(window: &Window) -> Result<(), KernelError> {
    let dense = window.dilation_h == 1 && window.dilation_w == 1 && window.groups == 1;
    if dense { Ok(()) } else { Err(KernelError::Parameter) }
}

/// Along one axis, the input positions that reach an output position: from `position` downwards, from `tap` in
/// steps of the stride upwards, `count` of them.
#[derive(Clone, Copy)]
struct Reach {
    position: usize,
    tap: usize,
    count: usize,
}

impl Reach {
    #[inline(always)]
    fn new(output: usize, pad: usize, stride: usize, kernel: usize, extent: usize) -> Self {
        let (distance, stride) = (output + pad, stride.max(1));
        let nearest = distance / stride;
        let position = nearest.min(extent.saturating_sub(1));
        let tap = distance - position * stride;
        let taps_left = kernel.saturating_sub(tap).div_ceil(stride);
        Reach { position, tap, count: taps_left.min(position + 1) }
    }
}

/// The loop over pixels and blocks of output channels. `finish` turns a channel's sum into its output value.
#[inline(always)]
fn transpose_conv<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: impl Fn(usize, T::Sum) -> T,
) {
    let w = &p.window;
    let image_len = w.in_h * w.in_w * w.in_c;
    let filter_len = w.k_h * w.k_w * w.in_c;
    // Checked to be an int8.
    let zero_point = p.input_zero_point as i16;
    let mut pixels = output.chunks_exact_mut(w.out_c.max(1));
    for index in 0..w.batch {
        let image = part(input, index * image_len, image_len);
        for y in 0..w.out_h {
            let rows = Reach::new(y, w.pad_top, w.stride_h, w.k_h, w.in_h);
            for x in 0..w.out_w {
                let columns = Reach::new(x, w.pad_left, w.stride_w, w.k_w, w.in_w);
                for (block, values) in pixels.next().unwrap_or_default().chunks_mut(BLOCK).enumerate() {
                    let filters = filter_block(weights, filter_len, block * BLOCK, values.len());
                    let mut sums = [T::Sum::default(); BLOCK];
                    for row in 0..rows.count {
                        for column in 0..columns.count {
                            let pixel = (rows.position - row) * w.in_w + columns.position - column;
                            let tap =
                                (rows.tap + row * w.stride_h) * w.k_w + columns.tap + column * w.stride_w;
                            let vector = part(image, pixel * w.in_c, w.in_c);
                            let filters = filters.map(|filter| part(filter, tap * w.in_c, w.in_c));
                            sums = T::dot(sums, vector, zero_point, filters);
                            if p.weights_zero_point != 0 {
                                // `- zw * sum(x - zx)`
                                let shared =
                                    centred_sum(vector, zero_point).wrapping_mul(-p.weights_zero_point);
                                sums = sums.map(|sum| T::add(sum, T::Sum::from(shared)));
                            }
                        }
                    }
                    for (j, (value, sum)) in values.iter_mut().zip(sums).enumerate() {
                        *value = finish(block * BLOCK + j, sum);
                    }
                }
            }
        }
    }
}

/// `sum(x - zero_point)`
#[inline(never)]
fn centred_sum<T: Activation>(vector: &[T], zero_point: i16) -> i32 {
    vector.iter().fold(0i32, |sum, &x| sum.wrapping_add(x.into()).wrapping_sub(i32::from(zero_point)))
}
