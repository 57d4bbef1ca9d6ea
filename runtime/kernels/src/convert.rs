//! Quantize, dequantize, requantize and casts.

use crate::KernelError;
use crate::fixed::Multiplier;

/// Elements that are read, of any type.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 8-bit signed.
    I8(&'a [i8]),
    /// 8-bit unsigned.
    U8(&'a [u8]),
    /// 16-bit signed.
    I16(&'a [i16]),
    /// 32-bit signed.
    I32(&'a [i32]),
    /// 32-bit unsigned.
    U32(&'a [u32]),
    /// 64-bit signed.
    I64(&'a [i64]),
    /// Single precision.
    F32(&'a [f32]),
    /// Truth values, one byte each: 0 is false.
    Bool(&'a [u8]),
}

/// Elements that are written, of any type.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// 8-bit signed.
    I8(&'a mut [i8]),
    /// 8-bit unsigned.
    U8(&'a mut [u8]),
    /// 16-bit signed.
    I16(&'a mut [i16]),
    /// 32-bit signed.
    I32(&'a mut [i32]),
    /// 32-bit unsigned.
    U32(&'a mut [u32]),
    /// 64-bit signed.
    I64(&'a mut [i64]),
    /// Single precision.
    F32(&'a mut [f32]),
    /// Truth values, one byte each, written as 0 or 1.
    Bool(&'a mut [u8]),
}

impl Values<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::I8(values) => values.len(),
            Values::U8(values) | Values::Bool(values) => values.len(),
            Values::I16(values) => values.len(),
            Values::I32(values) => values.len(),
            Values::U32(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ValuesMut<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            ValuesMut::I8(values) => values.len(),
            ValuesMut::U8(values) | ValuesMut::Bool(values) => values.len(),
            ValuesMut::I16(values) => values.len(),
            ValuesMut::I32(values) => values.len(),
            ValuesMut::U32(values) => values.len(),
            ValuesMut::I64(values) => values.len(),
            ValuesMut::F32(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn same_len(input: usize, output: usize) -> Result<(), KernelError> {
    if input == output { Ok(()) } else { Err(KernelError::Shape) }
}

fn map<A: Copy, B>(input: &[A], output: &mut [B], f: impl Fn(A) -> B) {
    output.iter_mut().zip(input).for_each(|(output, &input)| *output = f(input));
}

/// The scale and zero point between real and quantized numbers: `real = (quantized - zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Step of the quantized numbers.
    pub scale: f32,
    /// The quantized number that stands for 0.
    pub zero_point: i32,
}

/// Quantizes `f32` to int8, uint8 or int16: `round(x / scale) + zero_point`, halves away from zero, limited to the type's
/// range. What exceeds the range, however far, becomes the nearest limit; not-a-number becomes the zero point.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ, [`KernelError::Parameter`] for other output types.
pub fn quantize(p: &Affine, input: &[f32], output: ValuesMut<'_>) -> Result<(), KernelError> {
    same_len(input.len(), output.len())?;
    // The largest number below a half: a half would carry 0.49999997 over.
    const HALF: f32 = 0.5 - f32::EPSILON / 4.0;
    let quantized = |x: f32, min: i32, max: i32| {
        let x = x / p.scale;
        // The cast truncates and saturates.
        let rounded = (x + HALF.copysign(x)) as i32;
        rounded.saturating_add(p.zero_point).max(min).min(max)
    };
    match output {
        ValuesMut::I8(output) => {
            map(input, output, |x| quantized(x, i8::MIN.into(), i8::MAX.into()) as i8);
        }
        ValuesMut::U8(output) => {
            map(input, output, |x| quantized(x, u8::MIN.into(), u8::MAX.into()) as u8);
        }
        ValuesMut::I16(output) => {
            map(input, output, |x| quantized(x, i16::MIN.into(), i16::MAX.into()) as i16);
        }
        _ => return Err(KernelError::Parameter),
    }
    Ok(())
}

/// Dequantizes int8, uint8, int16 or int32 to `f32`: `(q - zero_point) · scale`.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ, [`KernelError::Parameter`] for other input types.
pub fn dequantize(p: &Affine, input: Values<'_>, output: &mut [f32]) -> Result<(), KernelError> {
    same_len(input.len(), output.len())?;
    // The difference has at most 17 bits (int32 excepted), so both steps are exact but for the last rounding.
    let real = |q: i32| q.wrapping_sub(p.zero_point) as f32 * p.scale;
    match input {
        Values::I8(input) => map(input, output, |q| real(q.into())),
        Values::U8(input) => map(input, output, |q| real(q.into())),
        Values::I16(input) => map(input, output, |q| real(q.into())),
        Values::I32(input) => map(input, output, real),
        _ => return Err(KernelError::Parameter),
    }
    Ok(())
}

/// Parameters of a change of scale: `factor · (q - input_zero_point) + output_zero_point`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requantize {
    /// Input scale over output scale.
    pub factor: Multiplier,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
}

/// Changes the scale, and the width, of int8, int16 or int32 values. The output is limited to its type's range.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ, [`KernelError::Parameter`] for other types or when the factor's
/// shift is out of range.
pub fn requantize(p: &Requantize, input: Values<'_>, output: ValuesMut<'_>) -> Result<(), KernelError> {
    same_len(input.len(), output.len())?;
    p.factor.check()?;
    let typed = matches!(input, Values::I8(_) | Values::I16(_) | Values::I32(_))
        && matches!(output, ValuesMut::I8(_) | ValuesMut::I16(_) | ValuesMut::I32(_));
    if !typed {
        return Err(KernelError::Parameter);
    }
    through_buffer(input, output, |q, limits| {
        let difference = (q as i32).wrapping_sub(p.input_zero_point);
        let value = i64::from(p.factor.apply(difference).wrapping_add(p.output_zero_point));
        value.max(*limits.start()).min(*limits.end())
    });
    Ok(())
}

/// Converts between element types, each as a C++ `static_cast` does it.
///
/// Integers keep their low bits (two's complement). Everything but zero is true; truth values become 0 and 1. Floats
/// are truncated towards zero; those outside of the range of the target, for which C++ promises nothing, become its
/// nearest limit, and not-a-number becomes 0 (but true).
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ.
pub fn cast(input: Values<'_>, output: ValuesMut<'_>) -> Result<(), KernelError> {
    same_len(input.len(), output.len())?;
    match (input, output) {
        (Values::F32(input), output) => match output {
            ValuesMut::I8(output) => map(input, output, |x| x as i8),
            ValuesMut::U8(output) => map(input, output, |x| x as u8),
            ValuesMut::I16(output) => map(input, output, |x| x as i16),
            ValuesMut::I32(output) => map(input, output, |x| x as i32),
            ValuesMut::U32(output) => map(input, output, |x| x as u32),
            ValuesMut::I64(output) => map(input, output, |x| x as i64),
            ValuesMut::F32(output) => map(input, output, |x| x),
            ValuesMut::Bool(output) => map(input, output, |x| u8::from(x != 0.0)),
        },
        (input, output) => through_buffer(input, output, |value, _| value),
    }
    Ok(())
}

/// Values converted at a time. Going through 64 bits needs one loop per type rather than one per pair of types.
const BUFFER: usize = 16;

/// Reads integers or truth values as `i64`, applies `f`, which is told the output type's range, and writes the low
/// bits of the result. Float inputs are skipped.
#[inline(always)]
fn through_buffer(
    input: Values<'_>,
    mut output: ValuesMut<'_>,
    f: impl Fn(i64, &core::ops::RangeInclusive<i64>) -> i64,
) {
    let limits = match output {
        ValuesMut::I8(_) => i8::MIN.into()..=i8::MAX.into(),
        ValuesMut::U8(_) => u8::MIN.into()..=u8::MAX.into(),
        ValuesMut::I16(_) => i16::MIN.into()..=i16::MAX.into(),
        ValuesMut::I32(_) => i32::MIN.into()..=i32::MAX.into(),
        ValuesMut::U32(_) => u32::MIN.into()..=u32::MAX.into(),
        ValuesMut::I64(_) | ValuesMut::F32(_) => i64::MIN..=i64::MAX,
        ValuesMut::Bool(_) => 0..=1,
    };
    let mut buffer = [0; BUFFER];
    let len = input.len();
    for start in (0..len).step_by(BUFFER) {
        let Some(buffer) = buffer.get_mut(..BUFFER.min(len - start)) else { return };
        load(input, start, buffer);
        buffer.iter_mut().for_each(|value| *value = f(*value, &limits));
        store(buffer, &mut output, start);
    }
}

fn load(input: Values<'_>, start: usize, buffer: &mut [i64]) {
    fn copy<T: Copy>(input: &[T], start: usize, buffer: &mut [i64], widen: impl Fn(T) -> i64) {
        map(input.get(start..).unwrap_or_default(), buffer, widen);
    }
    match input {
        Values::I8(input) => copy(input, start, buffer, i64::from),
        Values::U8(input) => copy(input, start, buffer, i64::from),
        Values::I16(input) => copy(input, start, buffer, i64::from),
        Values::I32(input) => copy(input, start, buffer, i64::from),
        Values::U32(input) => copy(input, start, buffer, i64::from),
        Values::I64(input) => copy(input, start, buffer, |x| x),
        Values::Bool(input) => copy(input, start, buffer, |x| i64::from(x != 0)),
        Values::F32(_) => {}
    }
}

fn store(buffer: &[i64], output: &mut ValuesMut<'_>, start: usize) {
    fn copy<T>(buffer: &[i64], output: &mut [T], start: usize, narrow: impl Fn(i64) -> T) {
        map(buffer, output.get_mut(start..).unwrap_or_default(), narrow);
    }
    match output {
        ValuesMut::I8(output) => copy(buffer, output, start, |x| x as i8),
        ValuesMut::U8(output) => copy(buffer, output, start, |x| x as u8),
        ValuesMut::I16(output) => copy(buffer, output, start, |x| x as i16),
        ValuesMut::I32(output) => copy(buffer, output, start, |x| x as i32),
        ValuesMut::U32(output) => copy(buffer, output, start, |x| x as u32),
        ValuesMut::I64(output) => copy(buffer, output, start, |x| x),
        ValuesMut::F32(output) => copy(buffer, output, start, |x| x as f32),
        ValuesMut::Bool(output) => copy(buffer, output, start, |x| u8::from(x != 0)),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    // Expected values: TensorFlow Lite Micro on single-operator models.

    #[test]
    fn quantizes_halves_away_from_zero() {
        let x = [-300.0, -1.05, -0.025, -0.0249, 0.0, 0.025, 0.075, 0.126, 3.3, 300.0];
        let mut output = [0; 10];
        quantize(&Affine { scale: 0.05, zero_point: -3 }, &x, ValuesMut::I8(&mut output)).unwrap();
        assert_eq!(output, [-128, -24, -4, -3, -3, -2, -1, 0, 63, 127]);
        let mut output = [0; 10];
        quantize(&Affine { scale: 0.05, zero_point: 0 }, &x, ValuesMut::I16(&mut output)).unwrap();
        assert_eq!(output, [-6000, -21, -1, 0, 0, 1, 2, 3, 66, 6000]);
        let mut output = [0; 10];
        quantize(&Affine { scale: 0.05, zero_point: 125 }, &x, ValuesMut::U8(&mut output)).unwrap();
        assert_eq!(output, [0, 104, 124, 125, 125, 126, 127, 128, 191, 255]);
        let mut output = [0; 5];
        let extremes = [f32::NEG_INFINITY, -1e30, f32::NAN, 1e30, f32::INFINITY];
        quantize(&Affine { scale: 0.05, zero_point: -3 }, &extremes, ValuesMut::I8(&mut output)).unwrap();
        assert_eq!(output, [-128, -128, -3, 127, 127]);
    }

    proptest! {
        #[test]
        fn rounds_like_std(x in -40_000f32..40_000.0, halves in -40_000i32..40_000) {
            for x in [x, halves as f32 / 2.0, (halves as f32 / 2.0).next_up(), (halves as f32 / 2.0).next_down()] {
                let mut output = [0];
                quantize(&Affine { scale: 1.0, zero_point: 0 }, &[x], ValuesMut::I16(&mut output)).unwrap();
                prop_assert_eq!(output[0], x.round() as i16);
            }
        }

        #[test]
        fn hostile_parameters_do_not_panic(x: [i32; 4], words: [i32; 3], shift in -31..=31, scale: f32) {
            let [multiplier, input_zero_point, output_zero_point] = words;
            let p = Requantize { factor: Multiplier { multiplier, shift }, input_zero_point, output_zero_point };
            requantize(&p, Values::I32(&x), ValuesMut::I32(&mut [0; 4])).unwrap();
            let p = Affine { scale, zero_point: input_zero_point };
            dequantize(&p, Values::I32(&x), &mut [0.0; 4]).unwrap();
            quantize(&p, &x.map(|x| f32::from_bits(x as u32)), ValuesMut::I8(&mut [0; 4])).unwrap();
        }
    }

    #[test]
    fn dequantizes() {
        let p = Affine { scale: 0.5, zero_point: -3 };
        let mut output = [0.0; 2];
        dequantize(&p, Values::I8(&[-128, 127]), &mut output).unwrap();
        assert_eq!(output, [-62.5, 65.0]);
        dequantize(&p, Values::U8(&[0, 255]), &mut output).unwrap();
        assert_eq!(output, [1.5, 129.0]);
        assert_eq!(dequantize(&p, Values::F32(&[0.0; 2]), &mut output), Err(KernelError::Parameter));
    }

    #[test]
    fn requantizes() {
        let p = |multiplier, shift, input_zero_point, output_zero_point| Requantize {
            factor: Multiplier { multiplier, shift },
            input_zero_point,
            output_zero_point,
        };
        let mut output = [0; 8];
        let x = [-32768, -12345, -7, 0, 1, 300, 20000, 32767];
        let narrow = p(1_649_267_456, -7, 0, -3);
        requantize(&narrow, Values::I16(&x), ValuesMut::I8(&mut output)).unwrap();
        assert_eq!(output, [-128, -77, -3, -3, -3, -1, 117, 127]);

        let mut output = [0; 8];
        let x = [i32::MIN, -70_000, -1, 0, 1, 12_345, 1 << 20, i32::MAX];
        requantize(&p(1_717_987_038, -1, 0, 7), Values::I32(&x), ValuesMut::I16(&mut output)).unwrap();
        assert_eq!(output, [-32768, -27993, 6, 7, 8, 4945, 32767, 32767]);

        let mut output = [0; 8];
        let x = [-128, -100, -37, -1, 0, 64, 99, 127];
        requantize(&p(1_747_626_584, 11, 9, 7), Values::I8(&x), ValuesMut::I32(&mut output)).unwrap();
        assert_eq!(output, [-228_326, -181_660, -76_660, -16_660, -14_993, 91_674, 150_007, 196_674]);

        let mut output = [0; 1];
        let error = requantize(&p(1 << 30, 32, 0, 0), Values::I8(&[1]), ValuesMut::I32(&mut output));
        assert_eq!(error, Err(KernelError::Parameter));
        let error = requantize(&p(1 << 30, 0, 0, 0), Values::U8(&[1]), ValuesMut::I32(&mut output));
        assert_eq!(error, Err(KernelError::Parameter));
        let error = requantize(&p(1 << 30, 0, 0, 0), Values::I8(&[1, 2]), ValuesMut::I32(&mut output));
        assert_eq!(error, Err(KernelError::Shape));
    }

    #[test]
    fn casts() {
        let mut bytes = [0; 4];
        cast(Values::F32(&[-1.9, 300.0, f32::NAN, -1e30]), ValuesMut::I8(&mut bytes)).unwrap();
        assert_eq!(bytes, [-1, 127, 0, -128]);
        let mut unsigned = [0; 4];
        cast(Values::F32(&[-1.9, 3e9, f32::NAN, 1e30]), ValuesMut::U32(&mut unsigned)).unwrap();
        assert_eq!(unsigned, [0, 3_000_000_000, 0, u32::MAX]);
        let mut truths = [9; 4];
        cast(Values::F32(&[0.2, -0.0, f32::NAN, 1.0]), ValuesMut::Bool(&mut truths)).unwrap();
        assert_eq!(truths, [1, 0, 1, 1]);
        cast(Values::I32(&[300, -1, 65_536, 127]), ValuesMut::I8(&mut bytes)).unwrap();
        assert_eq!(bytes, [44, -1, 0, 127]);
        cast(Values::I16(&[-1, -2, 3, 4]), ValuesMut::U32(&mut unsigned)).unwrap();
        assert_eq!(unsigned, [u32::MAX, u32::MAX - 1, 3, 4]);
        let mut floats = [0.0; 4];
        cast(Values::Bool(&[0, 1, 2, 255]), ValuesMut::F32(&mut floats)).unwrap();
        assert_eq!(floats, [0.0, 1.0, 1.0, 1.0]);
        cast(Values::U32(&[0, 1, 16_777_217, u32::MAX]), ValuesMut::F32(&mut floats)).unwrap();
        assert_eq!(floats, [0.0, 1.0, 16_777_216.0, 4_294_967_296.0]);
        assert_eq!(cast(Values::I8(&[1]), ValuesMut::F32(&mut floats)), Err(KernelError::Shape));
    }

    #[test]
    fn casts_more_than_a_buffer() {
        let x: [i16; 2 * BUFFER + 3] = core::array::from_fn(|i| i as i16 - 9);
        let mut output = [0; 2 * BUFFER + 3];
        cast(Values::I16(&x), ValuesMut::I64(&mut output)).unwrap();
        assert_eq!(output, x.map(i64::from));
    }
}
