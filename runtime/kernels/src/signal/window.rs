//! What happens to samples before the FFT: the window and the automatic scaling.

use super::check_shift;
use crate::KernelError;

/// Multiplies every frame of `data` with `weights` (one frame), in place: `(sample * weight) >> shift`, saturated to
/// int16. `data` holds any number of frames.
///
/// # Errors
/// [`KernelError::Parameter`] for a shift above 31, [`KernelError::Shape`] when the data are not a whole number of
/// frames.
pub fn window(shift: u32, weights: &[i16], data: &mut [i16]) -> Result<(), KernelError> {
    check_shift(shift, 32)?;
    if weights.is_empty() || !data.len().is_multiple_of(weights.len()) {
        return Err(KernelError::Shape);
    }
    for frame in data.chunks_exact_mut(weights.len()) {
        for (sample, &weight) in frame.iter_mut().zip(weights) {
            let product = (i32::from(*sample) * i32::from(weight)) >> shift;
            *sample = product.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
    }
    Ok(())
}

/// Shifts samples left, in place, as far as their magnitude allows, so that a fixed-point FFT keeps as many bits as it
/// can. Returns the number of bits.
pub fn fft_auto_scale(data: &mut [i16]) -> u32 {
    let bits = headroom(data);
    for sample in data {
        *sample = sample.wrapping_shl(bits);
    }
    bits
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
        let mut data = [100, -100, 3, 32767, -32768, -1];
        window(12, &[4096, 8192, 2048], &mut data).unwrap();
        assert_eq!(data, [100, -200, 1, 32767, -32768, -1]);
        assert_eq!(window(32, &[1; 3], &mut [0; 3]), Err(KernelError::Parameter));
        assert_eq!(window(0, &[1; 3], &mut [0; 4]), Err(KernelError::Shape));
        assert_eq!(window(0, &[], &mut []), Err(KernelError::Shape));
    }

    fn scaled<const N: usize>(mut data: [i16; N]) -> ([i16; N], u32) {
        let bits = fft_auto_scale(&mut data);
        (data, bits)
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
