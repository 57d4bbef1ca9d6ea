//! Unary operators on int16 tensors.
//!
//! Sigmoid and hyperbolic tangent share one table of the sigmoid, interpolated linearly; the others rescale with a
//! [`Multiplier`]. All work in place.

use crate::KernelError;
use crate::fixed::{Multiplier, exp_for_table, rescaled_inverse_sqrt};

/// Takes the input of [`logistic_i16`] or [`tanh_i16`] to units of 1/(3 * 4096).
#[derive(Clone, Debug)]
pub struct SigmoidI16 {
    /// `input scale * 3 * 4096 * 2^shift`, at most 32767. For an input in Q3.12 it is 3 (or 6 for Q4.11) with shift 0.
    pub multiplier: i32,
    /// Binary places of `multiplier`, 0 ..= 31.
    pub shift: u32,
}

impl SigmoidI16 {
    /// Checks the shift, on which the element-wise functions rely.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] when it is above 31.
    pub fn check(&self) -> Result<(), KernelError> {
        if self.shift <= 31 { Ok(()) } else { Err(KernelError::Parameter) }
    }

    /// The input in units of 1/12288, rounded half up.
    #[inline(always)]
    fn scaled(&self, x: i16) -> i32 {
        let half = if self.shift > 0 { 1i32.wrapping_shl(self.shift - 1) } else { 0 };
        i32::from(x).wrapping_mul(self.multiplier).wrapping_add(half).wrapping_shr(self.shift)
    }

    /// The sigmoid of one element, in Q0.15.
    #[inline]
    pub fn logistic(&self, x: i16) -> i16 {
        let x = self.scaled(x);
        let y = interpolate(x.unsigned_abs(), 9).unwrap_or(0x7FFF << 10); // Q0.25
        let y = if x >= 0 { y + (1 << 9) } else { (1 << 25) - y + (1 << 9) - 1 };
        (y >> 10) as i16
    }

    /// The hyperbolic tangent of one element, in Q0.15: `2 * sigmoid(2x) - 1`.
    #[inline]
    pub fn tanh(&self, x: i16) -> i16 {
        let x = self.scaled(x);
        let y = interpolate(x.unsigned_abs(), 8).unwrap_or(0xFFFF << 8) as i32; // Q0.24
        let y = if x >= 0 { y - (1 << 23) + (1 << 7) } else { (1 << 23) - y + (1 << 7) - 1 };
        (y >> 8) as i16
    }
}

/// Looks up the sigmoid in Q0.(16 + bits), with `2^bits` to a step of the table; none beyond the table's end.
#[inline(always)]
fn interpolate(x: u32, bits: u32) -> Option<u32> {
    let index = (x >> bits) as usize;
    let here = u32::from(*SIGMOID.get(index)?);
    let next = u32::from(*SIGMOID.get(index + 1)?);
    Some((here << bits) + (x & ((1 << bits) - 1)) * (next - here))
}

/// sigmoid(i / 24) in Q0.16.
///
/// Each entry is moved by half of the interpolation error, `h^2 / 16 * sigmoid''` with the step `h` = 1/24, which
/// halves that error everywhere. The last entry is the limit.
static SIGMOID: [u16; 256] = {
    let mut table = [u16::MAX; 256];
    let mut i = 0;
    while i < 255 {
        let s = 1.0 / (1.0 + exp_for_table(-(i as f64) / 24.0));
        let second_derivative = s * (1.0 - s) * (1.0 - 2.0 * s);
        table[i] = (65536.0 * (s - second_derivative / (16.0 * 24.0 * 24.0)) + 0.5) as u16;
        i += 1;
    }
    table
};

/// Sigmoid with output scale 1/32768; zero points 0.
///
/// # Errors
/// [`KernelError::Parameter`] when the shift is out of range.
pub fn logistic_i16(p: &SigmoidI16, data: &mut [i16]) -> Result<(), KernelError> {
    p.check()?;
    data.iter_mut().for_each(|x| *x = p.logistic(*x));
    Ok(())
}

