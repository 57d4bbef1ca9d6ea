//! Quantization parameters: from the real scales of a model to the integers that kernels take.
//!
//! Each function computes in the precision (single or double) in which TensorFlow Lite Micro does; that decides the
//! last bit of a multiplier and is part of the contract.

use std::fmt;

use dunlin_artifact::op;
use dunlin_kernels::fixed::Multiplier;
use dunlin_kernels::unary_i16::SigmoidI16;

use crate::Unsupported;
use crate::graph::{Activation, DType};

/// Why quantization parameters were refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum QuantizationError {
    /// A scale is zero, negative, infinite or not a number.
    Scale(f32),
    /// A factor between scales is negative, not finite or beyond 2^31.
    Factor(f64),
    /// A factor that must be above (true) or below (false) one is not.
    FactorSide(f64, bool),
    /// A bound of an activation does not fit 32 bits at this scale.
    Activation(f32),
    /// The operator prescribes another zero point for its output.
    ZeroPoint {
        /// What the operator prescribes.
        expected: i32,
        /// What the model has.
        found: i32,
    },
    /// The operator prescribes another scale for its output.
    OutputScale {
        /// What the operator prescribes.
        expected: f32,
        /// What the model has.
        found: f32,
    },
    /// Hard-swish needs an output scale of at least 1/128 of the input scale.
    OutputTooFine {
        /// Input scale.
        input: f32,
        /// Output scale.
        output: f32,
    },
    /// The element type is not a quantized one.
    Type(DType),
}

impl fmt::Display for QuantizationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Scale(scale) => write!(f, "a quantization scale must be positive and finite, not {scale}"),
            Self::Factor(factor) => write!(f, "the factor {factor} between scales must lie in 0 .. 2^31"),
            Self::FactorSide(factor, above) => {
                let side = if above { "above" } else { "below" };
                write!(f, "the factor {factor} between scales must be {side} 1")
            }
            Self::Activation(scale) => {
                write!(f, "the activation's bounds do not fit 32 bits at an output scale of {scale}")
            }
            Self::ZeroPoint { expected, found } => {
                write!(f, "this operator needs the zero point {expected}, not {found}")
            }
            Self::OutputScale { expected, found } => {
                write!(f, "this operator needs an output scale of {expected}, not {found}")
            }
            Self::OutputTooFine { input, output } => {
                write!(f, "the output scale {output} must be at least 1/128 of the input scale {input}")
            }
            Self::Type(dtype) => write!(f, "{dtype} is not a quantized type"),
        }
    }
}

impl std::error::Error for QuantizationError {}

impl From<QuantizationError> for Unsupported {
    fn from(error: QuantizationError) -> Self {
        Unsupported::new(error.to_string())
    }
}

/// A factor as the artifact stores it.
pub(crate) fn factor(multiplier: Multiplier) -> op::Factor {
    op::Factor { multiplier: multiplier.multiplier, shift: multiplier.shift as i8 }
}

/// A real factor as a significand of 31 bits and an exponent.
///
/// The significand is rounded half away from zero; factors below 2^-32 become 0.
///
/// # Errors
/// [`QuantizationError::Factor`] when the factor is negative, not finite or too large.
pub(crate) fn quantize_multiplier(factor: f64) -> Result<Multiplier, QuantizationError> {
    if !factor.is_finite() || factor < 0.0 {
        return Err(QuantizationError::Factor(factor));
    }
    if factor == 0.0 {
        return Ok(Multiplier::default());
    }
    let (significand, mut shift) = libm::frexp(factor);
    let mut multiplier = (significand * 2f64.powi(31)).round() as i64;
    if multiplier == 1 << 31 {
        multiplier /= 2;
        shift += 1;
    }
    match shift {
        ..-31 => Ok(Multiplier::default()),
        -31..=31 => Ok(Multiplier { multiplier: multiplier as i32, shift }),
        _ => Err(QuantizationError::Factor(factor)),
    }
}

/// [`quantize_multiplier`] for a factor above 1: the exponent is not negative.
///
/// # Errors
/// [`QuantizationError::FactorSide`] when it is not; [`QuantizationError::Factor`] as there.
pub(crate) fn quantize_multiplier_above_one(factor: f64) -> Result<Multiplier, QuantizationError> {
    if factor <= 1.0 {
        return Err(QuantizationError::FactorSide(factor, true));
    }
    quantize_multiplier(factor)
}

