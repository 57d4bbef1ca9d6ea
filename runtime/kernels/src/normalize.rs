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
        row.iter_mut().for_each(|x| *x = factor.apply(centred(*x).wrapping_shl(before)).clamp(-128, 127) as i8);
    }
    Ok(())
}
