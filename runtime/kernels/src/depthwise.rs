//! Integer depthwise 2-D convolution.

use crate::KernelError;
use crate::conv::{Activation, Bias16, Conv2D, Finish, Lengths, MAX_BLOCK, Patch, for_each_patch, part_mut};
use crate::fixed::ChannelMultipliers;

/// Neighbouring output channels computed together in registers; a Cortex-M has few.
const LANES: usize = if cfg!(target_arch = "arm") { 4 } else { MAX_BLOCK };

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
    p.check_i8(&Lengths::of(input, weights, bias.map(<[i32]>::len), output))?;
    check_groups(p)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    depthwise(p, input, weights, output, &p.finish_i8(bias, scale));
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
    p.check_i16(&Lengths::of(input, weights, bias.map(<[i64]>::len), output))?;
    check_groups(p)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    depthwise(p, input, weights, output, &p.finish_i16(Bias16::Wide(bias), scale));
    Ok(())
}

fn check_groups(p: &Conv2D) -> Result<(), KernelError> {
    if p.window.groups == p.window.in_c { Ok(()) } else { Err(KernelError::Parameter) }
}

/// The loop over pixels and blocks of channels.
#[inline(always)]
fn depthwise<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: &impl Finish<T>,
) {
    let window = &p.window;
    let multiplier = window.out_c / window.in_c.max(1);
    // Channels in a row that are computed alike: all of them, or those that share an input channel.
    let span = if multiplier == 1 { window.out_c } else { multiplier };
    let lanes = if span < LANES { 1 } else { LANES };
    for_each_patch(window, input, output, |patch, pixel| {
        let taps = Taps::new(patch, weights, p.input_zero_point);
        let padded = T::ZERO_POINTS && p.input_zero_point != 0 && !patch.is_complete();
        for (index, values) in pixel.chunks_mut(span.max(1)).enumerate() {
            let mut done = 0;
            while done < span {
                // The last block overlaps its neighbour rather than being shorter.
                let start = done.min(span - lanes);
                let channel = index * span + start;
                let input_channel = if multiplier == 1 { channel } else { index };
                let mut sums = [T::Sum::default(); LANES];
                match (lanes, multiplier) {
                    (1, _) => taps.sums(&mut sums, channel, input_channel, |x: &[T; 1]| *x),
                    (_, 1) => taps.sums(&mut sums, channel, input_channel, |x: &[T; LANES]| *x),
                    _ => taps.sums(&mut sums, channel, input_channel, |&[x]| [x; LANES]),
                }
                match lanes {
                    _ if !padded => {}
                    1 => taps.add_padding::<1>(&mut sums, channel),
                    _ => taps.add_padding::<LANES>(&mut sums, channel),
                }
                if T::ZERO_POINTS && p.weights_zero_point != 0 {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let seen = taps.input_sum(if multiplier == 1 { channel + j } else { index });
                        *sum = T::add(*sum, T::Sum::from(seen.wrapping_mul(-p.weights_zero_point)));
                    }
                }
                finish.finish(channel, &sums, part_mut(values, start, lanes));
                done += lanes;
            }
        }
    });
}

/// The taps of a patch, with steps in elements of the image and of the weights.
struct Taps<'a, T> {
    patch: &'a Patch<'a, T>,
    weights: &'a [i8],
    /// What padding reads as.
    zero_point: i32,
    rows: usize,
    columns: usize,
    start: usize,
    step: usize,
    row_step: usize,
    weight_start: usize,
    weight_step: usize,
    weight_row_step: usize,
}

impl<'a, T: Activation> Taps<'a, T> {
    #[inline(always)]
    fn new(patch: &'a Patch<'a, T>, weights: &'a [i8], zero_point: i32) -> Self {
        let (w, rows, columns) = (patch.window, patch.rows, patch.columns);
        // The coordinates of a window beside the image mean nothing; nothing is read then.
        let pixel = rows.position.wrapping_mul(w.in_w).wrapping_add(columns.position);
        let tap = rows.first.wrapping_mul(w.k_w).wrapping_add(columns.first);
        Taps {
            patch,
            weights,
            zero_point,
            rows: rows.count,
            columns: columns.count,
            start: pixel.wrapping_mul(w.in_c),
            step: w.dilation_w.wrapping_mul(w.in_c),
            row_step: w.dilation_h.wrapping_mul(w.in_w * w.in_c),
            weight_start: tap.wrapping_mul(w.out_c),
            weight_step: w.out_c,
            weight_row_step: w.k_w * w.out_c,
        }
    }

