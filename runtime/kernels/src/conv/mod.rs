//! Integer 2-D convolution, and what it shares with the other integer layers that have weights.

mod dot;
mod patch;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::KernelError;
use crate::fixed::{ChannelMultipliers, Multiplier};
use crate::window::Window;
pub(crate) use dot::{Activation, BLOCK, filter_block};
pub(crate) use patch::{Patch, for_each_patch};

/// A plain, depthwise or transposed convolution of integers.
///
/// Quantization as in the TensorFlow Lite 8-bit quantization specification: `real = scale * (q - zero_point)`.
/// With int16 activations all zero points are 0.
#[derive(Clone, Debug)]
pub struct Conv2D {
    /// Shapes, strides, dilations and padding. Padding reads as the input's zero point, that is as real 0.
    pub window: Window,
    /// Zero point of the input, -128 ..= 127.
    pub input_zero_point: i32,
    /// Zero point of the weights, -128 ..= 127. Other than 0 only in models that were uint8.
    pub weights_zero_point: i32,
    /// Zero point of the output, -128 ..= 127.
    pub output_zero_point: i32,
    /// Smallest output value, in the range of the output's type.
    pub activation_min: i32,
    /// Largest output value, in the range of the output's type, not below `activation_min`.
    pub activation_max: i32,
}

/// The bias of a layer with int16 activations. As in TensorFlow Lite Micro its type decides how wide the layer
/// accumulates and how it rounds; a layer without a bias says it by its `quantized_bias_type` option.
#[derive(Clone, Copy, Debug)]
pub enum Bias16<'a> {
    /// 32-bit accumulators that wrap around, two roundings ([`Multiplier::apply`](crate::fixed::Multiplier::apply)).
    Narrow(Option<&'a [i32]>),
    /// 64-bit accumulators, one rounding ([`Multiplier::apply_i64`](crate::fixed::Multiplier::apply_i64)).
    Wide(Option<&'a [i64]>),
}

/// Moves the zero points of one output channel into its bias, so that the inner loop multiplies raw values:
///
/// `sum((x - zx) * (w - zw)) + bias = sum(x * w) - zw * sum(x) + fold_bias(bias, w, zx, zw)`
///
/// `weights` are the channel's weights in any order: for a plain convolution and a fully connected layer they lie
/// together, for a depthwise convolution they are every `out_c`-th. Arithmetic wraps, like the accumulator's.
///
/// ```
/// let bias = dunlin_kernels::conv::fold_bias(10, [1i8, -2, 3], -128, 0);
/// assert_eq!(bias, 10 + 128 * (1 - 2 + 3));
/// ```
pub fn fold_bias(
    bias: i32,
    weights: impl IntoIterator<Item = i8>,
    input_zero_point: i32,
    weights_zero_point: i32,
) -> i32 {
    weights.into_iter().fold(bias, |folded, weight| {
        let weight = i32::from(weight).wrapping_sub(weights_zero_point);
        folded.wrapping_sub(input_zero_point.wrapping_mul(weight))
    })
}

/// 2-D convolution of int8: input `[batch, in_h, in_w, in_c]`, weights `[out_c, k_h, k_w, in_c / groups]`, output
/// `[batch, out_h, out_w, out_c]`.
///
/// `bias` holds one value per output channel **with the zero points folded in** by [`fold_bias`]; `None` stands for
/// zeros (right only when the input's zero point is 0). `multipliers` and `shifts` are
/// `input scale * weight scale / output scale`, one per output channel or one for all.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the window, [`KernelError::Parameter`] when a field of `p` or a
/// shift is out of range.
pub fn conv2d_i8(
    p: &Conv2D,
    input: &[i8],
    weights: &[i8],
    bias: Option<&[i32]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    p.check_i8(&Lengths::of(input, weights, bias.map(<[i32]>::len), output))?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    convolve(p, input, weights, output, |channel, sum| {
        p.finish_i8(scale.get(channel).apply(sum.wrapping_add(at(bias, channel))))
    });
    Ok(())
}

/// 2-D convolution of int16 activations with int8 weights; shapes and multipliers as in [`conv2d_i8`], all zero
/// points 0, the bias as it stands in the model.
///
/// # Errors
/// As [`conv2d_i8`].
pub fn conv2d_i16(
    p: &Conv2D,
    input: &[i16],
    weights: &[i8],
    bias: Bias16<'_>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i16],
) -> Result<(), KernelError> {
    p.check_i16(&Lengths::of(input, weights, bias.channels(), output))?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    convolve(p, input, weights, output, |channel, sum| {
        p.finish_i16(bias.add_and_scale(channel, sum, scale.get(channel)))
    });
    Ok(())
}

/// The loop over pixels and blocks of output channels. `finish` turns a channel's sum into its output value.
#[inline(always)]
fn convolve<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: impl Fn(usize, T::Sum) -> T,
) {
    let window = &p.window;
    let filter_len = window.k_h * window.k_w * window.depth();
    let group_channels = window.out_c / window.groups.max(1);
    for_each_patch(window, input, output, |patch, pixel| {
        let padded = p.input_zero_point != 0 && !patch.is_complete();
        for group in 0..window.groups {
            // `- zw * sum(x)` is the same for all channels of a group.
            let shared = match p.weights_zero_point {
                0 => 0,
                zero_point => patch.sum(group, p.input_zero_point).wrapping_mul(zero_point).wrapping_neg(),
            };
            let runs = patch.runs(group);
            let channels = part_mut(pixel, group * group_channels, group_channels);
            for (block, values) in channels.chunks_mut(BLOCK).enumerate() {
                let first = group * group_channels + block * BLOCK;
                let filters = filter_block(weights, filter_len, first, values.len());
                let sums = runs.dot(filters);
                for (j, (value, sum)) in values.iter_mut().zip(sums).enumerate() {
                    let mut constant = shared;
                    if padded {
                        let outside = patch.weights_outside(filters.weights(j, filter_len));
                        constant = constant.wrapping_add(outside.wrapping_mul(p.input_zero_point));
                    }
                    *value = finish(first + j, T::add(sum, T::Sum::from(constant)));
                }
            }
        }
    });
}