/// [`quantize_multiplier`] for a factor in (0, 1): the exponent is not positive.
///
/// # Errors
/// [`QuantizationError::FactorSide`] when it is not; [`QuantizationError::Factor`] as there.
pub(crate) fn quantize_multiplier_below_one(factor: f64) -> Result<Multiplier, QuantizationError> {
    let multiplier = quantize_multiplier(factor)?;
    // A factor just below one rounds up to it.
    if factor == 0.0 || factor >= 1.0 || multiplier.shift > 0 {
        return Err(QuantizationError::FactorSide(factor, false));
    }
    Ok(multiplier)
}

/// Checks that a scale is positive and finite.
///
/// # Errors
/// [`QuantizationError::Scale`] when it is not.
pub(crate) fn check_scale(scale: f32) -> Result<(), QuantizationError> {
    if scale.is_finite() && scale > 0.0 { Ok(()) } else { Err(QuantizationError::Scale(scale)) }
}

/// The real bounds of an activation; infinite where there is none.
pub(crate) fn activation_bounds(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::ReluN1To1 => (-1.0, 1.0),
        Activation::Relu6 => (0.0, 6.0),
    }
}

/// The smallest and largest output of an operator with a fused activation, in the output's own integers.
///
/// # Errors
/// [`QuantizationError::Type`] when `dtype` is not int8, uint8 or int16; [`QuantizationError::Scale`] and
/// [`QuantizationError::Activation`] when the scale does not allow the activation.
pub(crate) fn activation_range(
    activation: Activation,
    dtype: DType,
    scale: f32,
    zero_point: i32,
) -> Result<(i32, i32), QuantizationError> {
    let (lowest, highest) = integer_range(dtype)?;
    check_scale(scale)?;
    let quantized = |bound: f32| {
        // 2^31, the first number that does not fit, is a float; i32::MAX is not.
        let steps = (bound / scale).round();
        if (-2147483648.0..2147483648.0).contains(&steps) {
            Ok(zero_point.saturating_add(steps as i32))
        } else {
            Err(QuantizationError::Activation(scale))
        }
    };
    let (min, max) = activation_bounds(activation);
    let min = if min.is_finite() { quantized(min)?.max(lowest) } else { lowest };
    let max = if max.is_finite() { quantized(max)?.min(highest) } else { highest };
    Ok((min, max))
}

/// The range of a quantized type.
///
/// # Errors
/// [`QuantizationError::Type`] when `dtype` is not int8, uint8 or int16.
pub(crate) fn integer_range(dtype: DType) -> Result<(i32, i32), QuantizationError> {
    match dtype {
        DType::I8 => Ok((-128, 127)),
        DType::U8 => Ok((0, 255)),
        DType::I16 => Ok((-32768, 32767)),
        other => Err(QuantizationError::Type(other)),
    }
}

/// Softmax and log-softmax on 8 bits compute exponentials in Q5.26.
const SOFTMAX_INTEGER_BITS: u32 = 5;

/// How softmax on int8 or uint8 scales the differences to a row's maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SoftmaxScaling {
    /// `beta * input scale` as a factor to Q5.26.
    pub(crate) multiplier: Multiplier,
    /// Differences below this one are negligible.
    pub(crate) diff_min: i32,
}

/// The scaling of softmax on int8 or uint8.
///
/// # Errors
/// [`QuantizationError::Scale`] or [`QuantizationError::FactorSide`] when the scale is unusable or below 2^-26.
pub(crate) fn softmax_scaling(beta: f32, input_scale: f32) -> Result<SoftmaxScaling, QuantizationError> {
    check_scale(input_scale)?;
    if !beta.is_finite() {
        return Err(QuantizationError::Factor(f64::from(beta)));
    }
    let to_q26 = f64::from(1 << (31 - SOFTMAX_INTEGER_BITS));
    // Beyond the cap a difference of one step already makes the exponential vanish.
    let factor = (f64::from(beta) * f64::from(input_scale) * to_q26).min(f64::from(i32::MAX));
    let multiplier = quantize_multiplier_above_one(factor)?;
    Ok(SoftmaxScaling { multiplier, diff_min: -input_radius(SOFTMAX_INTEGER_BITS, multiplier.shift) })
}

/// The scaling of log-softmax on int8 or uint8, and the factor from Q5.26 back to differences.
///
/// # Errors
/// As [`softmax_scaling`].
pub(crate) fn log_softmax_scaling(
    input_scale: f32,
) -> Result<(SoftmaxScaling, Multiplier), QuantizationError> {
    let scaling = softmax_scaling(1.0, input_scale)?;
    let Multiplier { multiplier, shift } = scaling.multiplier;
    let inverse = f64::from(1u32 << (31 - shift)) / f64::from(multiplier);
    Ok((scaling, quantize_multiplier_below_one(inverse)?))
}