    /// `sum(x * w)` over all taps for `N` channels from `channel` on. `spread` makes them one input value each out of
    /// the `M` input channels from `input_channel` on. Out of line, so that the loop has all registers to itself.
    #[inline(never)]
    fn sums<const M: usize, const N: usize>(
        &self,
        sums: &mut [T::Sum; LANES],
        channel: usize,
        input_channel: usize,
        spread: impl Fn(&[T; M]) -> [T; N],
    ) {
        let mut total = [T::Sum::default(); N];
        let (step, weight_step) = (self.step, self.weight_step);
        let (mut at, mut weight_at) =
            (self.start.wrapping_add(input_channel), self.weight_start.wrapping_add(channel));
        for _ in 0..self.rows {
            let (Some(mut values), Some(mut weights)) =
                (self.patch.image.get(at..), self.weights.get(weight_at..))
            else {
                break;
            };
            for _ in 0..self.columns {
                let (Some(x), Some(w)) = (values.first_chunk(), weights.first_chunk()) else { break };
                total = multiply_add(total, spread(x), w);
                // Behind the last tap there may be nothing.
                let (Some(x), Some(w)) = (values.get(step..), weights.get(weight_step..)) else { break };
                (values, weights) = (x, w);
            }
            at = at.wrapping_add(self.row_step);
            weight_at = weight_at.wrapping_add(self.weight_row_step);
        }
        for (to, from) in sums.iter_mut().zip(total) {
            *to = from;
        }
    }

    /// Adds `zero point * w` for the taps outside the image to the sums of `N` channels from `channel` on.
    #[inline(never)]
    fn add_padding<const N: usize>(&self, sums: &mut [T::Sum; LANES], channel: usize) {
        // Checked to be an int8.
        let padding = T::from(self.zero_point as i8);
        let weight_step = self.weight_step;
        self.patch.for_each_run_outside(|tap, taps| {
            let mut weights = self.weights.get(tap * weight_step + channel..).unwrap_or_default();
            for _ in 0..taps {
                let Some(w) = weights.first_chunk::<N>() else { break };
                for (sum, &w) in sums.iter_mut().zip(w) {
                    *sum = T::multiply_add(*sum, padding, w);
                }
                let Some(next) = weights.get(weight_step..) else { break };
                weights = next;
            }
        });
    }

    /// `sum(x)` over all taps for an input channel.
    #[inline(never)]
    fn input_sum(&self, input_channel: usize) -> i32 {
        let mut sum = 0i32;
        self.patch.for_each_row(|pixel, _| {
            let values =
                self.patch.image.get(pixel * self.patch.window.in_c + input_channel..).unwrap_or_default();
            for &value in values.iter().step_by(self.step.max(1)).take(self.columns) {
                sum = sum.wrapping_add(value.into());
            }
        });
        self.patch.for_each_run_outside(|_, taps| {
            sum = sum.wrapping_add((taps as i32).wrapping_mul(self.zero_point));
        });
        sum
    }
}

