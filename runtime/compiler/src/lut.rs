//! Unary operators on 8-bit tensors as tables.
//!
//! A function of 256 inputs is a table of 256 outputs; the compiler evaluates the reference's formula, bit for bit,
//! and the device looks up. int8 operators follow TensorFlow Lite Micro. uint8 operators, which it refuses, follow the
//! reference kernels of TensorFlow Lite; so does ReLU-1-to-1, which it lacks.

use dunlin_kernels::fixed::{
    Multiplier, doubling_high_mul_i16, logistic as logistic_q4, rescaled_inverse_sqrt, rounding_shift_right,
    saturating_shift_left, tanh as tanh_q4,
};

use crate::graph::{DType, Value};
use crate::quantize::{
    QuantizationError, check_scale, input_radius, leaky_relu_factors, quantize_multiplier, rectifier_factor,
    rsqrt_factor, six,
};

/// The stored output of an operator for every stored input, both as bytes.
pub(crate) type Table = [u8; 256];

/// An 8-bit tensor: the model's type and how its numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage8 {
    /// int8.
    Int8,
    /// uint8.
    Uint8,
    /// uint8 in the model, stored as int8: the number minus 128.
    Shifted,
}

/// Quantization of an 8-bit tensor in the model's own terms: real value = `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantized8 {
    /// Type and storage.
    pub(crate) storage: Storage8,
    /// Real size of one step.
    pub(crate) scale: f32,
    /// The number for 0.0.
    pub(crate) zero_point: i32,
}

impl Quantized8 {
    /// The quantization of a value; none when it is not an 8-bit one or not quantized per tensor.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let (scale, zero_point) = value.scale_and_zero_point()?;
        match (value.dtype, value.was_unsigned) {
            (DType::I8, false) => Some(Quantized8 { storage: Storage8::Int8, scale, zero_point }),
            (DType::I8, true) => {
                let zero_point = zero_point.wrapping_add(128);
                Some(Quantized8 { storage: Storage8::Shifted, scale, zero_point })
            }
            (DType::U8, _) => Some(Quantized8 { storage: Storage8::Uint8, scale, zero_point }),
            _ => None,
        }
    }

    /// The model's element type.
    fn dtype(self) -> DType {
        if self.storage == Storage8::Int8 { DType::I8 } else { DType::U8 }
    }

    /// Smallest and largest number of the model's type.
    fn range(self) -> (i32, i32) {
        if self.storage == Storage8::Int8 { (-128, 127) } else { (0, 255) }
    }

    /// The number that a stored byte stands for.
    fn load(self, byte: u8) -> i32 {
        match self.storage {
            Storage8::Int8 => i32::from(byte as i8),
            Storage8::Uint8 => i32::from(byte),
            Storage8::Shifted => i32::from(byte as i8) + 128,
        }
    }

    /// The stored byte for a number within the range.
    fn store(self, q: i32) -> u8 {
        match self.storage {
            Storage8::Int8 | Storage8::Uint8 => q as u8,
            Storage8::Shifted => (q - 128) as u8,
        }
    }

    /// The distance of a number from the zero point. Wraps, as the reference does, for zero points beyond any meaning.
    fn centred(self, q: i32) -> i32 {
        q.wrapping_sub(self.zero_point)
    }
}

/// Tabulates a function from the input's to the output's numbers; results saturate.
fn tabulate(input: Quantized8, output: Quantized8, f: impl Fn(i32) -> i32) -> Table {
    let (min, max) = output.range();
    std::array::from_fn(|byte| output.store(f(input.load(byte as u8)).clamp(min, max)))
}

fn check_scales(input: Quantized8, output: Quantized8) -> Result<(), QuantizationError> {
    check_scale(input.scale)?;
    check_scale(output.scale)
}

/// Tabulates a real function: dequantize, apply, multiply by the reciprocal of the output scale, round half away from
/// zero, all in single precision.
///
/// # Errors
/// [`QuantizationError::Scale`] when a scale is unusable.
pub(crate) fn real_function(
    input: Quantized8,
    output: Quantized8,
    f: impl Fn(f32) -> f32,
) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    let inverse_scale = 1.0 / output.scale;
    Ok(tabulate(input, output, |q| {
        let steps = (f(input.scale * input.centred(q) as f32) * inverse_scale).round();
        (steps + output.zero_point as f32) as i32
    }))
}

/// The exponential function, correctly rounded and the same on every host.
fn exp(x: f32) -> f32 {
    libm::exp(f64::from(x)) as f32
}

