//! Average and maximum pooling.

use crate::KernelError;
use crate::conv::{Patch, check_i8_range, check_i16_range, clamp, for_each_patch};
use crate::window::Window;

/// A pool of integers. Input and output have the same scale and zero point.
#[derive(Clone, Debug)]
pub struct Pool2D {
    /// Shapes, strides and padding; `in_c == out_c == groups`, dilations 1. Padding takes no part in the result.
    pub window: Window,
    /// Averages are rounded as if this had been added to each element, -32768 ..= 32767; the result has it
    /// subtracted again. 0 for int8 and int16; 128 for data that was uint8 and has been shifted to int8, where half
    /// rounds away from the *uint8* 0. Without effect on a maximum.
    pub offset: i32,
    /// Smallest output value, in the range of the output's type.
    pub activation_min: i32,
    /// Largest output value, in the range of the output's type, not below `activation_min`.
    pub activation_max: i32,
}

/// Average of int8 over windows, clipped to the image: `[batch, in_h, in_w, c]` to `[batch, out_h, out_w, c]`. Ties
/// round away from zero.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the window, [`KernelError::Parameter`] when a field of `p` is out
/// of range or a window lies outside the image altogether.
pub fn average_pool2d_i8(p: &Pool2D, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check_i8_range(&[], p.activation_min, p.activation_max)?;
    p.check(input.len(), output.len())?;
    average(p, input, output, |value| value as i8);
    Ok(())
}

/// [`average_pool2d_i8`] for int16.
///
/// # Errors
/// As [`average_pool2d_i8`].
pub fn average_pool2d_i16(p: &Pool2D, input: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    check_i16_range(&[], p.activation_min, p.activation_max)?;
    p.check(input.len(), output.len())?;
    average(p, input, output, |value| value as i16);
    Ok(())
}

/// Maximum of int8 over windows, clipped to the image: `[batch, in_h, in_w, c]` to `[batch, out_h, out_w, c]`.
///
/// # Errors
/// As [`average_pool2d_i8`].
pub fn max_pool2d_i8(p: &Pool2D, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check_i8_range(&[], p.activation_min, p.activation_max)?;
    p.check(input.len(), output.len())?;
    pool(&p.window, input, output, i8::MIN, i8::max, |value, _| {
        clamp(value.into(), p.activation_min, p.activation_max) as i8
    });
    Ok(())
}

/// [`max_pool2d_i8`] for int16.
///
/// # Errors
/// As [`average_pool2d_i8`].
pub fn max_pool2d_i16(p: &Pool2D, input: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    check_i16_range(&[], p.activation_min, p.activation_max)?;
    p.check(input.len(), output.len())?;
    pool(&p.window, input, output, i16::MIN, i16::max, |value, _| {
        clamp(value.into(), p.activation_min, p.activation_max) as i16
    });
    Ok(())
}

impl Pool2D {
    fn check(&self, input: usize, output: usize) -> Result<(), KernelError> {
        let w = &self.window;
        w.check()?;
        let per_channel = w.in_c == w.out_c && w.in_c == w.groups && w.dilation_h == 1 && w.dilation_w == 1;
        // Windows only move forwards: if the first and the last meet the image, so do all between them.
        let meets_image = [w.rows(0), w.rows(w.out_h - 1), w.columns(0), w.columns(w.out_w - 1)]
            .iter()
            .all(|taps| taps.count > 0);
        if !per_channel || !meets_image || i16::try_from(self.offset).is_err() {
            return Err(KernelError::Parameter);
        }
        let fits = w.input_len() == Some(input) && w.output_len() == Some(output);
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }
}

#[inline(always)]
fn average<T: Copy + Into<i32>>(p: &Pool2D, input: &[T], output: &mut [T], narrow: impl Fn(i32) -> T) {
    let add = |sum: i32, value: T| sum.wrapping_add(value.into()).wrapping_add(p.offset);
    pool(&p.window, input, output, 0, add, |sum, count| {
        let half = count / 2;
        let nudged = if sum > 0 { sum.wrapping_add(half) } else { sum.wrapping_sub(half) };
        let mean = nudged.checked_div(count).unwrap_or(0);
        narrow(clamp(mean.wrapping_sub(p.offset), p.activation_min, p.activation_max))
    });
}

/// Neighbouring channels reduced together.
const LANES: usize = if cfg!(target_arch = "arm") { 4 } else { 16 };