/// Lengths of the slices that a kernel was given.
pub(crate) struct Lengths {
    pub(crate) input: usize,
    pub(crate) weights: usize,
    pub(crate) bias: Option<usize>,
    pub(crate) output: usize,
}

impl Lengths {
    #[inline(always)]
    pub(crate) fn of<T>(input: &[T], weights: &[i8], bias: Option<usize>, output: &[T]) -> Self {
        Lengths { input: input.len(), weights: weights.len(), bias, output: output.len() }
    }
}

impl Conv2D {
    /// Checks all fields for int8 activations, and the slices' lengths.
    pub(crate) fn check_i8(&self, lengths: &Lengths) -> Result<(), KernelError> {
        let zero_points = [self.input_zero_point, self.weights_zero_point, self.output_zero_point];
        check_i8_range(&zero_points, self.activation_min, self.activation_max)?;
        self.check(lengths)
    }

    /// Checks all fields for int16 activations, and the slices' lengths.
    pub(crate) fn check_i16(&self, lengths: &Lengths) -> Result<(), KernelError> {
        let zero_points = [self.input_zero_point, self.weights_zero_point, self.output_zero_point];
        check_i16_range(&zero_points, self.activation_min, self.activation_max)?;
        self.check(lengths)
    }

    // Out of line: one copy for all convolutions, and off the stack before the work begins.
    #[inline(never)]
    fn check(&self, lengths: &Lengths) -> Result<(), KernelError> {
        let window = &self.window;
        window.check()?;
        let fits = window.input_len() == Some(lengths.input)
            && window.weight_len() == Some(lengths.weights)
            && window.output_len() == Some(lengths.output)
            && lengths.bias.is_none_or(|channels| channels == window.out_c);
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }

    /// Adds the output's zero point and clamps.
    #[inline(always)]
    pub(crate) fn finish_i8(&self, scaled: i32) -> i8 {
        clamp(scaled.wrapping_add(self.output_zero_point), self.activation_min, self.activation_max) as i8
    }

    /// Clamps; int16 outputs have no zero point.
    #[inline(always)]
    pub(crate) fn finish_i16(&self, scaled: i32) -> i16 {
        clamp(scaled, self.activation_min, self.activation_max) as i16
    }
}

impl Bias16<'_> {
    /// Output channels that the bias covers, unless there is none.
    pub(crate) fn channels(&self) -> Option<usize> {
        match self {
            Bias16::Narrow(bias) => bias.map(<[i32]>::len),
            Bias16::Wide(bias) => bias.map(<[i64]>::len),
        }
    }

    /// Adds the bias of `channel` to its sum and requantizes.
    #[inline(always)]
    pub(crate) fn add_and_scale(&self, channel: usize, sum: i64, multiplier: Multiplier) -> i32 {
        match self {
            // Summing in 64 bits and dropping the upper half is the same as wrapping around all along.
            Bias16::Narrow(bias) => multiplier.apply((sum as i32).wrapping_add(at(*bias, channel))),
            Bias16::Wide(bias) => multiplier.apply_i64(sum.wrapping_add(at(*bias, channel))),
        }
    }
}

/// Checks zero points and output bounds of a layer with int8 activations.
#[inline(never)]
pub(crate) fn check_i8_range(zero_points: &[i32], min: i32, max: i32) -> Result<(), KernelError> {
    let is_i8 = |value: &i32| i8::try_from(*value).is_ok();
    let valid = zero_points.iter().all(is_i8) && is_i8(&min) && is_i8(&max) && min <= max;
    if valid { Ok(()) } else { Err(KernelError::Parameter) }
}

/// Checks zero points and output bounds of a layer with int16 activations.
#[inline(never)]
pub(crate) fn check_i16_range(zero_points: &[i32], min: i32, max: i32) -> Result<(), KernelError> {
    let is_i16 = |value: &i32| i16::try_from(*value).is_ok();
    let valid = zero_points.iter().all(|&value| value == 0) && is_i16(&min) && is_i16(&max) && min <= max;
    if valid { Ok(()) } else { Err(KernelError::Parameter) }
}

/// The bias of `channel`; zero without a bias.
#[inline(always)]
pub(crate) fn at<B: Copy + Default>(bias: Option<&[B]>, channel: usize) -> B {
    bias.and_then(|bias| bias.get(channel)).copied().unwrap_or_default()
}

/// `i32::clamp` without its panic on crossed bounds, which the checks exclude.
#[inline(always)]
pub(crate) fn clamp(value: i32, min: i32, max: i32) -> i32 {
    value.max(min).min(max)
}

/// As [`part`](crate::window::part), mutable.
#[inline(always)]
pub(crate) fn part_mut<T>(values: &mut [T], start: usize, len: usize) -> &mut [T] {
    values.get_mut(start..start.wrapping_add(len)).unwrap_or_default()
}
