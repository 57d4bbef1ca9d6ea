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
    /// `x` limited to 0 ..= 1.
    Relu0To1,
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

/// Applies `function` to each element of `data`, in place.
///
/// Inlined, so that a caller whose function is a constant links only that one's code.
#[inline]
pub fn unary(function: Unary, data: &mut [f32]) {
    match function {
        Unary::Relu => map(data, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Relu6 => limit(data, 0.0, 6.0),
        Unary::ReluN1To1 => limit(data, -1.0, 1.0),
        Unary::Relu0To1 => limit(data, 0.0, 1.0),
        Unary::LeakyRelu { alpha } => map(data, |x| if x > 0.0 { x } else { x * alpha }),
        Unary::Logistic => map(data, logistic),
        Unary::Tanh => map(data, libm::tanhf),
        Unary::Elu => map(data, |x| if x < 0.0 { libm::expm1f(x) } else { x }),
        Unary::HardSwish => map(data, |x| x * (Clamp { min: 0.0, max: 6.0 }).apply(x + 3.0) / 6.0),
        Unary::Abs => map(data, libm::fabsf),
        Unary::Neg => map(data, |x| -x),
        Unary::Exp => map(data, libm::expf),
        Unary::Log => map(data, libm::logf),
        Unary::Sqrt => map(data, libm::sqrtf),
        Unary::Rsqrt => map(data, |x| 1.0 / libm::sqrtf(x)),
        Unary::Square => map(data, |x| x * x),
        Unary::Sin => map(data, libm::sinf),
        Unary::Cos => map(data, libm::cosf),
        Unary::Floor => map(data, libm::floorf),
        Unary::Ceil => map(data, libm::ceilf),
        Unary::Round => map(data, libm::rintf),
    }
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
pub fn logistic(x: f32) -> f32 {
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
