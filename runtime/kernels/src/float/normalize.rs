//! L2 normalization over the innermost axis.

use crate::KernelError;
use core::slice::ChunksExactMut;

/// Divides each row of `depth` elements of `data` by its Euclidean length, or by 1e-6 if that is more; in place.
///
/// # Errors
/// [`KernelError::Parameter`] when `depth` is 0, [`KernelError::Shape`] when `data` is not a number of rows.
pub fn l2_normalize(depth: usize, data: &mut [f32]) -> Result<(), KernelError> {
    for row in rows(depth, data)? {
        let squares = row.iter().fold(0.0, |sum, &x| sum + x * x);
        let length = libm::sqrtf(squares);
        let divisor = if length < 1e-6 { 1e-6 } else { length };
        for x in row {
            *x /= divisor;
        }
    }
    Ok(())
}

/// The rows of a tensor whose innermost axis has `depth` elements.
pub(super) fn rows(depth: usize, data: &mut [f32]) -> Result<ChunksExactMut<'_, f32>, KernelError> {
    match data.len().checked_rem(depth) {
        None => Err(KernelError::Parameter),
        Some(0) => Ok(data.chunks_exact_mut(depth.max(1))),
        Some(_) => Err(KernelError::Shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `L2_NORMALIZATION`, run by TensorFlow Lite Micro; the second row is shorter than the smallest divisor.
    #[test]
    fn equals_tensorflow_lite_micro() {
        let mut data = [3.0, 4.0, 0.0, 1e-7, 0.0, 0.0, -1.0, 2.0, -2.0];
        l2_normalize(3, &mut data).unwrap();
        assert_eq!(data, [0.6, 0.8, 0.0, 0.1, 0.0, 0.0, -0.33333334, 0.6666667, -0.6666667]);
    }
}
