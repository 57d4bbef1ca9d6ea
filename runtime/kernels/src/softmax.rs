//! Integer softmax and log-softmax over the last axis.
//!
//! TensorFlow Lite's fixed-point algorithms: differences to the row's maximum go through an exponential in Q5.26
//! (8-bit input) or through an interpolated table (16-bit input). uint8 tensors use the int8 kernels: softmax sees
//! only differences, and the outputs differ by the same 128.

use crate::KernelError;
use crate::fixed::{
    Multiplier, doubling_high_mul, exp_for_table, exp_on_negative_values, ln_q12, reciprocal_q12,
    rounding_shift_right,
};

/// Parameters of softmax on int8 input.
#[derive(Clone, Debug)]
pub struct SoftmaxI8 {
    /// Rows: the product of all axes but the last.
    pub rows: usize,
    /// Elements in a row, at least 1. Rows of up to 4096 cannot overflow the sum.
    pub depth: usize,
    /// `beta * input scale * 2^26` with an exponent of 0 ..= 31: takes a difference to Q5.26.
    pub multiplier: Multiplier,
    /// Differences to the row's maximum below this (negative) one count as exp = 0.
    pub diff_min: i32,
}

/// Softmax in place, int8 to int8 with output scale 1/256 and zero point -128.
///
/// `data`: rows × depth.
///
/// # Errors
/// [`KernelError::Shape`] when the length is wrong; [`KernelError::Parameter`] when the exponent is out of range.
pub fn softmax_i8(p: &SoftmaxI8, data: &mut [i8]) -> Result<(), KernelError> {
    check(p.rows, p.depth, data.len())?;
    check_left(p.multiplier)?;
    for row in data.chunks_exact_mut(p.depth) {
        let exp = RowExp::new(p.multiplier, p.diff_min, row);
        let (scale, exponent) = exp.scale(row, 8);
        row.iter_mut().for_each(|x| *x = (exp.share(*x, scale, exponent) - 128).min(127) as i8);
    }
    Ok(())
}

/// Softmax, int8 to int16 with output scale 1/65536 and zero point -32768.
///
/// `input` and `output`: rows × depth.
///
/// # Errors
/// [`KernelError::Shape`] when a length is wrong; [`KernelError::Parameter`] when the exponent is out of range.
pub fn softmax_i8_i16(p: &SoftmaxI8, input: &[i8], output: &mut [i16]) -> Result<(), KernelError> {
    check(p.rows, p.depth, input.len())?;
    check(p.rows, p.depth, output.len())?;
    check_left(p.multiplier)?;
    let mut rows = input.chunks_exact(p.depth);
    for outputs in output.chunks_exact_mut(p.depth) {
        let Some(inputs) = rows.next() else { break };
        let exp = RowExp::new(p.multiplier, p.diff_min, inputs);
        let (scale, exponent) = exp.scale(inputs, 16);
        for (&x, y) in inputs.iter().zip(outputs) {
            *y = (exp.share(x, scale, exponent) - 32768).min(32767) as i16;
        }
    }
    Ok(())
}

/// Parameters of log-softmax on int8.
#[derive(Clone, Debug)]
pub struct LogSoftmaxI8 {
    /// Rows: the product of all axes but the last.
    pub rows: usize,
    /// Elements in a row, at least 1. Rows of up to 4096 cannot overflow the sum.
    pub depth: usize,
    /// `input scale * 2^26` with an exponent of 0 ..= 31: takes a difference to Q5.26.
    pub multiplier: Multiplier,
    /// Takes Q5.26 back to differences: the inverse of `multiplier`.
    pub inverse: Multiplier,
    /// Differences to the row's maximum below this (negative) one count as exp = 0.
    pub diff_min: i32,
}

