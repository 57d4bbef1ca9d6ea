//! Softmax and log-softmax over the innermost axis.

use crate::KernelError;

/// Parameters of a softmax.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// Elements of a row; at least 1.
    pub depth: usize,
    /// Factor on the input; the log-softmax has none and ignores it.
    pub beta: f32,
}

/// `exp(beta * x) / sum(exp(beta * x))` of each row of `data`, in place.
///
/// # Errors
/// [`KernelError::Parameter`] when `depth` is 0, [`KernelError::Shape`] when `data` is not a number of rows.
pub fn softmax(p: &Softmax, data: &mut [f32]) -> Result<(), KernelError> {
    for row in rows(p, data)? {
        // The maximum is taken off first, so that no exponential overflows.
        let max = maximum(row);
        let mut sum = 0.0;
        for x in row.iter_mut() {
            *x = libm::expf((*x - max) * p.beta);
            sum += *x;
        }
        for x in row {
            *x /= sum;
        }
    }
    Ok(())
}

/// `x - log(sum(exp(x)))` of each row of `data`, in place.
///
/// # Errors
/// As for [`softmax`].
pub fn log_softmax(p: &Softmax, data: &mut [f32]) -> Result<(), KernelError> {
    for row in rows(p, data)? {
        let max = maximum(row);
        let sum = row.iter().fold(0.0, |sum, &x| sum + libm::expf(x - max));
        let log_sum = libm::logf(sum);
        for x in row {
            *x = *x - max - log_sum;
        }
    }
    Ok(())
}

fn rows<'a>(p: &Softmax, data: &'a mut [f32]) -> Result<core::slice::ChunksExactMut<'a, f32>, KernelError> {
    super::normalize::rows(p.depth, data)
}

fn maximum(row: &[f32]) -> f32 {
    row.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max })
}
