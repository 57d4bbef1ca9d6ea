//! What happens to samples before the FFT: the window and the automatic scaling.

use super::check_shift;
use crate::KernelError;

/// Multiplies every frame of `input` with `weights` (one frame): `(input * weight) >> shift`, saturated to int16.
/// `input` and `output` hold any number of frames.
///
/// # Errors
/// [`KernelError::Parameter`] for a shift above 31, [`KernelError::Shape`] when the input is not a whole number of
/// frames or the output is not as long.
pub fn window(shift: u32, input: &[i16], weights: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    check_shift(shift, 32)?;
    let frame = weights.len();
    if frame == 0 || input.len() != output.len() || !input.len().is_multiple_of(frame) {
        return Err(KernelError::Shape);
    }
    for (samples, out) in input.chunks_exact(frame).zip(output.chunks_exact_mut(frame)) {
        for ((out, &sample), &weight) in out.iter_mut().zip(samples).zip(weights) {
            let product = (i32::from(sample) * i32::from(weight)) >> shift;
            *out = product.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
    }
    Ok(())
}

/// Shifts samples left as far as their magnitude allows, so that a fixed-point FFT keeps as many bits as it can.
/// Writes the number of bits to `scale_bits`.
///
/// # Errors
/// [`KernelError::Shape`] when the output is not as long as the input.
pub fn fft_auto_scale(input: &[i16], output: &mut [i16], scale_bits: &mut i32) -> Result<(), KernelError> {
    if input.len() != output.len() {
        return Err(KernelError::Shape);
    }
    let bits = headroom(input);
    for (out, &sample) in output.iter_mut().zip(input) {
        *out = sample.wrapping_shl(bits);
    }
    *scale_bits = bits as i32;
    Ok(())
}

/// The number of bits by which all samples can be shifted left.
///
/// The magnitude of -32768 does not fit the int16 that holds the maximum: it wraps, and a later sample replaces it.
/// So does TensorFlow Lite Micro's.
fn headroom(samples: &[i16]) -> u32 {
    let mut max = 0i16;
    for &sample in samples {
        if sample > max {
            max = sample;
        } else if -i32::from(sample) > i32::from(max) {
            max = sample.wrapping_neg();
        }
    }
    // 0 and the wrapped -32768 count as having no room.
    if max > 0 { (max as u16).leading_zeros() - 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_repeats_for_every_frame_and_saturates() {
        let mut output = [0; 6];
        window(12, &[100, -100, 3, 32767, -32768, -1], &[4096, 8192, 2048], &mut output).unwrap();
        assert_eq!(output, [100, -200, 1, 32767, -32768, -1]);
        assert_eq!(window(32, &[0; 3], &[1; 3], &mut [0; 3]), Err(KernelError::Parameter));
        assert_eq!(window(0, &[0; 4], &[1; 3], &mut [0; 4]), Err(KernelError::Shape));
        assert_eq!(window(0, &[], &[], &mut []), Err(KernelError::Shape));
    }

    fn scaled<const N: usize>(input: [i16; N]) -> ([i16; N], i32) {
        let (mut output, mut bits) = ([0; N], -1);
        fft_auto_scale(&input, &mut output, &mut bits).unwrap();
        (output, bits)
    }

    #[test]
    fn scales_by_the_headroom_of_the_largest_sample() {
        assert_eq!(scaled([0, 3, -5]), ([0, 3 << 12, -5 << 12], 12));
        assert_eq!(scaled([16384]), ([16384], 0));
        assert_eq!(scaled([-16383]), ([-32766], 1));
        assert_eq!(scaled([0, 0]), ([0, 0], 0));
    }

    #[test]
    fn the_most_negative_sample_is_overlooked_when_another_follows() {
        assert_eq!(scaled([1, -32768]), ([1, -32768], 0));
        assert_eq!(scaled([-32768, 1]), ([0, 1 << 14], 14));
    }
}
