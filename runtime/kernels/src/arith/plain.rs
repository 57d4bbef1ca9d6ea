//! Arithmetic on numbers that are not quantized.

use super::broadcast::{Broadcast, combine};
use crate::KernelError;

/// What to do with two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`. Integers are truncated towards zero, and 0 when `b` is 0.
    Div,
    /// The smaller one; `b` when they do not compare (not a number).
    Minimum,
    /// The greater one; `b` when they do not compare.
    Maximum,
    /// `(a - b)²`.
    SquaredDifference,
}

/// An element-wise operator on `f32`, `i32` or `i64`. Integers wrap around.
#[derive(Clone, Debug)]
pub struct Arith<T> {
    /// The operands' shapes.
    pub shape: Broadcast,
    /// The operator.
    pub op: ArithOp,
    /// Lower bound of the output (fused activation); `-∞` or the type's minimum for none.
    pub min: T,
    /// Upper bound of the output; `∞` or the type's maximum for none.
    pub max: T,
}

/// A number with the arithmetic that an [`ArithOp`] needs.
trait Number: Copy + PartialOrd {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self / other
    }
}

macro_rules! wrapping_number {
    ($($integer:ty),+) => {$(
        impl Number for $integer {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
        }
    )+};
}

wrapping_number!(i32, i64);

/// Float arithmetic with a fused activation. Not-a-number passes through the bounds.
pub fn arith_f32(
    p: &Arith<f32>,
    a: Option<&[f32]>,
    b: &[f32],
    output: &mut [f32],
) -> Result<(), KernelError> {
    arith(p, a, b, output)
}

/// 32-bit integer arithmetic.
pub fn arith_i32(
    p: &Arith<i32>,
    a: Option<&[i32]>,
    b: &[i32],
    output: &mut [i32],
) -> Result<(), KernelError> {
    arith(p, a, b, output)
}

/// 64-bit integer arithmetic.
pub fn arith_i64(
    p: &Arith<i64>,
    a: Option<&[i64]>,
    b: &[i64],
    output: &mut [i64],
) -> Result<(), KernelError> {
    arith(p, a, b, output)
}

#[inline(always)]
fn arith<T: Number>(p: &Arith<T>, a: Option<&[T]>, b: &[T], output: &mut [T]) -> Result<(), KernelError> {
    let (min, max) = (p.min, p.max);
    // Comparisons rather than `max` and `min` calls: those would replace not-a-number by a bound.
    let clamp = |value: T| {
        let value = if value < min { min } else { value };
        if value > max { max } else { value }
    };
    match p.op {
        ArithOp::Add => combine(&p.shape, a, b, output, |a, b| clamp(a.add(b))),
        ArithOp::Sub => combine(&p.shape, a, b, output, |a, b| clamp(a.sub(b))),
        ArithOp::Mul => combine(&p.shape, a, b, output, |a, b| clamp(a.mul(b))),
        ArithOp::Div => combine(&p.shape, a, b, output, |a, b| clamp(a.div(b))),
        ArithOp::Minimum => combine(&p.shape, a, b, output, |a, b| clamp(if a < b { a } else { b })),
        ArithOp::Maximum => combine(&p.shape, a, b, output, |a, b| clamp(if a > b { a } else { b })),
        ArithOp::SquaredDifference => combine(&p.shape, a, b, output, |a, b| {
            let difference = a.sub(b);
            clamp(difference.mul(difference))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ArithOp; 7] = [
        ArithOp::Add,
        ArithOp::Sub,
        ArithOp::Mul,
        ArithOp::Div,
        ArithOp::Minimum,
        ArithOp::Maximum,
        ArithOp::SquaredDifference,
    ];

    #[test]
    fn f32_operators_with_activation() {
        let expected =
            [[5.0, 6.0], [-1.0, 6.0], [6.0, 3.5], [0.667, 6.0], [2.0, 0.5], [3.0, 6.0], [1.0, 6.0]];
        for (op, expected) in ALL.into_iter().zip(expected) {
            let p = Arith { shape: Broadcast::same(2), op, min: -1.0, max: 6.0 };
            let mut output = [2.0, 7.0];
            arith_f32(&p, None, &[3.0, 0.5], &mut output).unwrap();
            for (y, expected) in output.into_iter().zip(expected) {
                assert!((y - expected).abs() < 1e-3, "{op:?}: {y} instead of {expected}");
            }
        }
    }

    #[test]
    fn not_a_number_passes_or_yields_the_second_operand() {
        let nan = f32::NAN;
        let run = |op, a: f32, b: f32| {
            let p = Arith { shape: Broadcast::same(1), op, min: f32::NEG_INFINITY, max: f32::INFINITY };
            let mut output = [0.0];
            arith_f32(&p, Some(&[a]), &[b], &mut output).unwrap();
            output[0]
        };
        assert!(run(ArithOp::Add, nan, 1.0).is_nan());
        assert_eq!(run(ArithOp::Maximum, nan, 1.0), 1.0);
        assert!(run(ArithOp::Minimum, 1.0, nan).is_nan());
        assert_eq!(run(ArithOp::Div, 1.0, 0.0), f32::INFINITY);
    }

    #[test]
    fn integers_wrap_and_divide_by_zero() {
        let run = |op, a: i32, b: i32| {
            let p = Arith { shape: Broadcast::same(1), op, min: i32::MIN, max: i32::MAX };
            let mut output = [0];
            arith_i32(&p, Some(&[a]), &[b], &mut output).unwrap();
            output[0]
        };
        assert_eq!(run(ArithOp::Add, i32::MAX, 1), i32::MIN);
        assert_eq!(run(ArithOp::Mul, 1 << 16, 1 << 16), 0);
        assert_eq!(run(ArithOp::Div, 7, 0), 0);
        assert_eq!(run(ArithOp::Div, i32::MIN, -1), i32::MIN);
        assert_eq!(run(ArithOp::Div, -7, 2), -3);
        assert_eq!(run(ArithOp::SquaredDifference, i32::MIN, i32::MAX), 1);
        let p = Arith { shape: Broadcast::same(1), op: ArithOp::Sub, min: 0, max: 6 };
        let mut output = [1 << 40];
        arith_i64(&p, None, &[(1 << 40) + 1], &mut output).unwrap();
        assert_eq!(output, [0]);
    }
}
