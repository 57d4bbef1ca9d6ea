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

#[cfg(test)]
mod tests {
    use super::super::testing::assert_close;
    use super::*;

    const INPUT: [f32; 8] = [1.0, 2.0, -3.0, 0.5, 100.0, -100.0, 0.0, 99.5];

    /// `SOFTMAX` with a beta of 0.5, run by TensorFlow Lite Micro.
    #[test]
    fn softmax_equals_tensorflow_lite_micro() {
        let mut data = INPUT;
        softmax(&Softmax { depth: 4, beta: 0.5 }, &mut data).unwrap();
        let expected =
            [0.28067362, 0.46275255, 0.03798504, 0.21858883, 0.5621765, 2.1e-44, 1.0842979e-22, 0.4378235];
        assert_close(&data, &expected);
    }

    /// `LOG_SOFTMAX`, run by TensorFlow Lite Micro.
    #[test]
    fn log_softmax_equals_tensorflow_lite_micro() {
        let mut data = INPUT;
        log_softmax(&Softmax { depth: 4, beta: 1.0 }, &mut data).unwrap();
        let expected =
            [-1.4685949, -0.46859488, -5.468595, -1.9685949, -0.474077, -200.47408, -100.474075, -0.974077];
        assert_close(&data, &expected);
    }

    #[test]
    fn refuses_incomplete_rows() {
        let p = Softmax { depth: 3, beta: 1.0 };
        assert_eq!(softmax(&p, &mut [0.0; 8]), Err(KernelError::Shape));
        assert_eq!(log_softmax(&Softmax { depth: 0, ..p }, &mut [0.0; 8]), Err(KernelError::Parameter));
    }
}