/// The factor of softmax on int16: differences to units of 10/65535.
///
/// # Errors
/// [`QuantizationError::Scale`] or [`QuantizationError::Factor`] when the scale or beta is unusable.
pub(crate) fn softmax_scaling_i16(beta: f32, input_scale: f32) -> Result<Multiplier, QuantizationError> {
    check_scale(input_scale)?;
    quantize_multiplier(f64::from(input_scale) * f64::from(beta) / (10.0 / 65535.0))
}

/// The largest magnitude whose product with a factor of exponent `left_shift` fits `integer_bits` integer bits of 31.
pub(crate) fn input_radius(integer_bits: u32, left_shift: i32) -> i32 {
    let largest = f64::from((1u32 << integer_bits) - 1) * f64::from(1u32 << (31 - integer_bits));
    // The cast saturates where the factor is so small that every input fits.
    (largest / f64::from(left_shift).exp2()).floor() as i32
}

/// Which function of int16 a scaling is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigmoidFunction {
    /// The logistic function.
    Logistic,
    /// The hyperbolic tangent.
    Tanh,
}

/// The scaling of logistic and tanh on int16.
///
/// # Errors
/// [`QuantizationError`] when the input scale is unusable or the output scale is not 1/32768.
pub(crate) fn sigmoid_scaling_i16(
    function: SigmoidFunction,
    input_scale: f32,
    output_scale: f32,
) -> Result<SigmoidI16, QuantizationError> {
    check_scale(input_scale)?;
    check_scale(output_scale)?;
    if nearest_power_of_two(output_scale) != Some(-15) {
        return Err(QuantizationError::OutputScale { expected: 1.0 / 32768.0, found: output_scale });
    }
    // Inputs in Q3.12 (and for tanh in Q4.11) have an exact factor.
    match (nearest_power_of_two(input_scale), function) {
        (Some(-12), _) => return Ok(SigmoidI16 { multiplier: 3, shift: 0 }),
        (Some(-11), SigmoidFunction::Tanh) => return Ok(SigmoidI16 { multiplier: 6, shift: 0 }),
        _ => {}
    }
    let mut multiplier = f64::from(input_scale) * 4096.0 * 3.0;
    let mut shift = 0;
    while multiplier <= 32767.0 / 2.0 && shift <= 30 {
        shift += 1;
        multiplier *= 2.0;
    }
    if multiplier > 32767.0 {
        return Err(QuantizationError::Factor(multiplier));
    }
    Ok(SigmoidI16 { multiplier: multiplier as i32, shift })
}

/// The exponent of a scale that is, to about 0.07 %, a power of two.
fn nearest_power_of_two(scale: f32) -> Option<i32> {
    let log2 = libm::log(f64::from(scale)) as f32 * (1.0 / std::f32::consts::LN_2);
    let rounded = log2.round();
    ((log2 - rounded).abs() < 1e-3).then_some(rounded as i32)
}

/// Input scale / output scale of a rectifier.
///
/// uint8 models follow the kernels of TensorFlow Lite, which divide in single precision.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn rectifier_factor(
    dtype: DType,
    input_scale: f32,
    output_scale: f32,
) -> Result<Multiplier, QuantizationError> {
    check_scale(input_scale)?;
    check_scale(output_scale)?;
    quantize_multiplier(match dtype {
        DType::U8 => f64::from(input_scale / output_scale),
        _ => f64::from(input_scale) / f64::from(output_scale),
    })
}

/// Factors of leaky ReLU: for inputs of at least zero, for negative ones, and whether alpha is negative.
///
/// # Errors
/// [`QuantizationError`] when a scale or alpha is unusable.
pub(crate) fn leaky_relu_factors(
    dtype: DType,
    alpha: f32,
    input_scale: f32,
    output_scale: f32,
) -> Result<(Multiplier, Multiplier, bool), QuantizationError> {
    let positive = rectifier_factor(dtype, input_scale, output_scale)?;
    let negative = match dtype {
        DType::U8 => f64::from(input_scale * alpha / output_scale),
        _ => f64::from(input_scale) * f64::from(alpha) / f64::from(output_scale),
    };
    Ok((positive, quantize_multiplier(negative.abs())?, negative < 0.0))
}