/// Log-softmax in place, int8 to int8 with output scale 16/256 and zero point 127.
///
/// `data`: rows × depth.
///
/// # Errors
/// [`KernelError::Shape`] when the length is wrong; [`KernelError::Parameter`] when an exponent is out of range.
pub fn log_softmax_i8(p: &LogSoftmaxI8, data: &mut [i8]) -> Result<(), KernelError> {
    check(p.rows, p.depth, data.len())?;
    check_left(p.multiplier)?;
    p.inverse.check()?;
    for row in data.chunks_exact_mut(p.depth) {
        let exp = RowExp::new(p.multiplier, p.diff_min, row);
        let log_sum = ln_q12(exp.sum(row));
        // The smallest number of Q5.26, moved by the logarithm, as a difference.
        let smallest = p.inverse.apply(log_sum.wrapping_add(i32::MIN));
        let lower = smallest.max(p.diff_min.saturating_sub(1));
        for x in row {
            let diff = i32::from(*x) - exp.max;
            *x = if diff > lower {
                let log = p.multiplier.apply(diff).wrapping_sub(log_sum);
                (rounding_shift_right(log, 22) + 127).clamp(-128, 127) as i8
            } else {
                i8::MIN
            };
        }
    }
    Ok(())
}

/// The exponentials of a row, relative to its maximum.
struct RowExp {
    multiplier: Multiplier,
    diff_min: i32,
    max: i32,
}

impl RowExp {
    fn new(multiplier: Multiplier, diff_min: i32, row: &[i8]) -> Self {
        let max = i32::from(row.iter().copied().fold(i8::MIN, i8::max));
        RowExp { multiplier, diff_min, max }
    }

    /// `exp(x - max)` in Q0.31; none where it is negligible.
    fn at(&self, x: i8) -> Option<i32> {
        let diff = i32::from(x) - self.max;
        (diff >= self.diff_min).then(|| exp_on_negative_values::<5>(self.multiplier.apply(diff)))
    }

    /// The sum over the row in Q12.19.
    fn sum(&self, row: &[i8]) -> i32 {
        row.iter().filter_map(|&x| self.at(x)).fold(0, |sum, e| sum.wrapping_add(rounding_shift_right(e, 12)))
    }

    /// What an exponential is multiplied by and shifted right by to become its share of the row, in units of
    /// `2^-bits`.
    fn scale(&self, row: &[i8], bits: i32) -> (i32, i32) {
        let (scale, over_unit) = reciprocal_q12(self.sum(row));
        (scale, over_unit + 31 - bits)
    }

    /// The share of one element.
    fn share(&self, x: i8, scale: i32, exponent: i32) -> i32 {
        match self.at(x) {
            Some(e) if (0..=31).contains(&exponent) => {
                rounding_shift_right(doubling_high_mul(scale, e), exponent as u32)
            }
            // The sum exceeds 2^bits, where the reference refuses to go on: every share rounds to zero.
            _ => 0,
        }
    }
}

/// Parameters of softmax on int16.
#[derive(Clone, Debug)]
pub struct SoftmaxI16 {
    /// Rows: the product of all axes but the last.
    pub rows: usize,
    /// Elements in a row, at least 1. Rows of up to 65536 cannot overflow the sum.
    pub depth: usize,
    /// `beta * input scale * 65535 / 10`: takes a difference to units of 10/65535.
    pub multiplier: Multiplier,
}

/// Softmax in place, int16 to int16 with zero points 0 and output scale 1/32768.
///
/// `data`: rows × depth. Exponential and reciprocal are interpolated in two constant tables of 1026
/// bytes each.
///
/// # Errors
/// [`KernelError::Shape`] when the length is wrong; [`KernelError::Parameter`] when the exponent is out of range.
pub fn softmax_i16(p: &SoftmaxI16, data: &mut [i16]) -> Result<(), KernelError> {
    check(p.rows, p.depth, data.len())?;
    p.multiplier.check()?;
    for row in data.chunks_exact_mut(p.depth) {
        let max = row.iter().copied().fold(i16::MIN, i16::max);
        let mut sum = 0i32; // Q16.15
        for x in row.iter_mut() {
            let scaled = p.multiplier.apply(i32::from(*x) - i32::from(max));
            *x = interpolate(&EXP, scaled.saturating_add(32767));
            sum = sum.wrapping_add(i32::from(*x));
        }
        // 1 / sum, with sum = (1 + fraction) * 2^(16 - headroom) in Q16.15.
        let headroom = (sum as u32).leading_zeros().clamp(1, 17);
        let normalized = ((i64::from(sum) << (headroom - 1)) + (1 << 13)) >> 14;
        let reciprocal = interpolate(&RECIPROCAL, (normalized as i32).wrapping_sub((1 << 16) + (1 << 15)));
        let right = 31 - headroom;
        for x in row {
            let product = i64::from(*x) * i64::from(reciprocal) + (1i64 << (right - 1));
            *x = ((product >> right) as i32).clamp(0, 32767) as i16;
        }
    }
    Ok(())
}

