//! Fixed-point arithmetic, the contract of all integer kernels.
//!
//! These are gemmlowp's primitives as TensorFlow Lite Micro uses them: a *saturating rounding doubling high
//! multiply* followed by a *rounding divide by a power of two* ("double rounding"). Written from the formulas;
//! every function is total, so hostile parameters give a wrong number, never a panic.

mod functions;

pub(crate) use functions::exp_for_table;
pub use functions::{
    doubling_high_mul_i16, exp_on_negative_values, inverse_sqrt, ln_q12, logistic, one_over_one_plus_x,
    reciprocal_q12, rescaled_inverse_sqrt, saturating_shift_left, tanh,
};

use crate::KernelError;
use crate::window::part;

/// `round(a * b / 2^31)`, ties towards plus infinity; saturates for `a = b = i32::MIN`.
#[inline(always)]
pub fn doubling_high_mul(a: i32, b: i32) -> i32 {
    let product = i64::from(a) * i64::from(b);
    let rounded = (product + (1 << 30)) >> 31;
    if rounded > i64::from(i32::MAX) { i32::MAX } else { rounded as i32 }
}

/// `round(x / 2^exponent)`, ties away from zero. `exponent` is taken modulo 32.
#[inline(always)]
pub fn rounding_shift_right(x: i32, exponent: u32) -> i32 {
    let exponent = exponent & 31;
    let mask = (1i64 << exponent) as i32;
    let mask = mask.wrapping_sub(1);
    let remainder = x & mask;
    let threshold = ((mask as u32) >> 1) as i32 + i32::from(x < 0);
    (x >> exponent) + i32::from(remainder > threshold)
}

/// A positive real factor `multiplier * 2^(shift - 31)`, with `multiplier` in `[2^30, 2^31)` or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Multiplier {
    /// The significand in Q0.31.
    pub multiplier: i32,
    /// The exponent, positive to the left; -31 ..= 31.
    pub shift: i32,
}

impl Multiplier {
    /// Checks that the exponent lies within -31 ..= 31; kernels do so on entry.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] when it does not.
    pub fn check(self) -> Result<(), KernelError> {
        if (-31..=31).contains(&self.shift) { Ok(()) } else { Err(KernelError::Parameter) }
    }

    /// Multiplies by the factor with two roundings (TensorFlow Lite's `MultiplyByQuantizedMultiplier`).
    #[inline(always)]
    pub fn apply(self, x: i32) -> i32 {
        let x = if self.shift > 0 { x.wrapping_shl(self.shift as u32) } else { x };
        // `doubling_high_mul`, which cannot saturate for a positive multiplier.
        let high = ((i64::from(x) * i64::from(self.multiplier) + (1 << 30)) >> 31) as i32;
        if self.shift >= 0 {
            return high;
        }
        // `rounding_shift_right`, shorter because `high` is not `i32::MIN`: with negative numbers moved down by one, a
        // tie away from zero is the same as a tie upwards. `!shift` is `-shift - 1`.
        let twice = high.wrapping_add(high >> 31).wrapping_shr(!self.shift as u32);
        (twice >> 1) + (twice & 1)
    }

    /// The variant for 64-bit accumulators (int16 activations): the significand is reduced to 16 bits and the
    /// result rounded once. `x` must lie within ±2^47, as every convolution's does.
    #[inline(always)]
    pub fn apply_i64(self, x: i64) -> i32 {
        let reduced = if self.multiplier < 0x7FFF_0000 {
            (self.multiplier.wrapping_add(1 << 15)) >> 16
        } else {
            0x7FFF
        };
        let total = 15i32.saturating_sub(self.shift).clamp(1, 62) as u32;
        let product = x.wrapping_mul(i64::from(reduced)).wrapping_add(1i64 << (total - 1));
        (product >> total) as i32
    }
}

/// The multipliers of a layer's output channels: one for each channel, or one for all of them.
#[derive(Clone, Copy, Debug)]
pub struct ChannelMultipliers<'a> {
    multipliers: &'a [i32],
    shifts: &'a [i8],
}

impl<'a> ChannelMultipliers<'a> {
    /// Pairs significands with exponents (see [`Multiplier`]); both slices hold `channels` elements or one.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when the lengths are neither; [`KernelError::Parameter`] when an exponent lies
    /// outside -31 ..= 31.
    pub fn new(multipliers: &'a [i32], shifts: &'a [i8], channels: usize) -> Result<Self, KernelError> {
        let count = multipliers.len();
        if count != shifts.len() || (count != channels && count != 1) {
            return Err(KernelError::Shape);
        }
        if shifts.iter().any(|shift| !(-31..=31).contains(shift)) {
            return Err(KernelError::Parameter);
        }
        Ok(ChannelMultipliers { multipliers, shifts })
    }

