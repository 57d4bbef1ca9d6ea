//! Arithmetic on quantized integers.

use super::Narrow;
use super::broadcast::{Broadcast, combine};
use crate::KernelError;
use crate::fixed::{Multiplier, doubling_high_mul, reciprocal_q12, rounding_shift_right};

/// The scale and zero point of one side of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The quantized value that stands for 0.
    pub zero_point: i32,
    /// Factor to (inputs) or from (output) the operator's common scale.
    pub factor: Multiplier,
}

/// Parameters of operators that first bring both operands to one scale: addition, subtraction, squared difference.
///
/// With the common scale `t = 2·max(s_a, s_b)` the factors of the operands are `s_a / t` and `s_b / t`. That of
/// the output is `t / (2^left_shift · s_out)` for a sum and `t² / (2^(2·left_shift) · s_out)` for a squared
/// difference. TensorFlow Lite sets `left_shift` to 20 for sums of int8, 15 for sums of int16, 7 for squared
/// differences of int8 and 0 for those of int16.
#[derive(Clone, Debug)]
pub struct QuantizedAdd {
    /// The operands' shapes.
    pub shape: Broadcast,
    /// Headroom given to the operands before they are scaled, in bits, 0 ..= 31.
    pub left_shift: u32,
    /// The first operand.
    pub a: Operand,
    /// The second operand.
    pub b: Operand,
    /// Whether the second operand is subtracted; no meaning for a squared difference.
    pub subtract: bool,
    /// The output.
    pub output: Operand,
    /// Smallest output, from the element type and the fused activation.
    pub min: i32,
    /// Greatest output.
    pub max: i32,
}

impl QuantizedAdd {
    fn check(&self) -> Result<(), KernelError> {
        self.a.factor.check()?;
        self.b.factor.check()?;
        self.output.factor.check()?;
        if self.left_shift <= 31 { Ok(()) } else { Err(KernelError::Parameter) }
    }

    /// An element of an operand in the common scale, times `2^left_shift`.
    #[inline(always)]
    fn align<T: Narrow>(&self, operand: Operand, value: T) -> i32 {
        let value: i32 = value.into();
        operand.factor.apply(value.wrapping_sub(operand.zero_point).wrapping_shl(self.left_shift))
    }

    #[inline(always)]
    fn finish<T: Narrow>(&self, value: i32) -> T {
        let value = self.output.factor.apply(value).wrapping_add(self.output.zero_point);
        T::narrow(value.max(self.min).min(self.max))
    }
}

/// Parameters of quantized multiplication and division.
///
/// The factor is `s_a·s_b / s_out` for a product and `s_a / (s_b·s_out)` for a quotient.
#[derive(Clone, Debug)]
pub struct QuantizedMul {
    /// The operands' shapes.
    pub shape: Broadcast,
    /// Zero point of the first operand.
    pub a_zero_point: i32,
    /// Zero point of the second operand.
    pub b_zero_point: i32,
    /// The output.
    pub output: Operand,
    /// Smallest output, from the element type and the fused activation.
    pub min: i32,
    /// Greatest output.
    pub max: i32,
}

/// Sum or difference of int8 values.
pub fn add_i8(p: &QuantizedAdd, a: Option<&[i8]>, b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    add(p, a, b, output)
}

/// Sum or difference of int16 values.
pub fn add_i16(p: &QuantizedAdd, a: Option<&[i16]>, b: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    add(p, a, b, output)
}

fn add<T: Narrow>(
    p: &QuantizedAdd,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
) -> Result<(), KernelError> {
    p.check()?;
    let sign = if p.subtract { -1 } else { 1 };
    combine(&p.shape, a, b, output, |a, b| {
        let (a, b) = (p.align(p.a, a), p.align(p.b, b));
        p.finish(a.wrapping_add(b.wrapping_mul(sign)))
    })
}