/// The logistic function: output scale 1/256 and the zero point at the smallest number.
///
/// # Errors
/// [`QuantizationError`] when the input scale is unusable or the output's quantization is another one.
pub(crate) fn logistic(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    if input.dtype() == DType::U8 {
        if output.scale != 1.0 / 256.0 {
            return Err(QuantizationError::OutputScale { expected: 1.0 / 256.0, found: output.scale });
        }
        return real_function(input, output, |x| 1.0 / (1.0 + exp(-x)));
    }
    if output.zero_point != -128 {
        return Err(QuantizationError::ZeroPoint { expected: -128, found: output.zero_point });
    }
    Ok(saturating_function(input, output, |x| rounding_shift_right(logistic_q4(x), 23) - 128))
}

/// The hyperbolic tangent. On int8 the output scale is taken as 1/128 and its zero point as 0, whatever they are.
///
/// # Errors
/// [`QuantizationError::Scale`] when a scale is unusable.
pub(crate) fn tanh(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    if input.dtype() == DType::U8 {
        return real_function(input, output, |x| libm::tanh(f64::from(x)) as f32);
    }
    Ok(saturating_function(input, output, |x| rounding_shift_right(tanh_q4(x), 24)))
}

/// Tabulates a function of Q4.27 that reaches its limits within ±15 (almost 16).
fn saturating_function(input: Quantized8, output: Quantized8, f: impl Fn(i32) -> i32) -> Table {
    const INTEGER_BITS: u32 = 4;
    let (significand, shift) = libm::frexp(f64::from(input.scale) * f64::from(1 << (31 - INTEGER_BITS)));
    let multiplier = Multiplier { multiplier: (significand * 2f64.powi(31)).round() as i32, shift };
    let radius = input_radius(INTEGER_BITS, shift);
    tabulate(input, output, |q| {
        let x = input.centred(q);
        if x <= -radius {
            -128
        } else if x >= radius {
            127
        } else {
            f(multiplier.apply(x))
        }
    })
}

/// `x * relu6(x + 3) / 6`.
///
/// # Errors
/// [`QuantizationError::Scale`] when a scale is unusable; [`QuantizationError::OutputTooFine`] when the output scale
/// is below 1/128 of the input scale.
pub(crate) fn hard_swish(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    // Inputs are raised by 7 bits, so that 16-bit products keep their precision.
    let fine_scale = input.scale * (1.0 / 128.0);
    let output_factor = match input.dtype() {
        DType::U8 => f64::from(fine_scale / output.scale),
        _ => f64::from(fine_scale) / f64::from(output.scale),
    };
    let (output_factor, output_shift) = narrow(output_factor)?;
    // The scale on which 3.0 is 32768.
    let (gate_factor, gate_shift) = narrow(f64::from(fine_scale / (3.0 / 32768.0)))?;
    if output_shift > 0 {
        return Err(QuantizationError::OutputTooFine { input: input.scale, output: output.scale });
    }
    Ok(tabulate(input, output, |q| {
        let x = (input.centred(q) as i16).wrapping_mul(128);
        let value = doubling_high_mul_i16(x, output_factor);
        // The gate, (x + 3) / 6 within 0 ..= 1, in Q0.15.
        let mut gate = x;
        if gate_shift > 0 {
            gate = saturate(saturating_shift_left(i32::from(gate), gate_shift as u32 - 1));
        }
        gate = doubling_high_mul_i16(gate, gate_factor);
        if gate_shift > 0 {
            gate = saturate(i32::from(gate) * 2);
        }
        if gate_shift < 0 {
            gate = rounding_shift_right_i16(gate, -gate_shift);
        }
        let gate = (i32::from(gate) + 32768) >> 1;
        // This product truncates towards zero, to cancel the bias of the roundings above.
        let product = (gate * i32::from(value) / 32768) as i16;
        let rescaled = rounding_shift_right_i16(product, -output_shift);
        // The sum wraps in the reference's 16 bits before it is clamped.
        i32::from(rescaled.wrapping_add(output.zero_point as i16))
    }))
}

/// A factor with a significand of 15 bits.
fn narrow(factor: f64) -> Result<(i16, i32), QuantizationError> {
    let Multiplier { multiplier, shift } = quantize_multiplier(factor)?;
    Ok((saturate((multiplier.saturating_add(1 << 15)) >> 16), shift))
}

fn saturate(x: i32) -> i16 {
    x.clamp(-32768, 32767) as i16
}

