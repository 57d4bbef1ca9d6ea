//! Element-wise functions of one tensor, and PReLU.

use super::Clamp;
use crate::KernelError;
use crate::window::{part, product};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `max(0, x)`.
    Relu,
    /// `x` limited to 0 ..= 6.
    Relu6,
    /// `x` limited to -1 ..= 1.
    ReluN1To1,
    /// `x`, below 0 multiplied by `alpha`.
    LeakyRelu {
        /// Slope below 0.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Logistic,
    /// Hyperbolic tangent.
    Tanh,
    /// `x`, below 0 `exp(x) - 1`.
    Elu,
    /// `x * min(6, max(0, x + 3)) / 6`.
    HardSwish,
    /// Absolute value.
    Abs,
    /// `-x`.
    Neg,
    /// Exponential function.
    Exp,
    /// Natural logarithm; NaN below 0.
    Log,
    /// Square root; NaN below 0.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `x * x`.
    Square,
    /// Sine of `x` in radians.
    Sin,
    /// Cosine of `x` in radians.
    Cos,
    /// Largest integer not above `x`.
    Floor,
    /// Smallest integer not below `x`.
    Ceil,
    /// Nearest integer, ties to the even one.
    Round,
}

/// Applies a function that needs no elementary function of a library to each element of `data`, in place.
///
/// Three kernels instead of one, so that a model with nothing but a ReLU does not link the sine.
///
/// # Errors
/// [`KernelError::Parameter`] for a function of [`exponential`] or [`trigonometric`].
pub fn unary(function: Unary, data: &mut [f32]) -> Result<(), KernelError> {
    match function {
        Unary::Relu => map(data, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Relu6 => limit(data, 0.0, 6.0),
        Unary::ReluN1To1 => limit(data, -1.0, 1.0),
        Unary::LeakyRelu { alpha } => map(data, |x| if x > 0.0 { x } else { x * alpha }),
        Unary::HardSwish => map(data, |x| x * (Clamp { min: 0.0, max: 6.0 }).apply(x + 3.0) / 6.0),
        Unary::Abs => map(data, libm::fabsf),
        Unary::Neg => map(data, |x| -x),
        Unary::Sqrt => map(data, libm::sqrtf),
        Unary::Rsqrt => map(data, |x| 1.0 / libm::sqrtf(x)),
        Unary::Square => map(data, |x| x * x),
        Unary::Floor => map(data, libm::floorf),
        Unary::Ceil => map(data, libm::ceilf),
        Unary::Round => map(data, libm::rintf),
        _ => return Err(KernelError::Parameter),
    }
    Ok(())
}

/// Applies an exponential function or its inverse to each element of `data`, in place: `Logistic`, `Tanh`, `Elu`,
/// `Exp` or `Log`.
///
/// # Errors
/// [`KernelError::Parameter`] for another function.
pub fn exponential(function: Unary, data: &mut [f32]) -> Result<(), KernelError> {
    match function {
        Unary::Logistic => map(data, logistic),
        Unary::Tanh => map(data, libm::tanhf),
        Unary::Elu => map(data, |x| if x < 0.0 { libm::expm1f(x) } else { x }),
        Unary::Exp => map(data, libm::expf),
        Unary::Log => map(data, libm::logf),
        _ => return Err(KernelError::Parameter),
    }
    Ok(())
}

/// Applies the sine or cosine to each element of `data`, in place.
///
/// # Errors
/// [`KernelError::Parameter`] for another function.
pub fn trigonometric(function: Unary, data: &mut [f32]) -> Result<(), KernelError> {
    match function {
        Unary::Sin => map(data, libm::sinf),
        Unary::Cos => map(data, libm::cosf),
        _ => return Err(KernelError::Parameter),
    }
    Ok(())
}

#[inline(always)]
fn map(data: &mut [f32], function: impl Fn(f32) -> f32) {
    for x in data {
        *x = function(*x);
    }
}

fn limit(data: &mut [f32], min: f32, max: f32) {
    map(data, |x| Clamp { min, max }.apply(x));
}

/// The logistic function; where `exp(x)` is so small that 1 + exp(x) would lose it, it is `exp(x)` itself.
pub(crate) fn logistic(x: f32) -> f32 {
    if x < -9.0 { libm::expf(x) } else { 1.0 / (1.0 + libm::expf(-x)) }
}

/// Parameters of a PReLU.
#[derive(Clone, Debug)]
pub struct Prelu {
    /// Shape of the data, with ones in front when it has fewer axes.
    pub shape: [usize; 4],
    /// Shape of the slopes, likewise; along each axis that of the data or 1.
    pub alpha_shape: [usize; 4],
}

/// `x`, below 0 multiplied by the `alpha` of its place; in place. `alpha` is repeated along axes where it has one
/// element.
///
/// # Errors
/// [`KernelError::Parameter`] when the shapes do not go together, [`KernelError::Shape`] when a slice does not fit.
pub fn prelu(p: &Prelu, data: &mut [f32], alpha: &[f32]) -> Result<(), KernelError> {
    if p.shape.iter().zip(&p.alpha_shape).any(|(&n, &a)| n == 0 || (a != n && a != 1)) {
        return Err(KernelError::Parameter);
    }
    if product(&p.shape) != Some(data.len()) || product(&p.alpha_shape) != Some(alpha.len()) {
        return Err(KernelError::Shape);
    }
    let [_, height, width, depth] = p.shape;
    let [alpha_batch, alpha_height, alpha_width, alpha_depth] = p.alpha_shape;
    // No extent is 0; `max` spares the test for it and its panic.
    for (i, row) in data.chunks_exact_mut(depth.max(1)).enumerate() {
        let (image, x) = (i / width.max(1), i % width.max(1));
        let (batch, y) = (image / height.max(1), image % height.max(1));
        // An axis with one slope repeats it.
        let pick = |place, slopes: usize| if slopes == 1 { 0 } else { place };
        let (batch, y, x) = (pick(batch, alpha_batch), pick(y, alpha_height), pick(x, alpha_width));
        let slopes = part(alpha, ((batch * alpha_height + y) * alpha_width + x) * alpha_depth, alpha_depth);
        for (x, &slope) in row.iter_mut().zip(slopes.iter().cycle()) {
            if *x < 0.0 {
                *x *= slope;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::testing::assert_close;
    use super::*;
    use core::f32::consts::{LN_2, SQRT_2};

    /// The one of the three kernels that has the function.
    fn apply(function: Unary, data: &mut [f32]) {
        let kernels = [unary, exponential, trigonometric];
        assert_eq!(kernels.iter().filter(|kernel| kernel(function, data).is_ok()).count(), 1);
    }

    /// Each operator on these inputs, run by TensorFlow Lite Micro (`ReluN1To1` by TensorFlow Lite).
    #[test]
    fn functions_equal_tensorflow_lite_micro() {
        const X: [f32; 9] = [-20.0, -3.5, -1.0, -0.25, 0.0, 0.5, 2.5, 7.25, 20.0];
        let expected: [(Unary, [f32; 9]); 17] = [
            (Unary::Relu, [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.5, 7.25, 20.0]),
            (Unary::Relu6, [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.5, 6.0, 6.0]),
            (Unary::ReluN1To1, [-1.0, -1.0, -1.0, -0.25, 0.0, 0.5, 1.0, 1.0, 1.0]),
            (Unary::LeakyRelu { alpha: 0.1 }, [-2.0, -0.35, -0.1, -0.025, 0.0, 0.5, 2.5, 7.25, 20.0]),
            (
                Unary::Logistic,
                [
                    2.0611537e-9,
                    0.02931223,
                    0.26894143,
                    0.4378235,
                    0.5,
                    0.62245935,
                    0.9241418,
                    0.99929035,
                    1.0,
                ],
            ),
            (
                Unary::Tanh,
                [-1.0, -0.9981779, -0.7615942, -0.24491866, 0.0, 0.46211717, 0.9866143, 0.999999, 1.0],
            ),
            (Unary::Elu, [-1.0, -0.9698026, -0.63212055, -0.22119921, 0.0, 0.5, 2.5, 7.25, 20.0]),
            (
                Unary::HardSwish,
                [-0.0, -0.0, -0.33333334, -0.114583336, 0.0, 0.29166666, 2.2916667, 7.25, 20.0],
            ),
            (
                Unary::Exp,
                [
                    2.0611537e-9,
                    0.030197384,
                    0.36787945,
                    0.7788008,
                    1.0,
                    1.6487212,
                    12.182494,
                    1408.1049,
                    4.851652e8,
                ],
            ),
            (
                Unary::Sin,
                [
                    -0.9129453,
                    0.35078323,
                    -0.84147096,
                    -0.24740396,
                    0.0,
                    0.47942555,
                    0.5984721,
                    0.8230809,
                    0.9129453,
                ],
            ),
            (
                Unary::Cos,
                [
                    0.40808207, -0.9364567, 0.5403023, 0.9689124, 1.0, 0.87758255, -0.8011436, 0.5679242,
                    0.40808207,
                ],
            ),
            (Unary::Floor, [-20.0, -4.0, -1.0, -1.0, 0.0, 0.0, 2.0, 7.0, 20.0]),
            (Unary::Ceil, [-20.0, -3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 8.0, 20.0]),
            (Unary::Round, [-20.0, -4.0, -1.0, 0.0, 0.0, 0.0, 2.0, 7.0, 20.0]),
            (Unary::Abs, [20.0, 3.5, 1.0, 0.25, 0.0, 0.5, 2.5, 7.25, 20.0]),
            (Unary::Neg, [20.0, 3.5, 1.0, 0.25, -0.0, -0.5, -2.5, -7.25, -20.0]),
            (Unary::Square, [400.0, 12.25, 1.0, 0.0625, 0.0, 0.25, 6.25, 52.5625, 400.0]),
        ];
        for (function, expected) in expected {
            let mut data = X;
            apply(function, &mut data);
            std::println!("{function:?}");
            assert_close(&data, &expected);
        }
    }

    /// As above, on the inputs that have a logarithm and a root.
    #[test]
    fn logarithm_and_roots_equal_tensorflow_lite_micro() {
        const X: [f32; 9] = [20.5, 4.0, 1.5, 0.75, 0.5, 1.0, 3.0, 7.75, 20.5];
        let expected: [(Unary, [f32; 9]); 3] = [
            (
                Unary::Log,
                [3.0204248, 1.3862944, 0.4054651, -0.2876821, -LN_2, 0.0, 1.0986123, 2.0476928, 3.0204248],
            ),
            (
                Unary::Sqrt,
                [4.527693, 2.0, 1.2247449, 0.8660254, 0.70710677, 1.0, 1.7320508, 2.7838821, 4.527693],
            ),
            (
                Unary::Rsqrt,
                [0.22086304, 0.5, 0.81649655, 1.1547005, SQRT_2, 1.0, 0.57735026, 0.3592106, 0.22086304],
            ),
        ];
        for (function, expected) in expected {
            let mut data = X;
            apply(function, &mut data);
            assert_close(&data, &expected);
        }
    }

    #[test]
    fn nan_stays_nan() {
        for function in [Unary::Relu, Unary::Relu6, Unary::Tanh, Unary::Logistic, Unary::Abs] {
            let mut data = [f32::NAN];
            apply(function, &mut data);
            assert!(data[0].is_nan(), "{function:?}");
        }
    }

    #[test]
    fn prelu_repeats_slopes_along_axes_of_one() {
        let p = Prelu { shape: [1, 2, 2, 2], alpha_shape: [1, 1, 2, 1] };
        let mut data = [-1.0, 2.0, -3.0, -4.0, 5.0, -6.0, 7.0, -8.0];
        prelu(&p, &mut data, &[0.5, 10.0]).unwrap();
        assert_eq!(data, [-0.5, 2.0, -30.0, -40.0, 5.0, -3.0, 7.0, -80.0]);

        let p = Prelu { alpha_shape: [1, 2, 1, 2], ..p };
        let mut data = [-1.0; 8];
        prelu(&p, &mut data, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(data, [-1.0, -2.0, -1.0, -2.0, -3.0, -4.0, -3.0, -4.0]);
    }

    #[test]
    fn prelu_refuses_shapes_that_do_not_go_together() {
        let p = Prelu { shape: [1, 2, 2, 2], alpha_shape: [1, 1, 1, 3] };
        assert_eq!(prelu(&p, &mut [0.0; 8], &[0.0; 3]), Err(KernelError::Parameter));
        let p = Prelu { alpha_shape: [1, 1, 1, 2], ..p };
        assert_eq!(prelu(&p, &mut [0.0; 8], &[0.0; 3]), Err(KernelError::Shape));
        assert_eq!(prelu(&p, &mut [0.0; 7], &[0.0; 2]), Err(KernelError::Shape));
    }
}