/// Looks up `x`, saturated to int16, in a table with a step of 128 and interpolates linearly.
fn interpolate(table: &[i16; TABLE_LEN], x: i32) -> i16 {
    let x = x.clamp(-32768, 32767);
    let index = ((x + 32768) >> 7) as usize; // 0 ..= 511
    let (base, next) = (table[index], table[index + 1]);
    let slope = i32::from(next.wrapping_sub(base));
    base.wrapping_add(((slope * (x & 127) + 64) >> 7) as i16)
}

const TABLE_LEN: usize = 513;

/// exp(x) for x in [-10, 0], in units of 2/65535.
static EXP: [i16; TABLE_LEN] = table(10.0 / 65535.0, 32767, true);

/// 1 / (1 + x) for x in [0, 1], in units of 2/65535.
static RECIPROCAL: [i16; TABLE_LEN] = table(1.0 / 65535.0, -32768, false);

/// Samples a function at 513 points over the int16 range `scale * (x - zero_point)`.
///
/// Each sample is moved by half of the interpolation error in the middle of its interval, which halves that error
/// everywhere. Single precision throughout, as the reference computes it.
const fn table(scale: f32, zero_point: i32, exponential: bool) -> [i16; TABLE_LEN] {
    const fn sample(x: f32, exponential: bool) -> f32 {
        if exponential { exp_for_table(x as f64) as f32 } else { 1.0 / (1.0 + x) }
    }
    let steps = (TABLE_LEN - 1) as f32;
    let first = scale * (-32768 - zero_point) as f32;
    let last = scale * (32767 - zero_point) as f32;
    let step = (last - first) / steps;
    let unit = 2.0f32 / 65535.0;
    let per_unit = 65536.0 / (unit * 32767.0 - unit * -32768.0);
    let mut table = [0; TABLE_LEN];
    let mut i = 0;
    while i < TABLE_LEN - 1 {
        let x = first + i as f32 * step;
        let here = round(sample(x, exponential) * per_unit);
        let next = sample(first + (i + 1) as f32 * step, exponential) * per_unit;
        let middle = round(sample(x + step / 2.0, exponential) * per_unit);
        let error = round((next + here) / 2.0) - middle;
        table[i] = (here - round(error / 2.0)) as i16;
        i += 1;
    }
    table[i] = round(sample(last, exponential) * per_unit) as i16;
    table
}

/// Rounds to the nearest integer, ties away from zero, for |x| < 2^23.
const fn round(x: f32) -> f32 {
    let truncated = x as i32 as f32;
    let rest = x - truncated;
    if rest >= 0.5 {
        truncated + 1.0
    } else if rest <= -0.5 {
        truncated - 1.0
    } else {
        truncated
    }
}

/// Checks a tensor's length.
fn check(rows: usize, depth: usize, len: usize) -> Result<(), KernelError> {
    if depth > 0 && rows.checked_mul(depth) == Some(len) { Ok(()) } else { Err(KernelError::Shape) }
}