/// `round(x / 2^exponent)`, ties away from zero, on 16 bits; beyond 15 places the mask fills the whole word and only
/// the sign counts: 1 for `x >= 0`, -1 below, as in the reference.
fn rounding_shift_right_i16(x: i16, exponent: i32) -> i16 {
    let exponent = exponent.clamp(0, 31);
    let mask = ((1i64 << exponent) - 1) as i16;
    let threshold = (mask >> 1) + i16::from(x < 0);
    (i32::from(x) >> exponent) as i16 + i16::from(x & mask > threshold)
}

/// `x` where it is not negative, `alpha * x` elsewhere.
///
/// # Errors
/// [`QuantizationError`] when a scale or alpha is unusable.
pub(crate) fn leaky_relu(
    input: Quantized8,
    output: Quantized8,
    alpha: f32,
) -> Result<Table, QuantizationError> {
    let (positive, negative, negate) = leaky_relu_factors(input.dtype(), alpha, input.scale, output.scale)?;
    Ok(tabulate(input, output, |q| {
        let x = input.centred(q);
        let scaled = match (x >= 0, negate) {
            (true, _) => positive.apply(x),
            (false, false) => negative.apply(x),
            (false, true) => negative.apply(x).wrapping_neg(),
        };
        scaled.wrapping_add(output.zero_point)
    }))
}

/// `max(x, 0)`.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn relu(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    let factor = rectifier_factor(input.dtype(), input.scale, output.scale)?;
    Ok(rescale_and_clamp(input, output, factor, 0.0, f32::INFINITY))
}

/// `x` limited to -1 ..= 1.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn relu_n1_to_1(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    // In single precision for int8 too: the formula is TensorFlow Lite's.
    let factor = rectifier_factor(DType::U8, input.scale, output.scale)?;
    Ok(rescale_and_clamp(input, output, factor, -1.0, 1.0))
}

/// `x` limited to 0 ..= 6. On int8 the output has the input's scale and zero point, whatever it says.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn relu6(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    if input.dtype() == DType::U8 {
        let factor = rectifier_factor(input.dtype(), input.scale, output.scale)?;
        return Ok(rescale_and_clamp(input, output, factor, 0.0, 6.0));
    }
    check_scale(input.scale)?;
    let lower = i32::from(input.zero_point as i8);
    let upper = six(input.scale, input.zero_point).clamp(-128, 127);
    Ok(tabulate(input, output, |q| {
        if q > upper {
            upper
        } else if q < lower {
            lower
        } else {
            q
        }
    }))
}

fn rescale_and_clamp(input: Quantized8, output: Quantized8, factor: Multiplier, min: f32, max: f32) -> Table {
    let (lowest, highest) = output.range();
    let quantized = |bound: f32| output.zero_point.saturating_add((bound / output.scale).round() as i32);
    let min = quantized(min).max(lowest);
    let max = if max.is_finite() { quantized(max).min(highest) } else { highest };
    tabulate(input, output, |q| {
        let scaled = output.zero_point.wrapping_add(factor.apply(input.centred(q)));
        // Not `clamp`: the bounds may cross when the zero point lies outside of the range.
        scaled.max(min).min(max)
    })
}

/// `x` where it is not negative, `exp(x) - 1` elsewhere.
///
/// # Errors
/// [`QuantizationError::Scale`] when a scale is unusable.
pub(crate) fn elu(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    real_function(input, output, |x| if x < 0.0 { exp(x) - 1.0 } else { x })
}

/// Change of scale, zero point or signedness.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn requantize(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    let factor = quantize_multiplier(f64::from(input.scale) / f64::from(output.scale))?;
    Ok(tabulate(input, output, |q| factor.apply(input.centred(q)).wrapping_add(output.zero_point)))
}

/// Change of scale and zero point of an operand that a uint8 concatenation brings to its output's, in single
/// precision.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn concatenated(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    check_scales(input, output)?;
    let scale = input.scale * (1.0 / output.scale);
    let bias = -(input.zero_point as f32) * scale;
    Ok(tabulate(input, output, |q| {
        ((q as f32 * scale + bias).round() as i32).saturating_add(output.zero_point)
    }))
}

/// The absolute value.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn abs(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    let factor = rectifier_factor(input.dtype(), input.scale, output.scale)?;
    Ok(tabulate(input, output, |q| {
        factor.apply(input.centred(q).wrapping_abs()).wrapping_add(output.zero_point)
    }))
}