    /// `N` times the multiplier that all channels share, if they do.
    #[inline(always)]
    pub(crate) fn shared<const N: usize>(&self) -> Option<([i32; N], [i8; N])> {
        match (self.multipliers, self.shifts) {
            (&[multiplier], &[shift]) => Some(([multiplier; N], [shift; N])),
            _ => None,
        }
    }

    /// Significands and exponents of `len` channels from `first` on.
    #[inline(always)]
    pub(crate) fn slices(&self, first: usize, len: usize) -> (&'a [i32], &'a [i8]) {
        (part(self.multipliers, first, len), part(self.shifts, first, len))
    }

    /// The multiplier of `channel`; 0 for a channel that does not exist.
    #[inline(always)]
    pub fn get(&self, channel: usize) -> Multiplier {
        let index = if self.multipliers.len() == 1 { 0 } else { channel };
        match (self.multipliers.get(index), self.shifts.get(index)) {
            (Some(&multiplier), Some(&shift)) => Multiplier { multiplier, shift: i32::from(shift) },
            _ => Multiplier::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_round_away_from_zero() {
        let halve = |x| Multiplier { multiplier: 1 << 30, shift: 0 }.apply(x);
        // The multiplication alone rounds ties up, the shift after it away from zero.
        assert_eq!([halve(3), halve(-3)], [2, -1]);
        let quarter = |x| Multiplier { multiplier: 1 << 30, shift: -1 }.apply(x);
        assert_eq!([quarter(6), quarter(-6), quarter(2), quarter(-2)], [2, -2, 1, -1]);
        assert_eq!([rounding_shift_right(5, 1), rounding_shift_right(-5, 1)], [3, -3]);
        assert_eq!(rounding_shift_right(i32::MIN, 31), -1);
        assert_eq!(doubling_high_mul(i32::MIN, i32::MIN), i32::MAX);
    }

    #[test]
    fn wide_sums_use_sixteen_bits_of_the_multiplier() {
        let largest = Multiplier { multiplier: i32::MAX, shift: 0 };
        assert_eq!(largest.apply_i64(1 << 15), 0x7FFF);
        // -1.5 rounds up.
        assert_eq!(Multiplier { multiplier: 1 << 30, shift: 0 }.apply_i64(-3), -1);
        assert_eq!(Multiplier { multiplier: 1 << 30, shift: -16 }.apply_i64(-(1 << 40)), -(1 << 23));
    }

    #[test]
    fn channels_share_a_multiplier_or_have_their_own() {
        let own = ChannelMultipliers::new(&[1, 2, 3], &[0, -1, 1], 3).unwrap();
        assert_eq!(own.get(2), Multiplier { multiplier: 3, shift: 1 });
        assert_eq!(own.get(3), Multiplier::default());
        let shared = ChannelMultipliers::new(&[7], &[-2], 3).unwrap();
        assert_eq!(shared.get(2), Multiplier { multiplier: 7, shift: -2 });
        assert_eq!(ChannelMultipliers::new(&[1, 2], &[0, 0], 3).unwrap_err(), KernelError::Shape);
        assert_eq!(ChannelMultipliers::new(&[1], &[-32], 3).unwrap_err(), KernelError::Parameter);
    }

    proptest! {
        #[test]
        fn applying_is_a_high_multiplication_and_a_shift(
            x in any::<i32>(), multiplier in prop_oneof![Just(0), Just(i32::MAX), 1 << 30..=i32::MAX], shift in -31i32..=31
        ) {
            let shifted = x.wrapping_shl(shift.max(0) as u32);
            let expected = rounding_shift_right(doubling_high_mul(shifted, multiplier), -shift.min(0) as u32);
            prop_assert_eq!(Multiplier { multiplier, shift }.apply(x), expected);
        }

        #[test]
        fn shifting_rounds_to_the_nearest(x in any::<i32>(), exponent in 0..32u32) {
            // Exact: 53 bits hold every 32-bit number with 21 fractional bits; `f64::round` goes away from zero.
            let exact = f64::from(x) / f64::from(exponent).exp2();
            prop_assert_eq!(f64::from(rounding_shift_right(x, exponent)), exact.round());
        }
    }
}