#[inline(always)]
fn multiply_add<T: Activation, const N: usize>(mut sums: [T::Sum; N], x: [T; N], w: &[i8; N]) -> [T::Sum; N] {
    for j in 0..N {
        sums[j] = T::multiply_add(sums[j], x[j], w[j]);
    }
    sums
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::conv::fold_bias;
    use crate::conv::testing::{Case, Kind, case, pattern_i8, pattern_i16, reference_sums};
    use crate::window::Window;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn run_i8(case: &Case) -> Vec<i8> {
        let channels = case.p.window.out_c;
        let (zx, zw) = (case.p.input_zero_point, case.p.weights_zero_point);
        let weights_of = |channel: usize| case.weights.iter().skip(channel).step_by(channels).copied();
        let bias: Vec<i32> =
            (0..channels).map(|channel| fold_bias(case.bias[channel], weights_of(channel), zx, zw)).collect();
        let mut output = vec![0; case.p.window.output_len().unwrap()];
        let Case { p, weights, multipliers, shifts, .. } = case;
        depthwise_conv2d_i8(p, &case.input_i8(), weights, Some(&bias), multipliers, shifts, &mut output)
            .unwrap();
        output
    }

    fn run_i16(case: &Case) -> Vec<i16> {
        let bias: Vec<i64> = case.bias.iter().map(|&b| b.into()).collect();
        let mut output = vec![0; case.p.window.output_len().unwrap()];
        let Case { input, weights, multipliers, shifts, .. } = case;
        depthwise_conv2d_i16(&case.wide(), input, weights, Some(&bias), multipliers, shifts, &mut output)
            .unwrap();
        output
    }

    /// 4x3x3 to 2x3x6, 3x2 taps, stride 2x1, padded below and to the right only, followed by ReLU6.
    fn example_i8() -> Case {
        let window = Window {
            batch: 1,
            in_h: 4,
            in_w: 3,
            in_c: 3,
            out_h: 2,
            out_w: 3,
            out_c: 6,
            k_h: 3,
            k_w: 2,
            stride_h: 2,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 0,
            pad_left: 0,
            groups: 3,
        };
        Case {
            p: Conv2D {
                window,
                input_zero_point: 9,
                weights_zero_point: 0,
                output_zero_point: -5,
                activation_min: -5,
                activation_max: 7,
            },
            input: pattern_i8(36, 37, 11).into_iter().map(i16::from).collect(),
            weights: pattern_i8(36, 53, 7),
            bias: vec![1000, -2000, 300, 0, 77, -5],
            multipliers: vec![1099511620, 1759218714, 1099511620, 1539316349, 2061584415, 1099511620],
            shifts: vec![-9, -11, -8, -10, -5, -9],
        }
    }

    // Golden vectors: TensorFlow Lite Micro (PyPI tflite-micro, October 2026), single-operator models over the
    // pattern.

    #[test]
    fn depthwise_i8_equals_tensorflow_lite_micro() {
        let expected = [
            7, -1, -5, -5, -5, -5, -5, -5, 7, -5, 7, -5, -5, -5, -5, -5, -5, -4, -3, -5, -5, -1, 7, -5, 7, 0,
            -5, -5, -5, -5, -3, -4, 7, -5, 7, -5,
        ];
        assert_eq!(run_i8(&example_i8()), expected);
    }

    #[test]
    fn depthwise_i16_equals_tensorflow_lite_micro() {
        let mut example = example_i8();
        example.p.window =
            Window { in_h: 2, in_c: 5, out_c: 5, k_h: 2, stride_h: 1, groups: 5, ..example.p.window };
        example.input = pattern_i16(30, 9377, 11);
        example.weights = pattern_i8(20, 53, 7);
        example.bias = vec![1000, -2000, 300, 0, 77];
        example.multipliers = vec![1374389504, 1099511680, 1374389504, 1924145408, 1374389504];
        example.shifts = vec![-8, -9, -7, -9, -8];
        let expected = [
            6351, 2221, 581, -3294, 239, -10300, -856, 3106, -4627, -19252, 68, -1054, -709, -1600, -13664,
            374, 2851, 1025, -797, 2182, -8587, 1353, 1017, -3571, -6724, -1528, -984, -1785, -2151, -5225,
        ];
        assert_eq!(run_i16(&example), expected);
    }

    #[test]
    fn groups_must_be_channels() {
        let mut example = example_i8();
        example.p.window.groups = 1;
        let Case { p, multipliers, shifts, .. } = &example;
        let mut output = [0; 36];
        let result = depthwise_conv2d_i8(p, &[0; 36], &[0; 108], None, multipliers, shifts, &mut output);
        assert_eq!(result, Err(KernelError::Parameter));
    }

    proptest! {
        #[test]
        fn depthwise_i8_follows_its_definition(case in case(Kind::Depthwise)) {
            let sums = reference_sums(&case.p, Kind::Depthwise, &case.input_i8(), &case.weights);
            prop_assert_eq!(run_i8(&case), case.finish_i8(&sums));
        }

        #[test]
        fn depthwise_i16_follows_its_definition(case in case(Kind::Depthwise)) {
            let sums = reference_sums(&case.wide(), Kind::Depthwise, &case.input, &case.weights);
            prop_assert_eq!(run_i16(&case), case.finish_i16(&sums));
        }
    }
}