/// The bounds of ReLU6 on int16, whose output has the input's scale and zero point.
///
/// # Errors
/// [`QuantizationError::Scale`] when the scale is unusable.
pub(crate) fn relu6_range_i16(
    input_scale: f32,
    input_zero_point: i32,
) -> Result<(i16, i16), QuantizationError> {
    check_scale(input_scale)?;
    let saturate = |x: i32| x.clamp(-32768, 32767) as i16;
    Ok((saturate(input_zero_point), saturate(six(input_scale, input_zero_point))))
}

/// The quantized 6.0; saturates.
pub(crate) fn six(scale: f32, zero_point: i32) -> i32 {
    ((6.0 / scale).round() as i32).saturating_add(zero_point)
}

/// The factors of PReLU: for inputs of at least zero and for negative ones.
///
/// uint8 models follow the kernels of TensorFlow Lite, which divide in single precision.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn prelu_factors(
    dtype: DType,
    input_scale: f32,
    alpha_scale: f32,
    output_scale: f32,
) -> Result<(Multiplier, Multiplier), QuantizationError> {
    for scale in [input_scale, alpha_scale, output_scale] {
        check_scale(scale)?;
    }
    let (positive, negative) = if dtype == DType::U8 {
        (f64::from(input_scale / output_scale), f64::from(input_scale * alpha_scale / output_scale))
    } else {
        let (input, alpha, output) =
            (f64::from(input_scale), f64::from(alpha_scale), f64::from(output_scale));
        (input / output, input * alpha / output)
    };
    Ok((quantize_multiplier(positive)?, quantize_multiplier(negative)?))
}