/// `1 / sqrt(x)`. Zero and (where the reference stops with an error) negative inputs give the largest output.
///
/// # Errors
/// [`QuantizationError`] when a scale is unusable.
pub(crate) fn rsqrt(input: Quantized8, output: Quantized8) -> Result<Table, QuantizationError> {
    let factor = rsqrt_factor(input.scale, output.scale)?;
    Ok(tabulate(input, output, |q| {
        let x = input.centred(q);
        if x > 0 { rescaled_inverse_sqrt(x, factor).wrapping_add(output.zero_point) } else { i32::MAX }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(storage: Storage8, scale: f32, zero_point: i32) -> Quantized8 {
        Quantized8 { storage, scale, zero_point }
    }

    fn int8(scale: f32, zero_point: i32) -> Quantized8 {
        quantized(Storage8::Int8, scale, zero_point)
    }

    fn uint8(scale: f32, zero_point: i32) -> Quantized8 {
        quantized(Storage8::Uint8, scale, zero_point)
    }

    /// Every 17th output and a checksum of all, in the order of the input's numbers.
    fn digest(
        input: Quantized8,
        output: Quantized8,
        table: Result<Table, QuantizationError>,
    ) -> ([i32; 16], u32) {
        let table = table.unwrap();
        let (min, _) = input.range();
        let at = |q: i32| table[usize::from(input.store(min + q))];
        let checksum = (0..256).fold(0u32, |sum, q| sum.wrapping_mul(31).wrapping_add(at(q).into()));
        (std::array::from_fn(|i| output.load(at(17 * i as i32))), checksum)
    }

    // Scale 0.05, zero point 3 to scale 0.04, zero point -10 unless another output is prescribed. From TensorFlow
    // Lite Micro (tflite_micro 0.dev20261023), ReLU-1-to-1 from TensorFlow Lite's reference kernels (2.3.0).
    #[test]
    fn int8_equals_the_reference() {
        let (input, output) = (int8(0.05, 3), int8(0.04, -10));
        let check = |table, expected: [i32; 16], checksum| {
            assert_eq!(digest(input, output, table), (expected, checksum));
        };
        check(
            hard_swish(input, output),
            [-10, -10, -10, -10, -10, -17, -19, -16, -7, 9, 30, 58, 81, 102, 124, 127],
            2985146218,
        );
        check(
            relu(input, output),
            [-10, -10, -10, -10, -10, -10, -10, -10, -4, 18, 39, 60, 81, 103, 124, 127],
            2286330898,
        );
        check(relu6(input, output), [3, 3, 3, 3, 3, 3, 3, 3, 8, 25, 42, 59, 76, 93, 110, 123], 3296047036);
        check(
            relu_n1_to_1(input, output),
            [-35, -35, -35, -35, -35, -35, -35, -25, -4, 15, 15, 15, 15, 15, 15, 15],
            1426969630,
        );
        check(
            elu(input, output),
            [-35, -35, -35, -35, -34, -32, -29, -21, -4, 18, 39, 60, 81, 103, 124, 127],
            3016331712,
        );
        check(
            requantize(input, output),
            [-128, -128, -128, -110, -89, -68, -46, -25, -4, 18, 39, 60, 81, 103, 124, 127],
            3674357793,
        );
        check(
            abs(input, output),
            [127, 127, 111, 90, 69, 48, 26, 5, -4, 18, 39, 60, 81, 103, 124, 127],
            988134555,
        );
        check(
            leaky_relu(input, output, 0.3),
            [-59, -53, -47, -40, -34, -28, -21, -15, -4, 18, 39, 60, 81, 103, 124, 127],
            4118468195,
        );
        check(
            leaky_relu(input, output, -0.3),
            [39, 33, 27, 20, 14, 8, 1, -5, -4, 18, 39, 60, 81, 103, 124, 127],
            453587649,
        );
        check(
            logistic(input, int8(1.0 / 256.0, -128)),
            [-128, -127, -126, -123, -117, -105, -79, -37, 16, 64, 96, 113, 122, 125, 127, 127],
            2750658688,
        );
        check(
            tanh(input, int8(1.0 / 128.0, 0)),
            [-128, -128, -128, -128, -128, -125, -115, -69, 31, 102, 123, 127, 127, 127, 127, 127],
            1343447264,
        );
        check(
            rsqrt(int8(0.05, -128), int8(0.02, -100)),
            [127, -46, -62, -69, -73, -76, -78, -80, -81, -82, -83, -84, -84, -85, -86, -86],
            450003820,
        );
    }

    // The same scales with zero points 131 and 118, from TensorFlow Lite's reference kernels (2.3.0).
    #[test]
    fn uint8_equals_the_reference() {
        let (input, output) = (uint8(0.05, 131), uint8(0.04, 118));
        let check = |table, expected: [i32; 16], checksum| {
            assert_eq!(digest(input, output, table), (expected, checksum));
        };
        check(
            hard_swish(input, output),
            [118, 118, 118, 118, 118, 111, 109, 112, 121, 137, 158, 186, 209, 230, 252, 255],
            583841642,
        );
        let rectified = [118, 118, 118, 118, 118, 118, 118, 118, 124, 146, 167, 188, 209, 231, 252, 255];
        check(relu(input, output), rectified, 1548182802);
        check(relu6(input, output), rectified, 1548182802);
        check(
            relu_n1_to_1(input, output),
            [93, 93, 93, 93, 93, 93, 93, 103, 124, 143, 143, 143, 143, 143, 143, 143],
            688821534,
        );
        check(
            leaky_relu(input, output, 0.3),
            [69, 75, 81, 88, 94, 100, 107, 113, 124, 146, 167, 188, 209, 231, 252, 255],
            3380320099,
        );
        check(
            logistic(input, uint8(1.0 / 256.0, 0)),
            [0, 1, 2, 5, 11, 23, 49, 91, 144, 192, 224, 241, 250, 253, 255, 255],
            309590400,
        );
        check(
            tanh(input, uint8(1.0 / 128.0, 128)),
            [0, 0, 0, 0, 0, 3, 13, 59, 159, 230, 251, 255, 255, 255, 255, 255],
            3197346272,
        );
        check(
            requantize(input, output),
            [0, 0, 0, 18, 39, 60, 82, 103, 124, 146, 167, 188, 209, 231, 252, 255],
            2936209697,
        );
        let signed = int8(0.04, -10);
        let expected = [-128, -128, -128, -110, -89, -68, -46, -25, -4, 18, 39, 60, 81, 103, 124, 127];
        assert_eq!(digest(input, signed, requantize(input, signed)), (expected, 3674357793));
    }

    #[test]
    fn int8_divides_in_double_and_uint8_in_single_precision() {
        // The quotient of the scales is 2.5 in single precision only. Fourth sample: 51 * 2.5.
        let digest = |input, output| digest(input, output, relu(input, output)).0[3];
        assert_eq!(digest(int8(0.869, -128), int8(0.3476, -128)), -1); // 127 above the smallest number
        assert_eq!(digest(uint8(0.869, 0), uint8(0.3476, 0)), 128);
    }

    #[test]
    fn storage_only_renames_bytes() {
        let raw = relu(uint8(0.05, 131), uint8(0.04, 118)).unwrap();
        let stored = |zero_point| quantized(Storage8::Shifted, 0.05, zero_point);
        let shifted = relu(stored(131), Quantized8 { scale: 0.04, ..stored(118) }).unwrap();
        for byte in 0..256usize {
            assert_eq!(shifted[byte ^ 0x80], raw[byte] ^ 0x80);
        }
        // The border between the outside's uint8 and the stored form is a plain shift.
        let border = requantize(uint8(0.05, 131), stored(131)).unwrap();
        assert!((0..256usize).all(|byte| usize::from(border[byte]) == byte ^ 0x80));
    }

    #[test]
    fn prescribed_outputs_are_checked() {
        assert!(logistic(int8(0.05, 3), int8(1.0 / 256.0, 0)).is_err());
        assert!(logistic(uint8(0.05, 3), uint8(1.0 / 255.0, 0)).is_err());
        assert!(hard_swish(int8(1.0, 0), int8(1.0 / 300.0, 0)).is_err());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(relu6(int8(scale, 0), int8(1.0, 0)).is_err());
            assert!(elu(int8(1.0, 0), int8(scale, 0)).is_err());
        }
    }

    #[test]
    fn hostile_parameters_do_not_panic() {
        for scale in [f32::MIN_POSITIVE, 1e-20, 1.0, 1e20, f32::MAX] {
            for other in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
                for zero_point in [i32::MIN, -128, 0, i32::MAX] {
                    let (input, output) = (int8(scale, zero_point), int8(other, zero_point));
                    for f in
                        [hard_swish, relu, relu6, relu_n1_to_1, elu, requantize, abs, rsqrt, logistic, tanh]
                    {
                        let _ = f(input, output);
                        let _ = f(uint8(scale, zero_point), uint8(other, zero_point));
                    }
                    let _ = leaky_relu(input, output, f32::MAX);
                }
            }
        }
    }
}