/// Checks that a factor is at least 1, as the one that takes differences to Q5.26 must be.
fn check_left(multiplier: Multiplier) -> Result<(), KernelError> {
    if (0..=31).contains(&multiplier.shift) { Ok(()) } else { Err(KernelError::Parameter) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    // Outputs of TensorFlow Lite Micro (tflite_micro 0.dev20261023) for an input scale of 0.07.
    const INPUT: [i8; 16] = [-128, -90, -3, 0, 17, 64, 100, 127, 5, 4, 3, 2, 1, 0, -1, -2];

    fn params() -> SoftmaxI8 {
        let multiplier = Multiplier { multiplier: 1_202_590_848, shift: 23 };
        SoftmaxI8 { rows: 2, depth: 8, multiplier, diff_min: -248 }
    }

    fn log_params() -> LogSoftmaxI8 {
        let SoftmaxI8 { rows, depth, multiplier, diff_min } = params();
        let inverse = Multiplier { multiplier: 1_917_396_106, shift: -22 };
        LogSoftmaxI8 { rows, depth, multiplier, inverse, diff_min }
    }

    #[test]
    fn int8_equals_the_reference() {
        let mut data = INPUT;
        softmax_i8(&params(), &mut data).unwrap();
        let expected =
            [-128, -128, -128, -128, -128, -125, -95, 92, -88, -90, -93, -95, -97, -100, -101, -103];
        assert_eq!(data, expected);
        let mut wide = [0; 16];
        softmax_i8_i16(&params(), &INPUT, &mut wide).unwrap();
        let expected = [
            -32768, -32768, -32762, -32760, -32743, -32084, -24262, 23538, -22435, -23134, -23785, -24392,
            -24959, -25487, -25979, -26438,
        ];
        assert_eq!(wide, expected);
    }

    #[test]
    fn int16_equals_the_reference() {
        let mut data =
            [-32768, -9000, -300, 0, 1700, 6400, 30000, 32767, 500, 400, 300, 200, 100, 0, -100, -200];
        let multiplier = Multiplier { multiplier: 1_759_191_844, shift: 2 }; // input scale 0.0005
        softmax_i16(&SoftmaxI16 { rows: 2, depth: 8, multiplier }, &mut data).unwrap();
        let expected = [2, 2, 2, 2, 2, 2, 6566, 26192, 4847, 4611, 4386, 4172, 3968, 3775, 3591, 3416];
        assert_eq!(data, expected);
    }

    #[test]
    fn logarithm_equals_the_reference() {
        let mut data = INPUT;
        log_softmax_i8(&log_params(), &mut data).unwrap();
        assert_eq!(data, [-128, -118, -21, -18, 1, 54, 94, 125, 97, 96, 95, 94, 93, 92, 91, 90]);
    }

    #[test]
    fn tables_have_the_right_ends() {
        assert_eq!((EXP[0], EXP[512]), (2, 32767));
        assert_eq!((RECIPROCAL[0], RECIPROCAL[512]), (32767, 16384));
        assert!(EXP.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(RECIPROCAL.windows(2).all(|pair| pair[0] >= pair[1]));
    }

    #[test]
    fn a_sum_beyond_the_output_range_gives_the_smallest_output() {
        let p = SoftmaxI8 { rows: 1, depth: 600, ..params() };
        let mut data = vec![0; 600];
        softmax_i8(&p, &mut data).unwrap();
        assert!(data.iter().all(|&y| y == -128));
    }

    #[test]
    fn wrong_lengths_and_exponents_are_refused() {
        let mut data = INPUT;
        for (rows, depth) in [(2, 7), (0, 8), (16, 0), (usize::MAX, 8)] {
            let p = SoftmaxI8 { rows, depth, ..params() };
            assert_eq!(softmax_i8(&p, &mut data), Err(KernelError::Shape));
            assert_eq!(softmax_i8_i16(&p, &data, &mut [0; 16]), Err(KernelError::Shape));
            let p = LogSoftmaxI8 { rows, depth, ..log_params() };
            assert_eq!(log_softmax_i8(&p, &mut data), Err(KernelError::Shape));
            let p = SoftmaxI16 { rows, depth, multiplier: Multiplier::default() };
            assert_eq!(softmax_i16(&p, &mut [0; 16]), Err(KernelError::Shape));
        }
        for shift in [-1, 32, i32::MIN, i32::MAX] {
            let p = SoftmaxI8 { multiplier: Multiplier { multiplier: 1 << 30, shift }, ..params() };
            assert_eq!(softmax_i8(&p, &mut data), Err(KernelError::Parameter));
        }
    }

    #[test]
    fn hostile_parameters_do_not_panic() {
        for multiplier in [i32::MIN, -1, 0, 1, i32::MAX] {
            for shift in [0, 1, 31] {
                let multiplier = Multiplier { multiplier, shift };
                for diff_min in [i32::MIN, 0, i32::MAX] {
                    let p = SoftmaxI8 { multiplier, diff_min, ..params() };
                    softmax_i8(&p, &mut INPUT.clone()).unwrap();
                    softmax_i8_i16(&p, &INPUT, &mut [0; 16]).unwrap();
                    let p = LogSoftmaxI8 { multiplier, inverse: multiplier, diff_min, ..log_params() };
                    log_softmax_i8(&p, &mut INPUT.clone()).unwrap();
                }
                let mut wide = INPUT.map(|x| i16::from(x) * 256);
                softmax_i16(&SoftmaxI16 { rows: 2, depth: 8, multiplier }, &mut wide).unwrap();
            }
        }
    }
}
