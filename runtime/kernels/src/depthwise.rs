//! Integer depthwise 2-D convolution.

use crate::KernelError;
use crate::conv::{Activation, Conv2D, Patch, at, for_each_patch, quotient};
use crate::fixed::ChannelMultipliers;

/// Neighbouring output channels computed together in registers; a Cortex-M has few.
const LANES: usize = if cfg!(target_arch = "arm") { 4 } else { 8 };

/// Depthwise 2-D convolution of int8: input `[batch, in_h, in_w, in_c]`, weights `[1, k_h, k_w, out_c]`, output
/// `[batch, out_h, out_w, out_c]`, where `out_c = in_c * depth multiplier` and `groups = in_c`. Output channel `c`
/// sees input channel `c / depth multiplier`.
///
/// `bias` holds one value per output channel **with the zero points folded in** by
/// [`fold_bias`](crate::conv::fold_bias); `None` stands for zeros (right only when the input's zero point is 0).
/// `multipliers` and `shifts` are `input scale * weight scale / output scale`, one per output channel or one for all.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the window, [`KernelError::Parameter`] when a field of `p` or a
/// shift is out of range or `groups` is not `in_c`.
pub fn depthwise_conv2d_i8(
    p: &Conv2D,
    input: &[i8],
    weights: &[i8],
    bias: Option<&[i32]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    p.check_i8()?;
    check_groups(p)?;
    p.check_lengths(input, weights, bias.map(<[i32]>::len), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    depthwise(p, input, weights, output, |channel, sum| {
        p.finish_i8(scale.get(channel).apply(sum.wrapping_add(at(bias, channel))))
    });
    Ok(())
}

/// Depthwise 2-D convolution of int16 activations with int8 weights; shapes and multipliers as in
/// [`depthwise_conv2d_i8`], all zero points 0, 64-bit accumulators, the bias as it stands in the model.
///
/// # Errors
/// As [`depthwise_conv2d_i8`].
pub fn depthwise_conv2d_i16(
    p: &Conv2D,
    input: &[i16],
    weights: &[i8],
    bias: Option<&[i64]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i16],
) -> Result<(), KernelError> {
    p.check_i16()?;
    check_groups(p)?;
    p.check_lengths(input, weights, bias.map(<[i64]>::len), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    depthwise(p, input, weights, output, |channel, sum| {
        p.finish_i16(scale.get(channel).apply_i64(sum.wrapping_add(at(bias, channel))))
    });
    Ok(())
}

fn check_groups(p: &Conv2D) -> Result<(), KernelError> {
    if p.window.groups == p.window.in_c { Ok(()) } else { Err(KernelError::Parameter) }
}

/// The loop over pixels and blocks of channels. `finish` turns a channel's sum into its output value.
#[inline(always)]
fn depthwise<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: impl Fn(usize, T::Sum) -> T,
) {
    let window = &p.window;
    let multiplier = quotient(window.out_c, window.in_c);
    // Channels in a row that are computed alike: all of them, or those that share an input channel.
    let span = if multiplier == 1 { window.out_c } else { multiplier };
    for_each_patch(window, input, output, |patch, pixel| {
        let corrected = p.weights_zero_point != 0 || (p.input_zero_point != 0 && !patch.is_complete());
        let store = |pixel: &mut [T], channel: usize, sums: &[T::Sum]| {
            for (j, &sum) in sums.iter().enumerate() {
                let channel = channel + j;
                let constant = if corrected { correction(p, patch, weights, channel) } else { 0 };
                if let Some(value) = pixel.get_mut(channel) {
                    *value = finish(channel, T::add(sum, T::Sum::from(constant)));
                }
            }
        };
        for start in (0..window.out_c).step_by(span.max(1)) {
            let input_channel = if multiplier == 1 { 0 } else { quotient(start, multiplier) };
            let mut done = 0;
            while done < span {
                if span < LANES {
                    let from = if multiplier == 1 { done } else { input_channel };
                    let sums = accumulate(patch, weights, start + done, from, |x: &[T; 1]| *x);
                    store(pixel, start + done, &sums);
                    done += 1;
                    continue;
                }
                // The last block overlaps its neighbour rather than being shorter.
                let at = done.min(span - LANES);
                let channel = start + at;
                let sums = if multiplier == 1 {
                    accumulate(patch, weights, channel, at, |x: &[T; LANES]| *x)
                } else {
                    accumulate(patch, weights, channel, input_channel, |&[x]: &[T; 1]| [x; LANES])
                };
                store(pixel, channel, &sums);
                done += LANES;
            }
        }
    });
}

/// `sum(x * w)` over the taps inside the image for `N` output channels from `channel` on. `spread` makes them one
/// input value each out of the `M` input channels from `input_channel` on.
#[inline(always)]
fn accumulate<T: Activation, const M: usize, const N: usize>(
    patch: &Patch<'_, T>,
    weights: &[i8],
    channel: usize,
    input_channel: usize,
    spread: impl Fn(&[T; M]) -> [T; N],
) -> [T::Sum; N] {
    let window = patch.window;
    let mut sums = [T::Sum::default(); N];
    let step = window.dilation_w.saturating_mul(window.in_c).max(1);
    patch.for_each_row(|pixel, tap| {
        let values = patch.image.get(pixel * window.in_c + input_channel..).unwrap_or_default();
        let weights = weights.get(tap * window.out_c + channel..).unwrap_or_default();
        let taps = values.chunks(step).zip(weights.chunks(window.out_c.max(1)));
        for (values, weights) in taps.take(patch.columns.count) {
            if let (Some(values), Some(weights)) = (values.first_chunk(), weights.first_chunk::<N>()) {
                let values = spread(values);
                for j in 0..N {
                    sums[j] = T::multiply_add(sums[j], values[j], weights[j]);
                }
            }
        }
    });
    sums
}

/// What `sum(x * w)` over the image lacks for one output channel: padding, and the zero point of the weights.
#[inline(never)]
fn correction<T: Activation>(p: &Conv2D, patch: &Patch<'_, T>, weights: &[i8], channel: usize) -> i32 {
    let window = patch.window;
    let mut sum = 0i32;
    patch.for_each_tap_outside(|tap| {
        let weight = i32::from(at(Some(weights), tap * window.out_c + channel));
        sum = sum.wrapping_add(p.input_zero_point.wrapping_mul(weight.wrapping_sub(p.weights_zero_point)));
    });
    if p.weights_zero_point != 0 {
        let input_channel = quotient(channel, quotient(window.out_c, window.in_c));
        let step = window.dilation_w.saturating_mul(window.in_c).max(1);
        patch.for_each_row(|pixel, _| {
            let values = patch.image.get(pixel * window.in_c + input_channel..).unwrap_or_default();
            for &value in values.iter().step_by(step).take(patch.columns.count) {
                sum = sum.wrapping_sub(p.weights_zero_point.wrapping_mul(value.into()));
            }
        });
    }
    sum
}
