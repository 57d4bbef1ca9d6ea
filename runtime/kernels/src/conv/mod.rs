//! Integer 2-D convolution, and what it shares with the other integer layers that have weights.

mod dot;
mod finish;
mod patch;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::KernelError;
use crate::fixed::ChannelMultipliers;
use crate::window::{Window, part};
pub(crate) use dot::{Activation, BLOCK, skip};
pub use finish::Bias16;
pub(crate) use finish::{Finish, Finish8, Finish16, MAX_BLOCK};
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
    convolve(p, input, weights, output, &p.finish_i8(bias, scale));
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
    convolve(p, input, weights, output, &p.finish_i16(bias, scale));
    Ok(())
}

/// The loop over pixels and blocks of output channels.
#[inline(always)]
fn convolve<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: &impl Finish<T>,
) {
    let window = &p.window;
    let filter_len = window.k_h * window.k_w * window.depth();
    let group_channels = window.out_c / window.groups.max(1);
    for_each_patch(window, input, output, |patch, pixel| {
        let padded = T::ZERO_POINTS && p.input_zero_point != 0 && !patch.is_complete();
        for group in 0..window.groups {
            // `- zw * sum(x)` is the same for all channels of a group.
            let shared = if T::ZERO_POINTS && p.weights_zero_point != 0 {
                patch.sum(group, p.input_zero_point).wrapping_mul(-p.weights_zero_point)
            } else {
                0
            };
            let runs = patch.runs(group);
            let first_of_group = group * group_channels;
            for (block, values) in
                part_mut(pixel, first_of_group, group_channels).chunks_mut(BLOCK).enumerate()
            {
                let first = first_of_group + block * BLOCK;
                let filters = part(weights, first * filter_len, values.len() * filter_len);
                let mut sums = runs.dot(filters, filter_len);
                if padded || shared != 0 {
                    let outside =
                        if padded { patch.weights_outside(filters, filter_len) } else { [0; BLOCK] };
                    for (sum, outside) in sums.iter_mut().zip(outside) {
                        let correction = outside.wrapping_mul(p.input_zero_point).wrapping_add(shared);
                        *sum = T::add(*sum, T::Sum::from(correction));
                    }
                }
                finish.finish(first, &sums, values);
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

    /// The last step with int8 activations.
    pub(crate) fn finish_i8<'a>(
        &self,
        bias: Option<&'a [i32]>,
        scale: ChannelMultipliers<'a>,
    ) -> Finish8<'a> {
        let (min, max) = (self.activation_min, self.activation_max);
        Finish8 { bias, scale, zero_point: self.output_zero_point, min, max }
    }

    /// The last step with int16 activations.
    pub(crate) fn finish_i16<'a>(&self, bias: Bias16<'a>, scale: ChannelMultipliers<'a>) -> Finish16<'a> {
        Finish16 { bias, scale, min: self.activation_min, max: self.activation_max }
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

/// As [`part`], mutable.
#[inline(always)]
pub(crate) fn part_mut<T>(values: &mut [T], start: usize, len: usize) -> &mut [T] {
    values.get_mut(start..start.wrapping_add(len)).unwrap_or_default()
}