/// Hyperbolic tangent with output scale 1/32768; zero points 0.
///
/// # Errors
/// [`KernelError::Parameter`] when the shift is out of range.
pub fn tanh_i16(p: &SigmoidI16, data: &mut [i16]) -> Result<(), KernelError> {
    p.check()?;
    data.iter_mut().for_each(|x| *x = p.tanh(*x));
    Ok(())
}

/// Parameters of ReLU and leaky ReLU: one factor for each side of zero.
#[derive(Clone, Debug)]
pub struct LeakyReluI16 {
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Input scale / output scale.
    pub positive: Multiplier,
    /// `|alpha|` * input scale / output scale; 0 for ReLU.
    pub negative: Multiplier,
    /// Whether alpha is negative.
    pub negate: bool,
}

/// Leaky ReLU and, with a `negative` factor of 0, ReLU.
///
/// # Errors
/// [`KernelError::Parameter`] when an exponent is out of range.
pub fn leaky_relu_i16(p: &LeakyReluI16, data: &mut [i16]) -> Result<(), KernelError> {
    p.positive.check()?;
    p.negative.check()?;
    for x in data {
        let centred = i32::from(*x).wrapping_sub(p.input_zero_point);
        let scaled = match (centred >= 0, p.negate) {
            (true, _) => p.positive.apply(centred),
            (false, false) => p.negative.apply(centred),
            (false, true) => p.negative.apply(centred).wrapping_neg(),
        };
        *x = saturate(scaled.wrapping_add(p.output_zero_point));
    }
    Ok(())
}

/// Limits every element to `min ..= max`: ReLU6, which TensorFlow Lite Micro does not rescale.
///
/// # Errors
/// [`KernelError::Parameter`] when `min > max`.
pub fn clamp_i16(min: i16, max: i16, data: &mut [i16]) -> Result<(), KernelError> {
    if min > max {
        return Err(KernelError::Parameter);
    }
    data.iter_mut().for_each(|x| *x = (*x).max(min).min(max));
    Ok(())
}

/// Absolute value; `multiplier` is input scale / output scale, zero points are 0.
///
/// # Errors
/// [`KernelError::Parameter`] when the exponent is out of range.
pub fn abs_i16(multiplier: Multiplier, data: &mut [i16]) -> Result<(), KernelError> {
    multiplier.check()?;
    data.iter_mut().for_each(|x| *x = saturate(multiplier.apply(i32::from(*x).abs())));
    Ok(())
}

/// Reciprocal square root; `multiplier` is `1 / (sqrt(input scale) * output scale)`, zero points are 0.
///
/// Zero and (where the reference stops with an error) negative elements give the largest output.
///
/// # Errors
/// [`KernelError::Parameter`] when the exponent is out of range.
pub fn rsqrt_i16(multiplier: Multiplier, data: &mut [i16]) -> Result<(), KernelError> {
    multiplier.check()?;
    for x in data {
        *x = if *x > 0 { saturate(rescaled_inverse_sqrt(i32::from(*x), multiplier)) } else { i16::MAX };
    }
    Ok(())
}