/// Folds each window, channel by channel, from `init` on; `finish` gets the result and the number of elements.
#[inline(always)]
fn pool<T: Copy, A: Copy>(
    window: &Window,
    input: &[T],
    output: &mut [T],
    init: A,
    fold: impl Fn(A, T) -> A,
    finish: impl Fn(A, i32) -> T,
) {
    for_each_patch(window, input, output, |patch, pixel| {
        let count = (patch.rows.count * patch.columns.count) as i32;
        let mut start = 0;
        while start < window.in_c {
            // The last block overlaps its neighbour rather than being shorter.
            if let Some(last) = window.in_c.checked_sub(LANES) {
                start = start.min(last);
                let values: [A; LANES] = reduce(patch, start, init, &fold);
                for (out, value) in pixel.iter_mut().skip(start).zip(values) {
                    *out = finish(value, count);
                }
                start += LANES;
            } else {
                let [value] = reduce(patch, start, init, &fold);
                if let Some(out) = pixel.get_mut(start) {
                    *out = finish(value, count);
                }
                start += 1;
            }
        }
    });
}

/// Folds `N` channels from `channel` on over the taps inside the image.
#[inline(always)]
fn reduce<T: Copy, A: Copy, const N: usize>(
    patch: &Patch<'_, T>,
    channel: usize,
    init: A,
    fold: impl Fn(A, T) -> A,
) -> [A; N] {
    let mut results = [init; N];
    let depth = patch.window.in_c;
    patch.for_each_row(|pixel, _| {
        let values = patch.image.get(pixel * depth + channel..).unwrap_or_default();
        for values in values.chunks(depth.max(1)).take(patch.columns.count) {
            if let Some(values) = values.first_chunk::<N>() {
                for j in 0..N {
                    results[j] = fold(results[j], values[j]);
                }
            }
        }
    });
    results
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::conv::testing::{pattern_i8, pattern_i16};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// 5x4x3 to 3x2x3, 3x2 taps, stride 2, one row of padding above.
    fn example() -> Pool2D {
        let window = Window {
            batch: 1,
            in_h: 5,
            in_w: 4,
            in_c: 3,
            out_h: 3,
            out_w: 2,
            out_c: 3,
            k_h: 3,
            k_w: 2,
            stride_h: 2,
            stride_w: 2,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 1,
            pad_left: 0,
            groups: 3,
        };
        Pool2D { window, offset: 0, activation_min: -3, activation_max: 127 }
    }

    fn example_i16() -> Pool2D {
        let window = Window {
            in_h: 3,
            in_w: 3,
            in_c: 2,
            out_w: 2,
            out_c: 2,
            k_h: 2,
            k_w: 2,
            stride_h: 1,
            pad_top: 0,
            groups: 2,
            ..example().window
        };
        Pool2D { window, offset: 0, activation_min: -32768, activation_max: 32767 }
    }

    // Golden vectors: TensorFlow Lite Micro (PyPI tflite-micro, October 2026), single-operator models over the
    // pattern.

    #[test]
    fn average_equals_tensorflow_lite_micro() {
        let mut output = [0; 18];
        average_pool2d_i8(&example(), &pattern_i8(60, 37, 11), &mut output).unwrap();
        assert_eq!(output, [-3, 6, -3, -2, -3, 9, 16, 10, 5, -3, 19, 13, 21, -3, 31, -3, 24, -3]);
        let mut output = [0; 12];
        average_pool2d_i16(&example_i16(), &pattern_i16(18, 9377, 11), &mut output).unwrap();
        let expected = [-11633, -18640, 114, 9491, -4523, -11530, -9160, 217, -9160, 217, -13797, -4420];
        assert_eq!(output, expected);
    }

    #[test]
    fn maximum_equals_tensorflow_lite_micro() {
        let mut p = example();
        p.window = Window {
            in_h: 4,
            out_h: 2,
            out_w: 4,
            k_h: 2,
            k_w: 3,
            stride_w: 1,
            pad_top: 0,
            pad_left: 1,
            ..p.window
        };
        p.activation_max = 117;
        let mut output = [0; 24];
        max_pool2d_i8(&p, &pattern_i8(48, 37, 11), &mut output).unwrap();
        let expected = [
            71, 108, 68, 105, 108, 111, 105, 74, 111, 105, 74, 111, 114, 83, 117, 114, 83, 117, 114, 117,
            117, 80, 117, 86,
        ];
        assert_eq!(output, expected);
        let mut p = example_i16();
        (p.window.stride_h, p.window.out_h) = (2, 2);
        let mut output = [0; 8];
        max_pool2d_i16(&p, &pattern_i16(18, 9377, 11), &mut output).unwrap();
        assert_eq!(output, [23505, -4626, 4751, 14128, 14231, 23608, -13797, -4420]);
    }

    #[test]
    fn ties_round_away_from_the_unsigned_zero() {
        let mut p = Pool2D { activation_min: -128, activation_max: 127, ..example() };
        p.window =
            Window { in_h: 1, in_w: 2, in_c: 1, out_h: 1, out_w: 1, out_c: 1, k_h: 1, k_w: 2, ..p.window };
        (p.window.pad_top, p.window.groups) = (0, 1);
        let mean = |offset: i32| {
            let mut output = [0];
            average_pool2d_i8(&Pool2D { offset, ..p.clone() }, &[-4, -5], &mut output).unwrap();
            output[0]
        };
        assert_eq!(mean(0), -5);
        // The same bytes as uint8: (124 + 123) / 2 rounds to 124.
        assert_eq!(mean(128), -4);
    }

    #[test]
    fn windows_must_meet_the_image() {
        let changes: [fn(&mut Window); 5] = [
            |w| w.pad_top = 3,
            |w| w.out_w = 3,
            |w| w.dilation_h = 2,
            |w| w.groups = 1,
            |w| (w.out_c, w.groups) = (1, 1),
        ];
        for change in changes {
            let mut p = example();
            change(&mut p.window);
            let mut output = vec![0; p.window.output_len().unwrap()];
            assert_eq!(max_pool2d_i8(&p, &[0; 60], &mut output), Err(KernelError::Parameter), "{p:?}");
        }
        assert_eq!(max_pool2d_i8(&example(), &[0; 59], &mut [0; 18]), Err(KernelError::Shape));
    }

    proptest! {
        #[test]
        fn pools_follow_their_definition(
            (h, w, c) in (1..8usize, 1..8usize, 1..20usize),
            (k_h, k_w, stride_h, stride_w) in (1..5usize, 1..5usize, 1..4usize, 1..4usize),
            (pad_top, pad_left) in (0..4usize, 0..4usize),
            offset in prop_oneof![Just(0), Just(128)],
            seed in 0..1000usize,
        ) {
            let (pad_top, pad_left) = (pad_top.min(k_h - 1), pad_left.min(k_w - 1));
            // As many windows as begin inside the image.
            let (out_h, out_w) = ((h - 1 + pad_top) / stride_h + 1, (w - 1 + pad_left) / stride_w + 1);
            let window = Window {
                batch: 1, in_h: h, in_w: w, in_c: c, out_h, out_w, out_c: c, k_h, k_w, stride_h, stride_w,
                dilation_h: 1, dilation_w: 1, pad_top, pad_left, groups: c,
            };
            let p = Pool2D { window, offset, activation_min: -100, activation_max: 90 };
            let input = pattern_i8(h * w * c, 2 * seed + 1, seed);
            let len = out_h * out_w * c;
            let (mut mean, mut max) = (vec![0; len], vec![0; len]);
            average_pool2d_i8(&p, &input, &mut mean).unwrap();
            max_pool2d_i8(&p, &input, &mut max).unwrap();
            for i in 0..len {
                let (y, x, channel) = (i / c / out_w, i / c % out_w, i % c);
                let rows = (y * stride_h).max(pad_top) - pad_top..(y * stride_h + k_h - pad_top).min(h);
                let columns = || (x * stride_w).max(pad_left) - pad_left..(x * stride_w + k_w - pad_left).min(w);
                let seen: Vec<i32> = rows
                    .flat_map(|row| columns().map(move |column| (row, column)))
                    .map(|(row, column)| i32::from(input[(row * w + column) * c + channel]))
                    .collect();
                // Ties away from zero, like `f64::round`.
                let exact = seen.iter().map(|v| v + offset).sum::<i32>() as f64 / seen.len() as f64;
                prop_assert_eq!(i32::from(mean[i]), (exact.round() as i32 - offset).clamp(-100, 90));
                prop_assert_eq!(i32::from(max[i]), seen.into_iter().max().unwrap().clamp(-100, 90));
            }
        }
    }
}
