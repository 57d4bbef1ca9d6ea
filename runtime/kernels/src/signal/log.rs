//! The logarithm of filter bank channels.

use super::check_shift;
use crate::KernelError;

/// Segments of the piecewise linear logarithm between two powers of two.
const SEGMENT_BITS: u32 = 7;

/// `2^16 * (log2(1 + i / 128) - i / 128)`, rounded: what the logarithm exceeds the straight line by.
const EXCESS: [u16; 129] = [
    0, 224, 442, 654, 861, 1063, 1259, 1450, 1636, 1817, 1992, 2163, 2329, 2490, 2646, 2797, 2944, 3087,
    3224, 3358, 3487, 3611, 3732, 3848, 3960, 4068, 4172, 4272, 4368, 4460, 4549, 4633, 4714, 4791, 4864,
    4934, 5001, 5063, 5123, 5178, 5231, 5280, 5326, 5368, 5408, 5444, 5477, 5507, 5533, 5557, 5578, 5595,
    5610, 5622, 5631, 5637, 5640, 5641, 5638, 5633, 5626, 5615, 5602, 5586, 5568, 5547, 5524, 5498, 5470,
    5439, 5406, 5370, 5332, 5291, 5249, 5203, 5156, 5106, 5054, 5000, 4944, 4885, 4825, 4762, 4697, 4630,
    4561, 4490, 4416, 4341, 4264, 4184, 4103, 4020, 3935, 3848, 3759, 3668, 3575, 3481, 3384, 3286, 3186,
    3084, 2981, 2875, 2768, 2659, 2549, 2437, 2323, 2207, 2090, 1971, 1851, 1729, 1605, 1480, 1353, 1224,
    1094, 963, 830, 695, 559, 421, 282, 142, 0,
];

/// `output_scale * ln(input << correction_bits)`, at most 32767; 0 where the shifted input is 0 or 1. Bits that the
/// shift moves out are lost.
///
/// # Errors
/// [`KernelError::Parameter`] for more than 31 correction bits, [`KernelError::Shape`] when the output is not as long
/// as the input.
pub fn filter_bank_log(
    correction_bits: u32,
    output_scale: u32,
    input: &[u32],
    output: &mut [i16],
) -> Result<(), KernelError> {
    check_shift(correction_bits, 32)?;
    if input.len() != output.len() {
        return Err(KernelError::Shape);
    }
    for (out, &channel) in output.iter_mut().zip(input) {
        let scaled = channel << correction_bits;
        *out = if scaled > 1 { ln(scaled, output_scale).min(i16::MAX as u32) as i16 } else { 0 };
    }
    Ok(())
}

/// `scale * ln(x)` for `x` other than 0. The product of the logarithm (16 fractional bits) with the scale wraps at 32
/// bits.
fn ln(x: u32, scale: u32) -> u32 {
    const LN_2: u64 = 45_426; // in Q0.16
    const HALF: u32 = 1 << 15;
    let exponent = 31 - (x | 1).leading_zeros();
    let log2 = (exponent << 16) + log2_fraction(x, exponent);
    let natural = ((LN_2 * u64::from(log2) + u64::from(HALF)) >> 16) as u32;
    scale.wrapping_mul(natural).wrapping_add(HALF) >> 16
}

/// `log2(x) - exponent` in Q0.16, where `exponent` is the number of the highest bit of `x`.
fn log2_fraction(x: u32, exponent: u32) -> u32 {
    let below = x ^ (1 << exponent);
    let fraction = if exponent < 16 { below << (16 - exponent) } else { below >> (exponent - 16) };
    let segment = (fraction >> (16 - SEGMENT_BITS)) as usize;
    let position = fraction as i32 & ((1 << (16 - SEGMENT_BITS)) - 1);
    let at = |segment: usize| i32::from(EXCESS.get(segment).copied().unwrap_or(0));
    let (from, to) = (at(segment), at(segment + 1));
    // Dividing by 2^16 rather than by the segment's width of 2^9 all but drops the interpolation. So does
    // TensorFlow Lite Micro's.
    let delta = ((to - from) * position) >> 16;
    (fraction as i32 + from + delta) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn the_table_follows_its_formula() {
        for (i, &excess) in EXCESS.iter().enumerate() {
            let x = i as f64 / 128.0;
            assert_eq!(f64::from(excess), (65536.0 * ((1.0 + x).log2() - x)).round(), "{i}");
        }
    }

    #[test]
    fn is_close_to_the_logarithm_everywhere() {
        for x in (0..32)
            .flat_map(|bits| [1u32 << bits, (1 << bits) + (1 << bits >> 1), (1 << bits) + ((1 << bits) - 1)])
        {
            let expected = 1600.0 * f64::from(x).ln();
            let found = f64::from(ln(x, 1600));
            assert!((found - expected).abs() < 10.0, "{x}: {found} instead of {expected}");
        }
    }

    #[test]
    fn shifts_scales_and_saturates() {
        let mut output = [-1; 5];
        filter_bank_log(3, 1600, &[0, 1, 1000, 1 << 29, u32::MAX], &mut output).unwrap();
        assert_eq!(output, [0, 3327, 14379, 0, 32767]);
        assert_eq!(filter_bank_log(32, 1, &[0; 5], &mut output), Err(KernelError::Parameter));
        assert_eq!(filter_bank_log(0, 1, &[0; 4], &mut output), Err(KernelError::Shape));
    }
}