/// Squared difference of int8 values.
pub fn squared_difference_i8(
    p: &QuantizedAdd,
    a: Option<&[i8]>,
    b: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    squared_difference(p, a, b, output)
}

/// Squared difference of int16 values.
pub fn squared_difference_i16(
    p: &QuantizedAdd,
    a: Option<&[i16]>,
    b: &[i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    squared_difference(p, a, b, output)
}

fn squared_difference<T: Narrow>(
    p: &QuantizedAdd,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
) -> Result<(), KernelError> {
    p.check()?;
    combine(&p.shape, a, b, output, |a, b| {
        let difference = p.align(p.a, a).wrapping_sub(p.align(p.b, b));
        p.finish(difference.wrapping_mul(difference))
    })
}

/// Product of int8 values.
pub fn mul_i8(p: &QuantizedMul, a: Option<&[i8]>, b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    mul(p, a, b, output)
}

/// Product of int16 values.
pub fn mul_i16(p: &QuantizedMul, a: Option<&[i16]>, b: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    mul(p, a, b, output)
}

fn mul<T: Narrow>(
    p: &QuantizedMul,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
) -> Result<(), KernelError> {
    p.output.factor.check()?;
    combine(&p.shape, a, b, output, |a, b| {
        let a = a.into().wrapping_sub(p.a_zero_point);
        let b = b.into().wrapping_sub(p.b_zero_point);
        let value = p.output.factor.apply(a.wrapping_mul(b)).wrapping_add(p.output.zero_point);
        T::narrow(value.max(p.min).min(p.max))
    })
}

/// Quotient of int8 values: the reciprocal of the divisor in fixed point, times the dividend.
///
/// A divisor equal to its zero point has no defined quotient; the output is then some number within the bounds.
pub fn div_i8(p: &QuantizedMul, a: Option<&[i8]>, b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    p.output.factor.check()?;
    combine(&p.shape, a, b, output, |a, b| {
        let mut dividend = i32::from(a).wrapping_sub(p.a_zero_point);
        let mut divisor = i32::from(b).wrapping_sub(p.b_zero_point);
        if divisor < 0 {
            dividend = dividend.wrapping_neg();
            divisor = divisor.wrapping_neg();
        }
        // The divisor is an integer: 2^19 times the Q12.19 number of the same bits.
        let (reciprocal, bits) = reciprocal_q12(divisor);
        let exponent = bits + 19;
        // All bits below the sign are used, so that no precision is lost before the last shift.
        let headroom = (dividend ^ (dividend >> 31)).leading_zeros() as i32 - 1;
        let quotient = doubling_high_mul(dividend.wrapping_shl(headroom as u32), reciprocal);
        let scaled = doubling_high_mul(quotient, p.output.factor.multiplier);
        let shift: i32 = p.output.factor.shift - exponent - headroom;
        let value = match shift {
            ..-31 => 0,
            -31..=0 => rounding_shift_right(scaled, shift.unsigned_abs()),
            1.. => scaled.saturating_mul(1i32.checked_shl(shift.unsigned_abs()).unwrap_or(i32::MAX)),
        };
        value.saturating_add(p.output.zero_point).max(p.min).min(p.max) as i8
    })
}

/// The greater (`maximum`) or smaller of two int8 values of the same scale.
pub fn min_max_i8(
    shape: &Broadcast,
    maximum: bool,
    a: Option<&[i8]>,
    b: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    min_max(shape, maximum, a, b, output)
}

/// The greater (`maximum`) or smaller of two int16 values of the same scale.
pub fn min_max_i16(
    shape: &Broadcast,
    maximum: bool,
    a: Option<&[i16]>,
    b: &[i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    min_max(shape, maximum, a, b, output)
}

fn min_max<T: Narrow>(
    shape: &Broadcast,
    maximum: bool,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
) -> Result<(), KernelError> {
    if maximum { combine(shape, a, b, output, T::max) } else { combine(shape, a, b, output, T::min) }
}
