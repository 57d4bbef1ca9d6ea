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
pub fn add_i16(
    p: &QuantizedAdd,
    a: Option<&[i16]>,
    b: &[i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    add(p, a, b, output)
}

fn add<T: Narrow>(p: &QuantizedAdd, a: Option<&[T]>, b: &[T], output: &mut [T]) -> Result<(), KernelError> {
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
pub fn mul_i16(
    p: &QuantizedMul,
    a: Option<&[i16]>,
    b: &[i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    mul(p, a, b, output)
}

fn mul<T: Narrow>(p: &QuantizedMul, a: Option<&[T]>, b: &[T], output: &mut [T]) -> Result<(), KernelError> {
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    // Expected values: TensorFlow Lite Micro on single-operator models. The scales are 0.05, 0.021 and (output)
    // 0.06, 0.06, 0.06, 0.6 for int8, and 0.0005, 0.0011 and 0.0013, 0.0013, 0.013, 0.13 for int16 sums, differences,
    // products and squared differences; the zero points of int8 are 3, -7 and 12, or -100 for squared differences.
    const A8: [i8; 8] = [-128, -100, -37, -1, 0, 64, 99, 127];
    const B8: [i8; 8] = [127, -128, 55, 0, -3, 17, -90, 127];
    const A16: [i16; 8] = [-32768, -12345, -7, 0, 1, 300, 20000, 32767];
    const B16: [i16; 8] = [32767, -32768, 1, 0, -1, -999, 12345, 32767];

    fn operand(zero_point: i32, multiplier: i32, shift: i32) -> Operand {
        Operand { zero_point, factor: Multiplier { multiplier, shift } }
    }

    fn sum_i8() -> QuantizedAdd {
        QuantizedAdd {
            shape: Broadcast::same(8),
            left_shift: 20,
            a: operand(3, 1_073_741_824, 0),
            b: operand(-7, 1_803_886_213, -2),
            subtract: false,
            output: operand(12, 1_789_569_773, -19),
            min: -128,
            max: 127,
        }
    }

    fn sum_i16() -> QuantizedAdd {
        QuantizedAdd {
            shape: Broadcast::same(8),
            left_shift: 15,
            a: operand(0, 1_952_257_965, -2),
            b: operand(0, 1_073_741_824, 0),
            subtract: false,
            output: operand(0, 1_817_101_534, -14),
            min: i16::MIN.into(),
            max: i16::MAX.into(),
        }
    }

    #[test]
    fn sums_and_differences() {
        let mut output = [0; 8];
        add_i8(&sum_i8(), Some(&A8), &B8, &mut output).unwrap();
        assert_eq!(output, [-50, -116, 0, 11, 11, 71, 63, 127]);

        let difference = QuantizedAdd { subtract: true, ..sum_i8() };
        output = A8;
        add_i8(&difference, None, &B8, &mut output).unwrap();
        assert_eq!(output, [-128, -31, -43, 6, 8, 54, 121, 68]);

        let mut output = A16;
        add_i16(&sum_i16(), None, &B16, &mut output).unwrap();
        assert_eq!(output, [15123, -32475, -2, 0, 0, -730, 18138, 32767]);
    }

    #[test]
    fn a_broadcast_sum_with_relu() {
        let mut shape = Broadcast::same(8);
        shape.a[4] = 2;
        let p = QuantizedAdd { shape, min: 12, ..sum_i8() };
        let mut output = [0; 16];
        output[..8].copy_from_slice(&A8);
        output[8..].copy_from_slice(&B8);
        add_i8(&p, None, &A8, &mut output).unwrap();
        assert_eq!(output, [12, 12, 12, 12, 12, 88, 127, 127, 73, 12, 45, 12, 12, 49, 12, 127]);
    }

    #[test]
    fn products_and_quotients() {
        let p = QuantizedMul {
            shape: Broadcast::same(8),
            a_zero_point: 3,
            b_zero_point: -7,
            output: operand(12, 1_202_590_871, -5),
            min: -128,
            max: 127,
        };
        let mut output = A8;
        mul_i8(&p, None, &B8, &mut output).unwrap();
        assert_eq!(output, [-128, 127, -31, 11, 12, 38, -127, 127]);

        let quotient = QuantizedMul { output: operand(12, 1_331_525_147, 6), ..p };
        div_i8(&quotient, Some(&A8), &B8, &mut output).unwrap();
        assert_eq!(output, [-27, 46, -14, -11, -18, 113, -34, 49]);

        let p = QuantizedMul {
            shape: Broadcast::same(8),
            a_zero_point: 0,
            b_zero_point: 0,
            output: operand(0, 1_488_569_620, -14),
            min: i16::MIN.into(),
            max: i16::MAX.into(),
        };
        let mut output = [0; 8];
        mul_i16(&p, Some(&A16), &B16, &mut output).unwrap();
        assert_eq!(output, [-32768, 17114, 0, 0, 0, -13, 10446, 32767]);
    }

    #[test]
    fn squared_differences() {
        let p = QuantizedAdd { left_shift: 7, output: operand(-100, 1_145_324_601, -19), ..sum_i8() };
        let mut output = [0; 8];
        squared_difference_i8(&p, Some(&A8), &B8, &mut output).unwrap();
        assert_eq!(output, [46, -89, -82, -100, -100, -89, -29, -81]);

        let p = QuantizedAdd { left_shift: 0, output: operand(0, 1_309_941_272, -14), ..sum_i16() };
        let mut output = A16;
        squared_difference_i16(&p, None, &B16, &mut output).unwrap();
        assert_eq!(output, [21144, 6864, 0, 0, 0, 12, 99, 2974]);
    }

    #[test]
    fn a_vanishing_quotient_is_the_zero_point() {
        // 1 / 255 · 2^-12 needs a shift of more than 31 bits.
        let p = QuantizedMul {
            shape: Broadcast::same(1),
            a_zero_point: 0,
            b_zero_point: -128,
            output: operand(5, 1 << 30, -11),
            min: -128,
            max: 127,
        };
        let mut output = [1];
        div_i8(&p, None, &[127], &mut output).unwrap();
        assert_eq!(output, [5]);
        // And one that is far beyond the range saturates.
        output = [100];
        div_i8(&QuantizedMul { output: operand(5, 1 << 30, 31), ..p }, None, &[-127], &mut output).unwrap();
        assert_eq!(output, [127]);
    }

    #[test]
    fn minimum_and_maximum() {
        let mut output = A8;
        min_max_i8(&Broadcast::same(8), true, None, &B8, &mut output).unwrap();
        assert_eq!(output, [127, -100, 55, 0, 0, 64, 99, 127]);
        let scalar = Broadcast { b: [1; 6], ..Broadcast::same(8) };
        let mut output = [0; 8];
        min_max_i16(&scalar, false, Some(&A16), &[3], &mut output).unwrap();
        assert_eq!(output, [-32768, -12345, -7, 0, 1, 3, 3, 3]);
    }

    #[test]
    fn refuses_wide_shifts() {
        let error = Err(KernelError::Parameter);
        let p = QuantizedAdd { left_shift: 32, ..sum_i8() };
        assert_eq!(add_i8(&p, None, &B8, &mut [0; 8]), error);
        let p = QuantizedAdd { b: operand(0, 1, -32), ..sum_i8() };
        assert_eq!(squared_difference_i8(&p, None, &B8, &mut [0; 8]), error);
    }

    proptest! {
        #[test]
        fn hostile_parameters_do_not_panic(
            a: [i8; 4], b: [i8; 4], words: [i32; 8], shifts in prop::array::uniform3(-31..=31), left_shift in 0..=31u32
        ) {
            let [za, zb, zo, ma, mb, mo, min, max] = words;
            let shape = Broadcast::same(4);
            let add = QuantizedAdd {
                shape: shape.clone(),
                left_shift,
                a: operand(za, ma, shifts[0]),
                b: operand(zb, mb, shifts[1]),
                subtract: true,
                output: operand(zo, mo, shifts[2]),
                min,
                max,
            };
            let mul = QuantizedMul { shape, a_zero_point: za, b_zero_point: zb, output: add.output, min, max };
            let mut output = [0; 4];
            add_i8(&add, Some(&a), &b, &mut output).unwrap();
            squared_difference_i8(&add, Some(&a), &b, &mut output).unwrap();
            mul_i8(&mul, Some(&a), &b, &mut output).unwrap();
            div_i8(&mul, Some(&a), &b, &mut output).unwrap();
        }
    }
}