/// The factor of the reciprocal square root: `1 / (sqrt(input scale) * output scale)`.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn rsqrt_factor(input_scale: f32, output_scale: f32) -> Result<Multiplier, QuantizationError> {
    check_scale(input_scale)?;
    check_scale(output_scale)?;
    quantize_multiplier(1.0 / (f64::from(input_scale).sqrt() * f64::from(output_scale)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn real(m: Multiplier) -> f64 {
        f64::from(m.multiplier) * f64::from(m.shift - 31).exp2()
    }

    #[test]
    fn multipliers_are_rounded_half_away_from_zero() {
        let m = |multiplier, shift| Ok(Multiplier { multiplier, shift });
        assert_eq!(quantize_multiplier(1.0), m(1 << 30, 1));
        assert_eq!(quantize_multiplier(0.75), m(3 << 29, 0));
        assert_eq!(quantize_multiplier(0.0), m(0, 0));
        // Exactly between two significands, and just below a power of two, which rounds up into the next exponent.
        assert_eq!(quantize_multiplier(0.5 + 0.5f64.powi(32)), m((1 << 30) + 1, 0));
        assert_eq!(quantize_multiplier(1.0 - f64::EPSILON), m(1 << 30, 1));
        // 2^-32 is the last that is kept; a smaller one could only be shifted out.
        assert_eq!(quantize_multiplier(0.5f64.powi(32)), m(1 << 30, -31));
        assert_eq!(quantize_multiplier(0.5f64.powi(33)), m(0, 0));
        assert_eq!(quantize_multiplier(2f64.powi(30)), m(1 << 30, 31));
        for factor in [2f64.powi(31), -1.0, f64::NAN, f64::INFINITY] {
            assert!(quantize_multiplier(factor).is_err(), "{factor}");
        }
    }

    #[test]
    fn sides_of_one_are_checked() {
        assert!(quantize_multiplier_above_one(1.0).is_err());
        assert!(quantize_multiplier_above_one(1.5).is_ok());
        assert!(quantize_multiplier_below_one(0.5).is_ok());
        for factor in [0.0, 1.0, 1.5, 1.0 - f64::EPSILON] {
            assert!(quantize_multiplier_below_one(factor).is_err(), "{factor}");
        }
    }

    #[test]
    fn activations_bound_the_output() {
        let range = |activation, dtype| activation_range(activation, dtype, 0.04, -10).unwrap();
        assert_eq!(range(Activation::None, DType::I8), (-128, 127));
        assert_eq!(range(Activation::Relu, DType::I8), (-10, 127));
        assert_eq!(range(Activation::ReluN1To1, DType::I8), (-35, 15));
        assert_eq!(range(Activation::Relu6, DType::I8), (-10, 127));
        assert_eq!(range(Activation::Relu6, DType::I16), (-10, 140));
        assert_eq!(activation_range(Activation::Relu6, DType::U8, 0.04, 118), Ok((118, 255)));
        // 6 / scale in single precision is exactly 2.5.
        assert_eq!(activation_range(Activation::Relu6, DType::I8, 2.4, 0), Ok((0, 3)));
        assert!(activation_range(Activation::Relu6, DType::I8, 1e-9, 0).is_err());
        assert!(activation_range(Activation::Relu, DType::I8, 1e-9, 0).is_ok());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(activation_range(Activation::None, DType::I8, scale, 0).is_err());
        }
        assert!(activation_range(Activation::None, DType::F32, 1.0, 0).is_err());
    }

    #[test]
    fn softmax_scalings() {
        let scaling = softmax_scaling(1.0, 0.07).unwrap();
        assert_eq!(scaling.multiplier, Multiplier { multiplier: 1_202_590_848, shift: 23 });
        assert_eq!(scaling.diff_min, -248);
        let (same, inverse) = log_softmax_scaling(0.07).unwrap();
        assert_eq!(same, scaling);
        // The inverse takes Q5.26 to steps of the input.
        let product = real(inverse) * real(scaling.multiplier);
        assert!((product - 1.0).abs() < 1e-9, "{product}");
        // A huge scale is capped, a tiny one refused.
        assert_eq!(
            softmax_scaling(1.0, 1e30).unwrap().multiplier,
            Multiplier { multiplier: i32::MAX, shift: 31 }
        );
        for (beta, scale) in [(1.0, 1e-9), (0.0, 0.1), (-1.0, 0.1), (f32::NAN, 0.1), (1.0, f32::NAN)] {
            assert!(softmax_scaling(beta, scale).is_err(), "{beta} {scale}");
        }
        let expected = Multiplier { multiplier: 1_759_191_844, shift: 2 };
        assert_eq!(softmax_scaling_i16(1.0, 0.0005), Ok(expected));
    }

    #[test]
    fn sigmoid_scalings() {
        let scaling = |function, scale: f32| {
            let SigmoidI16 { multiplier, shift } =
                sigmoid_scaling_i16(function, scale, 1.0 / 32768.0).unwrap();
            (multiplier, shift)
        };
        assert_eq!(scaling(SigmoidFunction::Logistic, 1.0 / 4096.0), (3, 0));
        assert_eq!(scaling(SigmoidFunction::Tanh, 1.0 / 4096.0), (3, 0));
        assert_eq!(scaling(SigmoidFunction::Tanh, 1.0 / 2048.0), (6, 0));
        assert_eq!(scaling(SigmoidFunction::Logistic, 1.0 / 2048.0), (24576, 12));
        assert_eq!(scaling(SigmoidFunction::Logistic, 0.0007), (17616, 11));
        assert!(sigmoid_scaling_i16(SigmoidFunction::Tanh, 0.0007, 1.0 / 16384.0).is_err());
        assert!(sigmoid_scaling_i16(SigmoidFunction::Tanh, 3.0, 1.0 / 32768.0).is_err());
    }

    #[test]
    fn unsigned_models_divide_in_single_precision() {
        // 0.869 / 0.3476 is 2.5 in single precision only.
        let single = rectifier_factor(DType::U8, 0.869, 0.3476).unwrap();
        let double = rectifier_factor(DType::I8, 0.869, 0.3476).unwrap();
        assert_eq!(real(single), 2.5);
        assert!(real(double) < 2.5);
        let (positive, _) = prelu_factors(DType::U8, 0.869, 0.1, 0.3476).unwrap();
        assert_eq!(positive, single);
        let (positive, _) = prelu_factors(DType::I16, 0.869, 0.1, 0.3476).unwrap();
        assert_eq!(positive, double);
    }

    #[test]
    fn the_sign_of_alpha_is_kept_apart() {
        let (_, negative, negate) = leaky_relu_factors(DType::I8, -0.5, 0.1, 0.1).unwrap();
        assert_eq!((negative, negate), (quantize_multiplier(0.5).unwrap(), true));
        assert!(leaky_relu_factors(DType::I8, f32::NAN, 0.1, 0.1).is_err());
    }

    proptest! {
        #[test]
        fn multipliers_are_close(exponent in -30..30i32, significand in 0.5..1.0f64) {
            let factor = significand * f64::from(exponent).exp2();
            let m = quantize_multiplier(factor).unwrap();
            prop_assert!((real(m) / factor - 1.0).abs() <= 0.5f64.powi(31));
            prop_assert!(m.multiplier >= 1 << 30);
        }
    }
}
