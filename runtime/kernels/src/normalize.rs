//! L2 normalization over the last axis.

use crate::KernelError;
use crate::fixed::inverse_sqrt;

/// Parameters of the int8 L2 normalization.
#[derive(Clone, Debug)]
pub struct L2NormI8 {
    /// Rows: the product of all axes but the last.
    pub rows: usize,
    /// Elements in a row, at least 1. Rows of up to 33,000 cannot overflow the sum of squares.
    pub depth: usize,
    /// Zero point of the input; int8 or, for uint8 tensors seen as int8, lowered by 128.
    pub input_zero_point: i32,
    /// Whether the model's tensors are uint8: that kernel multiplies by the output's 128 before it scales, while the
    /// int8 kernel adds 7 to the exponent, and the two round differently.
    pub unsigned: bool,
}

/// L2 normalization in place, int8 to int8 with output scale 1/128 and zero point 0 (128 for uint8 tensors).
///
/// `data`: rows × depth. A row of zeros stays zero.
///
/// # Errors
/// [`KernelError::Shape`] when the length is wrong.
pub fn l2_norm_i8(p: &L2NormI8, data: &mut [i8]) -> Result<(), KernelError> {
    if p.depth == 0 || p.rows.checked_mul(p.depth) != Some(data.len()) {
        return Err(KernelError::Shape);
    }
    let centred = |x: i8| i32::from(x).wrapping_sub(p.input_zero_point);
    for row in data.chunks_exact_mut(p.depth) {
        let squares = row.iter().map(|&x| centred(x)).map(|x| x.wrapping_mul(x)).fold(0, i32::wrapping_add);
        let mut factor = inverse_sqrt(squares);
        let before = if p.unsigned {
            7
        } else {
            factor.shift += 7;
            0
        };
        row.iter_mut()
            .for_each(|x| *x = factor.apply(centred(*x).wrapping_shl(before)).clamp(-128, 127) as i8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_reference() {
        // TensorFlow Lite Micro (tflite_micro 0.dev20261023), input zero point 3.
        let mut data = [-128, -90, -3, 0, 17, 64, 100, 127, 5, 4, 3, 2, 1, 0, -1, -2];
        let p = L2NormI8 { rows: 2, depth: 8, input_zero_point: 3, unsigned: false };
        l2_norm_i8(&p, &mut data).unwrap();
        assert_eq!(data, [-72, -51, -3, -2, 8, 33, 53, 68, 33, 17, 0, -17, -33, -50, -66, -83]);
    }

    #[test]
    fn unsigned_models_round_once() {
        // The same numbers through TensorFlow Lite Micro as int8 and through TensorFlow Lite's reference kernels as
        // uint8: the sixth element differs.
        let input = [-25, -121, -127, -97, -126, 43, 6, 37];
        let mut p = L2NormI8 { rows: 1, depth: 8, input_zero_point: 3, unsigned: false };
        let mut data = input;
        l2_norm_i8(&p, &mut data).unwrap();
        assert_eq!(data, [-14, -64, -67, -51, -66, 20, 2, 17]);
        p.unsigned = true;
        let mut data = input;
        l2_norm_i8(&p, &mut data).unwrap();
        assert_eq!(data, [-14, -64, -67, -51, -66, 21, 2, 17]);
    }

    #[test]
    fn zeros_stay_zeros() {
        let p = L2NormI8 { rows: 1, depth: 3, input_zero_point: -7, unsigned: false };
        let mut data = [-7; 3];
        l2_norm_i8(&p, &mut data).unwrap();
        assert_eq!(data, [0; 3]);
    }

    #[test]
    fn hostile_parameters_do_not_panic() {
        for input_zero_point in [i32::MIN, i32::MAX] {
            for unsigned in [false, true] {
                let p = L2NormI8 { rows: 1, depth: 4, input_zero_point, unsigned };
                l2_norm_i8(&p, &mut [-128, 0, 1, 127]).unwrap();
            }
        }
        for (rows, depth) in [(1, 5), (4, 0), (usize::MAX, 4)] {
            let p = L2NormI8 { rows, depth, input_zero_point: 0, unsigned: false };
            assert_eq!(l2_norm_i8(&p, &mut [0; 4]), Err(KernelError::Shape));
        }
    }
}