fn saturate(x: i32) -> i16 {
    x.clamp(-32768, 32767) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    // Outputs of TensorFlow Lite Micro (tflite_micro 0.dev20261023) for these inputs.
    const INPUT: [i16; 11] = [-32768, -20000, -4096, -513, -1, 0, 1, 700, 4096, 12288, 32767];

    fn run(f: impl Fn(&mut [i16]) -> Result<(), KernelError>) -> [i16; 11] {
        let mut data = INPUT;
        f(&mut data).unwrap();
        data
    }

    #[test]
    fn logistic_equals_the_reference() {
        let scale = |multiplier, shift| SigmoidI16 { multiplier, shift };
        let y = run(|data| logistic_i16(&scale(3, 0), data)); // 1/4096
        assert_eq!(y, [11, 247, 8812, 15360, 16382, 16384, 16386, 17781, 23956, 31214, 32757]);
        let y = run(|data| logistic_i16(&scale(17616, 11), data)); // 0.0007
        assert_eq!(y, [1, 1, 1763, 13473, 16378, 16384, 16390, 20320, 31005, 32762, 32767]);
    }

    #[test]
    fn tanh_equals_the_reference() {
        let scale = |multiplier, shift| SigmoidI16 { multiplier, shift };
        let y = run(|data| tanh_i16(&scale(6, 0), data)); // 1/2048
        assert_eq!(y, [-32767, -32767, -31589, -8041, -16, 0, 16, 10783, 31589, 32767, 32767]);
        let y = run(|data| tanh_i16(&scale(17616, 11), data)); // 0.0007
        assert_eq!(y, [-32767, -32767, -32557, -11287, -24, 0, 24, 14883, 32557, 32767, 32767]);
    }

    #[test]
    fn rectifiers_equal_the_reference() {
        // Input scale 0.0007, output scale 0.0005, alpha 0.3 and -0.3.
        let mut p = LeakyReluI16 {
            input_zero_point: 0,
            output_zero_point: 0,
            positive: Multiplier { multiplier: 1_503_238_429, shift: 1 },
            negative: Multiplier { multiplier: 1_803_886_186, shift: -1 },
            negate: false,
        };
        let y = run(|data| leaky_relu_i16(&p, data));
        assert_eq!(y, [-13763, -8400, -1721, -216, -1, 0, 1, 980, 5734, 17203, 32767]);
        p.negate = true;
        let y = run(|data| leaky_relu_i16(&p, data));
        assert_eq!(y, [13763, 8400, 1721, 216, 1, 0, 1, 980, 5734, 17203, 32767]);
        // ReLU and absolute value with output scale 0.0009.
        p.positive = Multiplier { multiplier: 1_670_265_029, shift: 0 };
        p.negative = Multiplier::default();
        let y = run(|data| leaky_relu_i16(&p, data));
        assert_eq!(y, [0, 0, 0, 0, 0, 0, 1, 544, 3186, 9557, 25485]);
        let y = run(|data| abs_i16(p.positive, data));
        assert_eq!(y, [25486, 15556, 3186, 399, 1, 0, 1, 544, 3186, 9557, 25485]);
        let y = run(|data| clamp_i16(0, 8571, data)); // ReLU6
        assert_eq!(y, [0, 0, 0, 0, 0, 0, 1, 700, 4096, 8571, 8571]);
    }

    #[test]
    fn reciprocal_square_root_equals_the_reference() {
        // Input scale 0.0007, output scale 0.0009; the reference refuses negative inputs.
        let y = run(|data| rsqrt_i16(Multiplier { multiplier: 1_376_126_698, shift: 16 }, data));
        assert_eq!(y, [32767, 32767, 32767, 32767, 32767, 32767, 32767, 1587, 656, 379, 232]);
    }

    #[test]
    fn hostile_parameters_do_not_panic() {
        for multiplier in [i32::MIN, -1, 0, i32::MAX] {
            for shift in [0, 1, 31] {
                let p = SigmoidI16 { multiplier, shift };
                logistic_i16(&p, &mut INPUT.clone()).unwrap();
                tanh_i16(&p, &mut INPUT.clone()).unwrap();
            }
            for shift in [-31, 0, 31] {
                let factor = Multiplier { multiplier, shift };
                abs_i16(factor, &mut INPUT.clone()).unwrap();
                rsqrt_i16(factor, &mut INPUT.clone()).unwrap();
                let p = LeakyReluI16 {
                    input_zero_point: i32::MIN,
                    output_zero_point: i32::MAX,
                    positive: factor,
                    negative: factor,
                    negate: true,
                };
                leaky_relu_i16(&p, &mut INPUT.clone()).unwrap();
            }
        }
        let far = Multiplier { multiplier: 1 << 30, shift: i32::MIN };
        assert_eq!(abs_i16(far, &mut INPUT.clone()), Err(KernelError::Parameter));
        assert_eq!(rsqrt_i16(far, &mut INPUT.clone()), Err(KernelError::Parameter));
        let p = SigmoidI16 { multiplier: 3, shift: 32 };
        assert_eq!(tanh_i16(&p, &mut INPUT.clone()), Err(KernelError::Parameter));
        assert_eq!(clamp_i16(1, 0, &mut INPUT.clone()), Err(KernelError::Parameter));
    }
}
