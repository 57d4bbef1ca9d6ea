//! Elementary functions of fixed-point numbers.
//!
//! The polynomials, iterations and constants are those of gemmlowp's fixed-point library, on which TensorFlow Lite's
//! integer softmax, logistic, tanh and normalizations rest; every rounding step is part of the contract. `Qm.n` is
//! a signed 32-bit number with m integer and n fractional bits.

use super::{Multiplier, doubling_high_mul, rounding_shift_right};

/// The largest number below 1.0 in Q0.31; gemmlowp's "one".
const ONE_Q0: i32 = i32::MAX;

/// `round(a * b / 2^15)`, ties towards plus infinity; saturates for `a = b = i16::MIN`.
#[inline(always)]
pub fn doubling_high_mul_i16(a: i16, b: i16) -> i16 {
    let rounded = (i32::from(a) * i32::from(b) + (1 << 14)) >> 15;
    rounded.min(i32::from(i16::MAX)) as i16
}

/// `x * 2^exponent`, saturating. Exponents above 31 count as 31.
#[inline(always)]
pub fn saturating_shift_left(x: i32, exponent: u32) -> i32 {
    let shifted = i64::from(x) << exponent.min(31);
    shifted.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// `(a + b) / 2`, ties away from zero.
#[inline(always)]
fn rounding_half_sum(a: i32, b: i32) -> i32 {
    let sum = i64::from(a) + i64::from(b);
    ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32
}

/// `exp(a)` for `a` in [-1/4, 0), both in Q0.31: the Taylor polynomial of degree 4 around -1/8.
#[inline(always)]
fn exp_of_small(a: i32) -> i32 {
    const EXP_OF_MINUS_EIGHTH: i32 = 1_895_147_668;
    const THIRD: i32 = 715_827_883;
    let x = a.wrapping_add(1 << 28);
    let x2 = doubling_high_mul(x, x);
    let x3 = doubling_high_mul(x2, x);
    let x4_over_4 = rounding_shift_right(doubling_high_mul(x2, x2), 2);
    let cubic_and_up = doubling_high_mul(x4_over_4.wrapping_add(x3), THIRD);
    let quadratic_and_up = rounding_shift_right(cubic_and_up.wrapping_add(x2), 1);
    let factor = x.wrapping_add(quadratic_and_up);
    EXP_OF_MINUS_EIGHTH.wrapping_add(doubling_high_mul(EXP_OF_MINUS_EIGHTH, factor))
}

/// `exp(a)` in Q0.31 for `a <= 0` with `INTEGER_BITS` integer bits (2 to 5, checked when compiled).
///
/// The fraction below 1/4 goes through a polynomial; each remaining bit of `-a` multiplies by a constant.
pub fn exp_on_negative_values<const INTEGER_BITS: u32>(a: i32) -> i32 {
    const { assert!(INTEGER_BITS >= 2 && INTEGER_BITS <= 5) };
    // exp(-2^e) in Q0.31 for e = -2, -1, …, 4.
    const EXP_OF_MINUS_POWERS: [i32; 7] =
        [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if a == 0 {
        return ONE_Q0;
    }
    let quarter = 1i32 << (29 - INTEGER_BITS);
    let small = (a & (quarter - 1)) - quarter;
    let mut result = exp_of_small(small << INTEGER_BITS);
    let remainder = small.wrapping_sub(a);
    let mut bit = quarter;
    for factor in EXP_OF_MINUS_POWERS.into_iter().take(INTEGER_BITS as usize + 2) {
        if remainder & bit != 0 {
            result = doubling_high_mul(result, factor);
        }
        bit = bit.wrapping_shl(1);
    }
    result
}

/// `2 / (1 + a)` in Q2.29 for `a` in [0, 1) in Q0.31, by three steps of Newton-Raphson division.
#[inline(always)]
fn two_over_one_plus(a: i32) -> i32 {
    const START: i32 = 1_515_870_810; // 48/17 in Q2.29
    const SLOPE: i32 = -1_010_580_540; // -32/17 in Q2.29
    let half_denominator = rounding_half_sum(a, ONE_Q0);
    let mut x = START.wrapping_add(doubling_high_mul(half_denominator, SLOPE));
    for _ in 0..3 {
        let error = (1i32 << 29).wrapping_sub(doubling_high_mul(half_denominator, x));
        x = x.wrapping_add(saturating_shift_left(doubling_high_mul(x, error), 2));
    }
    x
}

/// `1 / (1 + a)` in Q0.31 for `a` in [0, 1) in Q0.31.
#[inline(always)]
pub fn one_over_one_plus_x(a: i32) -> i32 {
    saturating_shift_left(two_over_one_plus(a), 1)
}

/// `1 / (1 + exp(-x))` in Q0.31 for `x` in Q4.27.
pub fn logistic(x: i32) -> i32 {
    if x == 0 {
        return 1 << 30;
    }
    let magnitude_negated = if x > 0 { x.wrapping_neg() } else { x };
    let of_magnitude = one_over_one_plus_x(exp_on_negative_values::<4>(magnitude_negated));
    if x > 0 { of_magnitude } else { ONE_Q0.wrapping_sub(of_magnitude) }
}

/// `tanh(x)` in Q0.31 for `x` in Q4.27.
pub fn tanh(x: i32) -> i32 {
    if x == 0 {
        return 0;
    }
    let magnitude_negated = if x < 0 { x } else { x.wrapping_neg() };
    // The same bits with one more integer bit are twice the number: (1 - exp(-2x)) / (1 + exp(-2x)).
    let quotient = two_over_one_plus(exp_on_negative_values::<5>(magnitude_negated));
    let of_magnitude = saturating_shift_left(quotient.wrapping_sub(1 << 29), 2);
    if x < 0 { of_magnitude.wrapping_neg() } else { of_magnitude }
}

/// The reciprocal of a positive number in Q12.19.
///
/// Returns (`r` in Q0.31, `bits`) with `1 / x = r * 2^-bits` and `r` in [1/2, 1]; `bits` is negative for `x < 1`.
#[inline(always)]
pub fn reciprocal_q12(x: i32) -> (i32, i32) {
    let headroom = (x as u32).leading_zeros();
    let fraction = (x as u32).wrapping_shl(headroom).wrapping_sub(1 << 31) as i32;
    (one_over_one_plus_x(fraction), 12 - headroom as i32)
}

/// The natural logarithm, in Q5.26, of a number of at least 1 in Q12.19.
///
/// Two candidates for the normalized argument, a factor of sqrt(1/2) apart, keep the rational approximation close to
/// its centre sqrt(sqrt(1/2)).
pub fn ln_q12(x: i32) -> i32 {
    const LN_2: i32 = 1_488_522_236;
    const SQRT_HALF: i32 = 1_518_500_250;
    const FOURTH_ROOT_HALF: i32 = 1_805_811_301;
    const ALPHA_N: i32 = 117_049_297; // 11/240 * 2^(1/4)
    const ALPHA_D: i32 = 127_690_142; // 1/20 * 2^(1/4)
    const ALPHA_I: i32 = 1_057_819_769; // 2 / 2^(1/4) - 2^(1/4)
    const ALPHA_F: i32 = 638_450_708; // 1/4 * 2^(1/4)
    const QUARTER_Q6: i32 = 1 << 23;

    let power = |bits: i32| saturating_shift_left(bits, 25); // an integer in Q6.25
    let headroom_a = (x as u32).leading_zeros() as i32 - 1;
    let shifted = saturating_shift_left(x, headroom_a.max(0) as u32);
    let r_a = saturating_shift_left(doubling_high_mul(shifted, SQRT_HALF), 1);
    let power_a = power(11 - headroom_a).saturating_add(QUARTER_Q6);

    let headroom_b = (doubling_high_mul(x, SQRT_HALF) as u32).leading_zeros() as i32 - 1;
    let r_b = saturating_shift_left(x, headroom_b.max(0) as u32);
    let power_b = power(12 - headroom_b).saturating_sub(QUARTER_Q6);

    let r = r_a.min(r_b);
    let power = power_a.max(power_b);

    let p = rounding_half_sum(r, FOURTH_ROOT_HALF);
    let q = r.wrapping_sub(FOURTH_ROOT_HALF).wrapping_mul(2);
    let q2 = doubling_high_mul(q, q);
    let numerator =
        doubling_high_mul(q, r).wrapping_add(doubling_high_mul(doubling_high_mul(q, q2), ALPHA_N));
    let inner = ALPHA_I.wrapping_add(q).wrapping_add(doubling_high_mul(ALPHA_D, q2));
    let denominator_minus_one = doubling_high_mul(p, inner).wrapping_add(doubling_high_mul(ALPHA_F, q));
    let fraction =
        doubling_high_mul(rounding_shift_right(numerator, 6), one_over_one_plus_x(denominator_minus_one));
    saturating_shift_left(doubling_high_mul(power, LN_2).wrapping_add(fraction), 1)
}

/// `1 / sqrt(x)` of an integer as a factor; 0 and 1, and negative numbers, give (almost) 1.
///
/// Five steps of Newton's iteration in Q3.28 from 1. The significand is not normalized to [2^30, 2^31).
pub fn inverse_sqrt(x: i32) -> Multiplier {
    const SQRT_HALF: i32 = 1_518_500_250; // Q0.31
    const THREE_HALVES: i32 = 3 << 27; // Q3.28
    if x <= 1 {
        return Multiplier { multiplier: i32::MAX, shift: 0 };
    }
    let mut x = x;
    let mut right = 11i32;
    while x >= 1 << 29 {
        x /= 4;
        right += 1;
    }
    let pairs = ((x.leading_zeros().saturating_sub(1)) / 2).saturating_sub(1);
    right -= pairs as i32;
    let half = rounding_shift_right((x << (2 * pairs)) >> 1, 1);
    let mut y = 1i32 << 28;
    for _ in 0..5 {
        let cube = saturating_shift_left(doubling_high_mul(doubling_high_mul(y, y), y), 6);
        let next = doubling_high_mul(THREE_HALVES, y).wrapping_sub(doubling_high_mul(half, cube));
        y = saturating_shift_left(next, 3);
    }
    let y = doubling_high_mul(y, SQRT_HALF);
    if right < 0 {
        Multiplier { multiplier: y.wrapping_shl(right.unsigned_abs()), shift: 0 }
    } else {
        Multiplier { multiplier: y, shift: -right }
    }
}

/// `factor / sqrt(x)` of a positive integer, rounded to an integer.
///
/// 20 bits of fraction are kept between the two factors. `factor` may go down to 2^-11; below, the result is 0 anyway
/// for every x that a quantized tensor holds.
pub fn rescaled_inverse_sqrt(x: i32, factor: Multiplier) -> i32 {
    const FRACTION_BITS: i32 = 20;
    let inverse = inverse_sqrt(x);
    let inverse = Multiplier { shift: inverse.shift + FRACTION_BITS, ..inverse };
    let factor = Multiplier { shift: factor.shift.saturating_sub(FRACTION_BITS), ..factor };
    factor.apply(inverse.apply(1))
}

/// `exp(x)` in double precision for tables that are built when compiled; accurate to about one unit in the last place
/// for |x| < 700.
pub(crate) const fn exp_for_table(x: f64) -> f64 {
    // ln 2 in two parts, so that the reduced argument keeps all its bits (fdlibm's split).
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let halves = (x / (LN_2_HIGH + LN_2_LOW)) as i32;
    let r = (x - halves as f64 * LN_2_HIGH) - halves as f64 * LN_2_LOW;
    // |r| < 0.7: the 24th term of the Taylor series lies below 2^-90.
    let mut sum = 1.0;
    let mut n = 24;
    while n > 0 {
        sum = 1.0 + sum * r / n as f64;
        n -= 1;
    }
    let mut i = 0;
    while i < halves {
        sum *= 2.0;
        i += 1;
    }
    while i > halves {
        sum /= 2.0;
        i -= 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    const Q31: f64 = 2147483648.0;

    #[test]
    fn functions_approximate_the_real_ones() {
        for raw in (-2_000_000_000..2_000_000_000).step_by(1_234_567) {
            let x = f64::from(raw) / f64::from(1 << 27);
            assert!((f64::from(logistic(raw)) / Q31 - 1.0 / (1.0 + (-x).exp())).abs() < 1e-6, "logistic {x}");
            assert!((f64::from(tanh(raw)) / Q31 - x.tanh()).abs() < 1e-6, "tanh {x}");
        }
        for raw in (0..2_000_000_000).step_by(1_234_567) {
            let x = -f64::from(raw) / f64::from(1 << 26);
            assert!((f64::from(exp_on_negative_values::<5>(-raw)) / Q31 - x.exp()).abs() < 1e-6, "exp {x}");
        }
        for raw in (1 << 19..=i32::MAX).step_by(1_234_567) {
            let x = f64::from(raw) / f64::from(1 << 19);
            let (r, bits) = reciprocal_q12(raw);
            assert!((f64::from(r) / Q31 / f64::from(bits).exp2() * x - 1.0).abs() < 1e-6, "reciprocal {x}");
            assert!((f64::from(ln_q12(raw)) / f64::from(1 << 26) - x.ln()).abs() < 1e-6, "ln {x}");
        }
        for x in [2, 3, 4, 1000, 65_536, (1 << 29) - 1, 1 << 29, i32::MAX] {
            let m = inverse_sqrt(x);
            let value = f64::from(m.multiplier) * f64::from(m.shift - 31).exp2();
            let error = value * f64::from(x).sqrt() - 1.0;
            assert!(error.abs() < 2e-6, "1/sqrt {x}: {error}");
        }
    }

    #[test]
    fn special_arguments() {
        assert_eq!(logistic(0), 1 << 30);
        assert_eq!(tanh(0), 0);
        assert_eq!(exp_on_negative_values::<5>(0), i32::MAX);
        assert_eq!(inverse_sqrt(0), inverse_sqrt(1));
        assert_eq!(inverse_sqrt(-5), inverse_sqrt(1));
        assert_eq!(doubling_high_mul_i16(i16::MIN, i16::MIN), i16::MAX);
        assert_eq!(saturating_shift_left(-1, 40), i32::MIN);
        assert_eq!(saturating_shift_left(1 << 20, 11), i32::MAX);
    }

    #[test]
    fn any_argument_is_safe() {
        for x in [i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX] {
            let _ = (logistic(x), tanh(x), ln_q12(x), inverse_sqrt(x), reciprocal_q12(x));
            let _ = (exp_on_negative_values::<2>(x), exp_on_negative_values::<5>(x));
        }
    }

    #[test]
    fn table_exponential_matches_the_library() {
        for i in -2000..=200 {
            let x = f64::from(i) * 0.013;
            assert!((exp_for_table(x) / x.exp() - 1.0).abs() < 1e-15, "{x}");
        }
    }
}
