//! The energy of a spectrum.

use crate::KernelError;

/// `real^2 + imaginary^2` of the spectrum's bins `start .. end`; all other bins of the output become 0 (TensorFlow
/// Lite Micro leaves them undefined). `input` holds pairs (real, imaginary), one for each element of `output`.
///
/// # Errors
/// [`KernelError::Shape`] when the output does not have one element for each pair, [`KernelError::Parameter`] when
/// the range is not within it.
pub fn energy(start: usize, end: usize, input: &[i16], output: &mut [u32]) -> Result<(), KernelError> {
    let (bins, rest) = input.as_chunks::<2>();
    if !rest.is_empty() || bins.len() != output.len() {
        return Err(KernelError::Shape);
    }
    let (Some(bins), Some(_)) = (bins.get(start..end), output.get(start..end)) else {
        return Err(KernelError::Parameter);
    };
    output.fill(0);
    for (out, &[real, imaginary]) in output.iter_mut().skip(start).zip(bins) {
        let square = |x: i16| i32::from(x) * i32::from(x);
        *out = square(real).wrapping_add(square(imaginary)) as u32;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_squares_within_the_range() {
        let mut output = [7; 4];
        energy(1, 3, &[9, 9, 3, -4, i16::MIN, i16::MIN, 1, 1], &mut output).unwrap();
        assert_eq!(output, [0, 25, 1 << 31, 0]);
    }

    #[test]
    fn refuses_a_range_outside_of_the_spectrum() {
        assert_eq!(energy(1, 3, &[0; 4], &mut [0; 2]), Err(KernelError::Parameter));
        assert_eq!(energy(2, 1, &[0; 4], &mut [0; 2]), Err(KernelError::Parameter));
        assert_eq!(energy(0, 1, &[0; 3], &mut [0; 1]), Err(KernelError::Shape));
        assert_eq!(energy(0, 1, &[0; 4], &mut [0; 1]), Err(KernelError::Shape));
    }
}
