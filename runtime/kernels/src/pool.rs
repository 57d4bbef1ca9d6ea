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
