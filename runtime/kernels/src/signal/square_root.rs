//! The square root of filter bank channels.

use crate::KernelError;

/// The rounded square root of every channel, shifted right by `scale_bits` (what [`fft_auto_scale`] shifted left).
///
/// `scale_bits` is known at run time only: outside of 0 ..= 31 all channels become 0.
///
/// # Errors
/// [`KernelError::Shape`] when the output is not as long as the input.
///
/// [`fft_auto_scale`]: super::fft_auto_scale
pub fn filter_bank_square_root(
    input: &[u64],
    scale_bits: i32,
    output: &mut [u32],
) -> Result<(), KernelError> {
    if input.len() != output.len() {
        return Err(KernelError::Shape);
    }
    let shift = u32::try_from(scale_bits).unwrap_or(32);
    for (out, &channel) in output.iter_mut().zip(input) {
        *out = square_root(channel).checked_shr(shift).unwrap_or(0);
    }
    Ok(())
}

/// The square root, rounded to nearest except that the root of a 32-bit number stays below 2^16 and that of a 64-bit
/// number below 2^32.
fn square_root(x: u64) -> u32 {
    let largest = if x <= u64::from(u32::MAX) { u64::from(u16::MAX) } else { u64::from(u32::MAX) };
    // Digit by digit in base 2: `rest` is what `x` exceeds the square of the root so far by.
    let (mut rest, mut root) = (x, 0u64);
    let mut bit = 1u64 << ((63 - (x | 1).leading_zeros()) & !1);
    while bit != 0 {
        if rest >= root + bit {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
        bit >>= 2;
    }
    if rest > root && root != largest {
        root += 1;
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_to_nearest() {
        let cases = [(0, 0), (1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (12, 3), (13, 4), (1 << 62, 1 << 31)];
        for (x, root) in cases {
            assert_eq!(square_root(x), root, "{x}");
        }
    }

    #[test]
    fn does_not_round_beyond_the_type() {
        assert_eq!(square_root(u64::from(u32::MAX)), 0xFFFF);
        assert_eq!(square_root(1 << 32), 0x10000);
        assert_eq!(square_root(u64::MAX), u32::MAX);
    }

    #[test]
    fn scales_down() {
        let mut output = [0; 3];
        filter_bank_square_root(&[10_000, 81, 0], 2, &mut output).unwrap();
        assert_eq!(output, [25, 2, 0]);
        for scale_bits in [-1, 32, i32::MAX] {
            filter_bank_square_root(&[10_000, 81, 0], scale_bits, &mut output).unwrap();
            assert_eq!(output, [0; 3]);
        }
        assert_eq!(filter_bank_square_root(&[1], 0, &mut output), Err(KernelError::Shape));
    }

    proptest! {
        #[test]
        fn is_the_nearest_integer(x: u64, shift in 0u32..64) {
            let x = x >> shift;
            let floor = x.isqrt();
            let nearest = floor + u64::from(x - floor * floor > floor);
            let largest = if x < 1 << 32 { 0xFFFF } else { 0xFFFF_FFFF };
            prop_assert_eq!(u64::from(square_root(x)), nearest.min(largest));
        }
    }
}
