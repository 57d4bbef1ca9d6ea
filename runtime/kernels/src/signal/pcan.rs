//! Per-channel amplitude normalization (PCAN): automatic gain control by the noise estimate.

use super::check_shift;
use crate::KernelError;

/// Elements of the gain table that [`pcan`] needs.
pub const PCAN_LUT_LEN: usize = 125;

/// Fractional bits of the signal-to-noise ratio.
const SNR_BITS: u32 = 12;
/// Fractional bits of the output.
const OUTPUT_BITS: u32 = 6;

/// Multiplies each channel of `data` with the gain that belongs to its noise, shifts right by `snr_shift` and compresses
/// the small ones; in place. `gains` is a piecewise quadratic function of the noise: elements 0 ..= 2 are its values
/// there, and elements `4 b - 6 ..= 4 b - 4` the polynomial for a noise of `b` bits.
///
/// # Errors
/// [`KernelError::Parameter`] for a shift above 63, [`KernelError::Shape`] when there is not one noise for each channel
/// or the table is shorter than [`PCAN_LUT_LEN`].
pub fn pcan(snr_shift: u32, noise: &[u32], gains: &[i16], data: &mut [u32]) -> Result<(), KernelError> {
    check_shift(snr_shift, 64)?;
    let gains: &[i16; PCAN_LUT_LEN] = gains.first_chunk().ok_or(KernelError::Shape)?;
    if noise.len() != data.len() {
        return Err(KernelError::Shape);
    }
    for (channel, &noise) in data.iter_mut().zip(noise) {
        // A negative gain wraps, as in TensorFlow Lite Micro.
        let gain = i32::from(gain(gains, noise)) as u32;
        *channel = compress((u64::from(*channel).wrapping_mul(u64::from(gain)) >> snr_shift) as u32);
    }
    Ok(())
}

/// The gain at a noise of `x`.
fn gain(table: &[i16; PCAN_LUT_LEN], x: u32) -> i16 {
    if x <= 2 {
        return table[x as usize];
    }
    let bits = 32 - x.leading_zeros(); // 2 ..= 32, so that the polynomial lies within the table
    let start = 4 * bits as usize - 6;
    let Some(&[constant, linear, quadratic]) = table.get(start..).and_then(|rest| rest.first_chunk()) else {
        return 0;
    };
    // The position between two powers of two, with 10 bits.
    let fraction = (if bits < 11 { x << (11 - bits) } else { x >> (bits - 11) } & 0x3FF) as i32;
    let slope = ((i32::from(quadratic) * fraction) >> 5) + (i32::from(linear) << 5);
    let delta = slope.wrapping_mul(fraction).wrapping_add(1 << 14) >> 15;
    delta.wrapping_add(i32::from(constant)) as i16
}

/// `x^2 / 4` for `x < 2` and `x - 1` above: continuous and smooth.
fn compress(x: u32) -> u32 {
    if x < 2 << SNR_BITS {
        (x * x) >> (2 + 2 * SNR_BITS - OUTPUT_BITS)
    } else {
        (x >> (SNR_BITS - OUTPUT_BITS)) - (1 << OUTPUT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_smoothly() {
        let one = 1 << SNR_BITS;
        assert_eq!(compress(one), (1 << OUTPUT_BITS) / 4);
        assert_eq!(compress(2 * one - 1), (1 << OUTPUT_BITS) - 1);
        assert_eq!(compress(2 * one), 1 << OUTPUT_BITS);
        assert_eq!(compress(u32::MAX), (1 << 26) - 1 - 64);
    }

    #[test]
    fn the_gain_is_total_in_every_table() {
        for fill in [i16::MIN, -1, 0, i16::MAX] {
            let table = [fill; PCAN_LUT_LEN];
            for bits in 0..=32 {
                let x = ((1u64 << bits) - 1) as u32;
                gain(&table, x);
                gain(&table, x.wrapping_add(1));
            }
        }
    }

    #[test]
    fn interpolates_between_powers_of_two() {
        let mut table = [0; PCAN_LUT_LEN];
        (table[0], table[1], table[2]) = (11, 22, 33);
        // 8 <= x < 16: constant 1000, linear -64, quadratic 32, in steps of 1/1024 of the interval.
        let start = 4 * 4 - 6;
        (table[start], table[start + 1], table[start + 2]) = (1000, -640, 320);
        assert_eq!([0, 1, 2].map(|x| gain(&table, x)), [11, 22, 33]);
        // At fraction f = k/8: 1000 - 640 f + 320 f^2, rounded.
        assert_eq!([8, 9, 12, 15].map(|x| gain(&table, x)), [1000, 925, 760, 685]);
    }

    #[test]
    fn refuses_a_short_table() {
        let table = [0; PCAN_LUT_LEN];
        assert_eq!(pcan(6, &[1], &table[1..], &mut [0]), Err(KernelError::Shape));
        assert_eq!(pcan(64, &[1], &table, &mut [0]), Err(KernelError::Parameter));
        assert_eq!(pcan(6, &[1, 2], &table, &mut [0]), Err(KernelError::Shape));
    }
}
