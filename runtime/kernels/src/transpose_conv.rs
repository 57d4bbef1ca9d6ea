//! Integer transposed 2-D convolution.
//!
//! Each output pixel gathers the input pixels that reach it. TensorFlow Lite Micro scatters instead, into a buffer
//! of accumulators as large as the output; the sums are the same.

use crate::KernelError;
use crate::conv::{Activation, BLOCK, Bias16, Conv2D, Finish, Lengths, skip};
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
    p.check_i8(&Lengths::of(input, weights, bias.map(<[i32]>::len), output))?;
    check_dense(&p.window)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    transpose_conv(p, input, weights, output, &p.finish_i8(bias, scale));
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
    p.check_i16(&Lengths::of(input, weights, bias.map(<[i64]>::len), output))?;
    check_dense(&p.window)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.window.out_c)?;
    transpose_conv(p, input, weights, output, &p.finish_i16(Bias16::Wide(bias), scale));
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

/// The loop over pixels and blocks of output channels.
#[inline(always)]
fn transpose_conv<T: Activation>(
    p: &Conv2D,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: &impl Finish<T>,
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
                let pixel = pixels.next().unwrap_or_default();
                for (block, values) in pixel.chunks_mut(BLOCK).enumerate() {
                    let first = block * BLOCK;
                    let filters = part(weights, first * filter_len, values.len() * filter_len);
                    let mut sums = [T::Sum::default(); BLOCK];
                    for row in 0..rows.count {
                        for column in 0..columns.count {
                            let position = (rows.position - row) * w.in_w + columns.position - column;
                            let tap =
                                (rows.tap + row * w.stride_h) * w.k_w + columns.tap + column * w.stride_w;
                            let vector = part(image, position * w.in_c, w.in_c);
                            T::dot(&mut sums, vector, zero_point, skip(filters, tap * w.in_c), filter_len);
                            if T::ZERO_POINTS && p.weights_zero_point != 0 {
                                // `- zw * sum(x - zx)`
                                let shared =
                                    centred_sum(vector, zero_point).wrapping_mul(-p.weights_zero_point);
                                sums = sums.map(|sum| T::add(sum, T::Sum::from(shared)));
                            }
                        }
                    }
                    finish.finish(first, &sums, values);
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

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::conv::testing::{Case, Kind, case, pattern_i8, pattern_i16, reference_sums};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn run_i8(case: &Case) -> Vec<i8> {
        let mut output = vec![0; case.p.window.output_len().unwrap()];
        let Case { p, weights, bias, multipliers, shifts, .. } = case;
        transpose_conv2d_i8(p, &case.input_i8(), weights, Some(bias), multipliers, shifts, &mut output)
            .unwrap();
        output
    }

    fn run_i16(case: &Case) -> Vec<i16> {
        let bias: Vec<i64> = case.bias.iter().map(|&b| b.into()).collect();
        let mut output = vec![0; case.p.window.output_len().unwrap()];
        let Case { input, weights, multipliers, shifts, .. } = case;
        transpose_conv2d_i16(&case.wide(), input, weights, Some(&bias), multipliers, shifts, &mut output)
            .unwrap();
        output
    }

    /// 2x3x2 to 4x3x2, 3x3 taps, stride 2x1, one column cropped on the left.
    fn example_i8() -> Case {
        let window = Window {
            batch: 1,
            in_h: 2,
            in_w: 3,
            in_c: 2,
            out_h: 4,
            out_w: 3,
            out_c: 2,
            k_h: 3,
            k_w: 3,
            stride_h: 2,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 0,
            pad_left: 1,
            groups: 1,
        };
        Case {
            p: Conv2D {
                window,
                input_zero_point: -7,
                weights_zero_point: 0,
                output_zero_point: 4,
                activation_min: -128,
                activation_max: 127,
            },
            input: pattern_i8(12, 37, 11).into_iter().map(i16::from).collect(),
            weights: pattern_i8(36, 53, 7),
            bias: vec![1000, -2000],
            multipliers: vec![1374389504, 1374389504],
            shifts: vec![-9, -8],
        }
    }

    // Golden vectors: TensorFlow Lite Micro (PyPI tflite-micro, October 2026), single-operator models over the
    // pattern.

    #[test]
    fn transpose_conv_i8_equals_tensorflow_lite_micro() {
        let expected =
            [9, 23, -8, 16, 4, -17, -8, -12, 19, -2, 21, -5, 5, -59, 34, 44, 2, 16, 4, -31, -11, 49, 22, -3];
        assert_eq!(run_i8(&example_i8()), expected);
    }

    #[test]
    fn transpose_conv_i16_equals_tensorflow_lite_micro() {
        let mut example = example_i8();
        example.p.window = Window {
            in_w: 2,
            in_c: 1,
            out_h: 6,
            out_w: 4,
            out_c: 3,
            k_h: 4,
            k_w: 2,
            stride_h: 3,
            stride_w: 2,
            pad_left: 0,
            ..example.p.window
        };
        example.input = pattern_i16(4, 9377, 11);
        example.weights = pattern_i8(24, 53, 7);
        example.bias = vec![1000, -2000, 5];
        example.multipliers = vec![1099511680, 1099511680, 1649267520];
        example.shifts = vec![-8, -7, -7];
        let expected = [
            7929, -6166, 8058, 4457, -13111, -2358, 5660, -4403, 5752, 3182, -9360, -1683, 985, 13488,
            -12775, -2487, 6543, -23192, 703, 9624, -9118, -1775, 4668, -16553, -5960, -401, 16706, 7339,
            -7345, 6289, -4253, -289, 11924, 5239, -5245, 4489, 7256, -16922, -683, 2299, 6707, -15552, 3880,
            -11071, -1808, 912, 6932, -10714, 422, 5761, -5461, -1062, 2793, -9914, 141, 1898, -1804, -350,
            917, -3275, -2547, -176, 7142, 3139, -3145, 2689, -840, -64, 2359, 1038, -1044, 888,
        ];
        assert_eq!(run_i16(&example), expected);
    }

    #[test]
    fn dilation_and_groups_are_refused() {
        let changes: [fn(&mut Window); 2] = [|w| w.dilation_w = 2, |w| (w.groups, w.k_w) = (2, 6)];
        for change in changes {
            let mut example = example_i8();
            change(&mut example.p.window);
            let Case { p, weights, multipliers, shifts, .. } = &example;
            let mut output = [0; 24];
            let result = transpose_conv2d_i8(p, &[0; 12], weights, None, multipliers, shifts, &mut output);
            assert_eq!(result, Err(KernelError::Parameter));
        }
    }

    proptest! {
        #[test]
        fn transpose_conv_i8_follows_its_definition(case in case(Kind::Transposed)) {
            let sums = reference_sums(&case.p, Kind::Transposed, &case.input_i8(), &case.weights);
            prop_assert_eq!(run_i8(&case), case.finish_i8(&sums));
        }

        #[test]
        fn transpose_conv_i16_follows_its_definition(case in case(Kind::Transposed)) {
            let sums = reference_sums(&case.wide(), Kind::Transposed, &case.input, &case.weights);
            prop_assert_eq!(run_i16(&case), case.finish_i16(&sums));
        }
    }
}
