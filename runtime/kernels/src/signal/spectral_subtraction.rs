//! Noise suppression by spectral subtraction.

use super::check_shift;
use crate::KernelError;

/// Parameters of [`spectral_subtraction`]. All coefficients have `spectral_subtraction_bits` fractional bits.
#[derive(Clone, Debug)]
pub struct SpectralSubtraction {
    /// How fast the estimate of even channels follows the signal.
    pub smoothing: u32,
    /// 1 - `smoothing`.
    pub one_minus_smoothing: u32,
    /// How fast the estimate of odd channels follows the signal.
    pub alternate_smoothing: u32,
    /// 1 - `alternate_smoothing`.
    pub alternate_one_minus_smoothing: u32,
    /// The part of the signal that always remains.
    pub min_signal_remaining: u32,
    /// Fractional bits of the estimate, 0 ..= 31.
    pub smoothing_bits: u32,
    /// Fractional bits of the coefficients, 0 ..= 63.
    pub spectral_subtraction_bits: u32,
    /// The estimate never stays above the signal.
    pub clamping: bool,
}

/// Subtracts the noise from each channel of `input`. `estimate` is the state: the smoothed signal of each channel with
/// `smoothing_bits` fractional bits, zeros at first. `noise` receives a copy of it.
///
/// # Errors
/// [`KernelError::Parameter`] for a number of bits out of range, [`KernelError::Shape`] when the slices are not all as
/// long.
pub fn spectral_subtraction(
    p: &SpectralSubtraction,
    input: &[u32],
    estimate: &mut [u32],
    output: &mut [u32],
    noise: &mut [u32],
) -> Result<(), KernelError> {
    check_shift(p.smoothing_bits, 32)?;
    check_shift(p.spectral_subtraction_bits, 64)?;
    let channels = input.len();
    if estimate.len() != channels || output.len() != channels || noise.len() != channels {
        return Err(KernelError::Shape);
    }
    let part = |x: u32, coefficient: u32| u64::from(x).wrapping_mul(u64::from(coefficient));
    let channels = input.iter().zip(estimate.iter_mut()).zip(output);
    for (channel, ((&signal, estimate), out)) in channels.enumerate() {
        let (smoothing, one_minus) = match channel % 2 {
            0 => (p.smoothing, p.one_minus_smoothing),
            _ => (p.alternate_smoothing, p.alternate_one_minus_smoothing),
        };
        let scaled = signal << p.smoothing_bits;
        let smoothed = part(scaled, smoothing).wrapping_add(part(*estimate, one_minus));
        *estimate = (smoothed >> p.spectral_subtraction_bits) as u32;
        let subtrahend = scaled.min(*estimate);
        if p.clamping {
            *estimate = subtrahend;
        }
        let floor = (part(signal, p.min_signal_remaining) >> p.spectral_subtraction_bits) as u32;
        *out = ((scaled - subtrahend) >> p.smoothing_bits).max(floor);
    }
    noise.copy_from_slice(estimate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: SpectralSubtraction = SpectralSubtraction {
        smoothing: 410,
        one_minus_smoothing: 15974,
        alternate_smoothing: 983,
        alternate_one_minus_smoothing: 15401,
        min_signal_remaining: 819,
        smoothing_bits: 10,
        spectral_subtraction_bits: 14,
        clamping: false,
    };

    /// Runs a signal of two channels; returns the outputs and noise estimates of each step.
    fn run<const N: usize>(p: &SpectralSubtraction, signal: [[u32; 2]; N]) -> [[u32; 4]; N] {
        let mut estimate = [0; 2];
        signal.map(|input| {
            let (mut output, mut noise) = ([0; 2], [0; 2]);
            spectral_subtraction(p, &input, &mut estimate, &mut output, &mut noise).unwrap();
            assert_eq!(noise, estimate);
            [output[0], output[1], noise[0], noise[1]]
        })
    }

    #[test]
    fn the_estimate_follows_each_channel_at_its_own_pace() {
        let steps = run(&PARAMETERS, [[1000, 1000], [1000, 1000], [10, 10]]);
        // Step 1: 1000 * 410 / 2^14 = 25.02; 1000 * 983 / 2^14 = 59.99.
        assert_eq!(steps[0], [974, 940, 25_625, 61_437]);
        assert_eq!(steps[1], [950, 883, 50_608, 119_188]);
        // The signal falls below the estimate: the floor of 5 % remains, which is 0 here.
        assert_eq!(steps[2], [0, 0, 49_597, 112_651]);
    }

    #[test]
    fn clamping_pulls_the_estimate_down() {
        let p = SpectralSubtraction { clamping: true, ..PARAMETERS };
        assert_eq!(run(&p, [[1000, 1000], [1000, 1000], [10, 10]])[2], [0, 0, 10_240, 10_240]);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let check = |p: &SpectralSubtraction, n: usize| {
            spectral_subtraction(p, &[0; 2], &mut [0; 2][..n], &mut [0; 2], &mut [0; 2])
        };
        assert_eq!(check(&PARAMETERS, 1), Err(KernelError::Shape));
        let wide = SpectralSubtraction { smoothing_bits: 32, ..PARAMETERS };
        assert_eq!(check(&wide, 2), Err(KernelError::Parameter));
        let wide = SpectralSubtraction { spectral_subtraction_bits: 64, ..PARAMETERS };
        assert_eq!(check(&wide, 2), Err(KernelError::Parameter));
    }
}
