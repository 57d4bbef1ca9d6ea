//! Float activations with int8 weights ("dynamic range quantization"): each input image or vector is quantized to
//! int8 while the layer runs, products are summed as integers, and the sum is scaled back to `f32`.
//!
//! The numbers are those of TensorFlow Lite's reference kernels as they run on Arm and x86 processors, where the
//! input is quantized by vector code that rounds in other places than the portable code; TensorFlow Lite Micro has no
//! such layers.

use crate::KernelError;
use crate::float::{Clamp, FullyConnected, bias_at, check_depthwise, check_weighted};
use crate::float::{convolve, convolve_depthwise, multiply_row, rows_of};
use crate::window::Window;

/// How the input is quantized before it meets the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputQuantization {
    /// `[-m, m]` onto -127 ..= 127, where `m` is the largest magnitude. TensorFlow Lite does so for convolutions
    /// without groups whose weights all have one scale, and for fully connected layers unless the model asks for
    /// the other (`asymmetric_quantize_inputs`).
    Symmetric,
    /// `[min(0, smallest), max(0, largest)]` onto -128 ..= 127. All other layers.
    Asymmetric,
}

/// Parameters of a hybrid convolution, ordinary or depthwise.
#[derive(Clone, Debug)]
pub struct HybridConv2D {
    /// The geometry; for a depthwise convolution `groups == in_c`.
    pub window: Window,
    /// How each image of the input is quantized.
    pub input: InputQuantization,
    /// The fused activation.
    pub clamp: Clamp,
}

/// Parameters of a hybrid fully connected layer.
#[derive(Clone, Debug)]
pub struct HybridFullyConnected {
    /// The geometry and the fused activation.
    pub layer: FullyConnected,
    /// How each row of the input is quantized.
    pub input: InputQuantization,
}

/// Elements of scratch memory that a convolution needs: one quantized input image.
pub const fn conv_scratch_len(window: &Window) -> usize {
    window.in_h.saturating_mul(window.in_w).saturating_mul(window.in_c)
}

/// Elements of scratch memory that a fully connected layer needs: one quantized input row.
pub const fn fully_connected_scratch_len(layer: &FullyConnected) -> usize {
    layer.inputs
}

/// 2-D convolution with int8 weights; shapes as for [`crate::float::conv2d`]. `scales` holds the scale of the weights,
/// one for all or one per output channel; their zero point is 0. `scratch` has [`conv_scratch_len`] elements.
///
/// # Errors
/// [`KernelError::Parameter`] for an impossible window, [`KernelError::Shape`] when a slice does not fit it.
pub fn conv2d(
    p: &HybridConv2D,
    input: &[f32],
    weights: &[i8],
    scales: &[f32],
    bias: Option<&[f32]>,
    scratch: &mut [i8],
    output: &mut [f32],
) -> Result<(), KernelError> {
    check_weighted(&p.window, input.len(), weights.len(), bias, output.len())?;
    check_scales(scales, p.window.out_c)?;
    check_scratch(scratch, conv_scratch_len(&p.window))?;
    // Each image has a scale of its own.
    let window = Window { batch: 1, ..p.window };
    let (in_image, out_image) = (scratch.len(), output.len() / p.window.batch.max(1));
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let quantized = quantize(p.input, image, scratch);
        convolve(&window, scratch, weights, out, quantized.multiply_add(), |sum, channel| {
            let scale = scale_at(scales, channel);
            // The reference multiplies in this order, which decides the last bit.
            let product = match p.input {
                InputQuantization::Symmetric => sum as f32 * (quantized.scale * scale),
                InputQuantization::Asymmetric => sum as f32 * scale * quantized.scale,
            };
            p.clamp.apply(product + bias_at(bias, channel))
        });
    }
    Ok(())
}

/// Depthwise 2-D convolution with int8 weights; shapes as for [`crate::float::depthwise_conv2d`], `scales` and
/// `scratch` as for [`conv2d`].
///
/// # Errors
/// As for [`conv2d`].
pub fn depthwise_conv2d(
    p: &HybridConv2D,
    input: &[f32],
    weights: &[i8],
    scales: &[f32],
    bias: Option<&[f32]>,
    scratch: &mut [i8],
    output: &mut [f32],
) -> Result<(), KernelError> {
    check_depthwise(&p.window, input.len(), weights.len(), bias, output.len())?;
    check_scales(scales, p.window.out_c)?;
    check_scratch(scratch, conv_scratch_len(&p.window))?;
    // Each image has a scale of its own.
    let window = Window { batch: 1, ..p.window };
    let (in_image, out_image) = (scratch.len(), output.len() / p.window.batch.max(1));
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let quantized = quantize(p.input, image, scratch);
        convolve_depthwise(&window, scratch, weights, out, quantized.multiply_add(), |sum, channel| {
            let product = sum as f32 * (quantized.scale * scale_at(scales, channel));
            p.clamp.apply(product + bias_at(bias, channel))
        });
    }
    Ok(())
}

/// Fully connected layer with int8 weights; shapes as for [`crate::float::fully_connected`], `scales` as for
/// [`conv2d`]. `scratch` has [`fully_connected_scratch_len`] elements.
///
/// # Errors
/// [`KernelError::Parameter`] for an empty layer, [`KernelError::Shape`] when a slice does not fit it.
pub fn fully_connected(
    p: &HybridFullyConnected,
    input: &[f32],
    weights: &[i8],
    scales: &[f32],
    bias: Option<&[f32]>,
    scratch: &mut [i8],
    output: &mut [f32],
) -> Result<(), KernelError> {
    let FullyConnected { inputs, outputs, clamp, .. } = p.layer;
    p.layer.check(input.len(), weights.len(), bias, output.len())?;
    check_scales(scales, outputs)?;
    check_scratch(scratch, inputs)?;
    for (row, out) in rows_of(input, inputs, output, outputs) {
        let quantized = quantize(p.input, row, scratch);
        multiply_row(scratch, weights, out, quantized.multiply_add(), |sum, unit| {
            let product = sum as f32 * (quantized.scale * scale_at(scales, unit));
            clamp.apply(product + bias_at(bias, unit))
        });
    }
    Ok(())
}

fn check_scales(scales: &[f32], channels: usize) -> Result<(), KernelError> {
    if scales.len() == 1 || scales.len() == channels { Ok(()) } else { Err(KernelError::Shape) }
}

fn check_scratch(scratch: &[i8], len: usize) -> Result<(), KernelError> {
    if scratch.len() == len { Ok(()) } else { Err(KernelError::Shape) }
}

#[inline(always)]
fn scale_at(scales: &[f32], channel: usize) -> f32 {
    let index = if scales.len() == 1 { 0 } else { channel };
    scales.get(index).copied().unwrap_or(0.0)
}

/// What quantized values stand for: `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quantized {
    scale: f32,
    zero_point: i32,
}

impl Quantized {
    /// The step of a sum of products with weights whose zero point is 0.
    #[inline(always)]
    fn multiply_add(self) -> impl Fn(i32, i8, i8) -> i32 + Copy {
        // Sums of more than 2^16 products may wrap, as they do in the reference on hardware.
        move |sum, x, w| sum.wrapping_add((i32::from(x) - self.zero_point) * i32::from(w))
    }
}

/// Quantizes `values` into `quantized`.
fn quantize(how: InputQuantization, values: &[f32], quantized: &mut [i8]) -> Quantized {
    let min = values.iter().fold(0.0, |min: f32, &x| if x < min { x } else { min });
    let max = values.iter().fold(0.0, |max: f32, &x| if x > max { x } else { max });
    if min == max {
        // Only zeros (or NaN).
        quantized.fill(0);
        return Quantized { scale: 1.0, zero_point: 0 };
    }
    let (meaning, factor) = match how {
        InputQuantization::Symmetric => {
            let magnitude = if -min > max { -min } else { max };
            (Quantized { scale: magnitude / 127.0, zero_point: 0 }, 127.0 / magnitude)
        }
        InputQuantization::Asymmetric => {
            let meaning = asymmetric(min, max);
            (meaning, 1.0 / meaning.scale)
        }
    };
    let lowest = if how == InputQuantization::Symmetric { -127 } else { -128 };
    for (q, &x) in quantized.iter_mut().zip(values) {
        let rounded = (libm::roundf(x * factor) as i32).saturating_add(meaning.zero_point);
        *q = rounded.clamp(lowest, 127) as i8;
    }
    meaning
}

/// Scale and zero point that map `min ..= max`, with `min <= 0 <= max`, onto -128 ..= 127. The reference divides in
/// double precision; there is one pair per image, so that this costs little even without hardware for it.
fn asymmetric(min: f32, max: f32) -> Quantized {
    let scale = f64::from(max - min) / 255.0;
    let (min, max) = (f64::from(min) / scale, f64::from(max) / scale);
    // The zero point follows from either end of the interval; the end that is nearer gives it with less error.
    let from_min = -128.0 - min;
    let from_max = 127.0 - max;
    let near_min = 128.0 + libm::fabs(min) < 127.0 + libm::fabs(max);
    let zero_point = libm::round(if near_min { from_min } else { from_max });
    Quantized { scale: scale as f32, zero_point: (zero_point as i32).clamp(-128, 127) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::float::testing::{plain, sequence};
    use std::vec::Vec;

    fn weights(n: i32) -> Vec<i8> {
        (0..n).map(|i| (i * 37 % 255 - 127) as i8).collect()
    }

    const BIAS: [f32; 3] = [0.1, -0.2, 0.3];
    const SCALES: [f32; 3] = [0.01, 0.02, 0.003];

    // The expected values were computed by TensorFlow Lite (reference operators), on x86-64.

    #[test]
    fn convolution_equals_tensorflow_lite() {
        let input = sequence(18, 7, 11, -4, 3.0);
        let mut p = HybridConv2D {
            window: plain([3, 3, 2], [2, 2], 3),
            input: InputQuantization::Symmetric,
            clamp: Clamp::NONE,
        };
        let (mut scratch, mut output) = ([0; 18], [9.0; 12]);
        conv2d(&p, &input, &weights(24), &[0.01], Some(&BIAS), &mut scratch, &mut output).unwrap();
        let expected = [
            -1.3133858,
            2.4611022,
            3.6222048,
            0.68645674,
            0.65763783,
            -1.9845669,
            -0.8913386,
            -3.9669292,
            -0.29921257,
            -1.4885039,
            0.98929137,
            0.8938583,
        ];
        assert_eq!(output, expected);

        p.input = InputQuantization::Asymmetric;
        conv2d(&p, &input, &weights(24), &SCALES, Some(&BIAS), &mut scratch, &mut output).unwrap();
        let expected = [
            -1.2932026,
            5.081569,
            1.2924314,
            0.673072,
            1.5035294,
            -0.38086283,
            -0.89019614,
            -7.739085,
            0.11533333,
            -1.4935949,
            2.1994772,
            0.4779216,
        ];
        assert_eq!(output, expected);
    }

    #[test]
    fn depthwise_convolution_equals_tensorflow_lite() {
        let input = sequence(18, 7, 11, -4, 3.0);
        let p = HybridConv2D {
            window: Window { groups: 2, ..plain([3, 3, 2], [2, 2], 4) },
            input: InputQuantization::Asymmetric,
            clamp: Clamp::RELU,
        };
        let (mut scratch, mut output) = ([0; 18], [9.0; 16]);
        let (scales, bias) = ([0.01, 0.02, 0.003, 0.004], [0.1, -0.2, 0.3, 0.0]);
        depthwise_conv2d(&p, &input, &weights(16), &scales, Some(&bias), &mut scratch, &mut output).unwrap();
        let expected = [
            0.0, 0.0, 0.22427452, 0.0, 1.5094119, 2.1351635, 0.22, 0.7706668, 0.0, 0.0, 0.40180394, 0.0, 0.0,
            0.0, 0.0, 0.09281047,
        ];
        assert_eq!(output, expected);
    }

    #[test]
    fn fully_connected_equals_tensorflow_lite() {
        let input = sequence(8, 7, 11, -4, 3.0);
        let mut p = HybridFullyConnected {
            layer: FullyConnected { rows: 2, inputs: 4, outputs: 3, clamp: Clamp::NONE },
            input: InputQuantization::Symmetric,
        };
        let (mut scratch, mut output) = ([0; 4], [9.0; 6]);
        fully_connected(&p, &input, &weights(12), &[0.01], Some(&BIAS), &mut scratch, &mut output).unwrap();
        assert_eq!(output, [0.74818903, -2.6707087, 1.4970078, -1.0834645, 0.7321522, -0.06561679]);

        p.input = InputQuantization::Asymmetric;
        fully_connected(&p, &input, &weights(12), &SCALES, Some(&BIAS), &mut scratch, &mut output).unwrap();
        assert_eq!(output, [0.7524184, -5.148497, 0.65972555, -1.0824965, 1.6595292, 0.19060786]);
    }

    #[test]
    fn each_image_has_its_own_scale() {
        let mut p = HybridConv2D {
            window: plain([3, 3, 2], [2, 2], 3),
            input: InputQuantization::Asymmetric,
            clamp: Clamp::NONE,
        };
        let mut input = sequence(36, 7, 11, -4, 3.0);
        input.iter_mut().skip(18).for_each(|x| *x *= 100.0);
        let (mut scratch, mut apart, mut together) = ([0; 18], [9.0; 24], [9.0; 24]);
        for (x, y) in input.chunks_exact(18).zip(apart.chunks_exact_mut(12)) {
            conv2d(&p, x, &weights(24), &SCALES, Some(&BIAS), &mut scratch, y).unwrap();
        }
        p.window.batch = 2;
        conv2d(&p, &input, &weights(24), &SCALES, Some(&BIAS), &mut scratch, &mut together).unwrap();
        assert_eq!(together, apart);
    }

    #[test]
    fn zeros_give_the_bias() {
        let p = HybridFullyConnected {
            layer: FullyConnected { rows: 1, inputs: 4, outputs: 3, clamp: Clamp::NONE },
            input: InputQuantization::Asymmetric,
        };
        let (mut scratch, mut output) = ([9; 4], [9.0; 3]);
        fully_connected(&p, &[0.0; 4], &weights(12), &[0.5], Some(&BIAS), &mut scratch, &mut output).unwrap();
        assert_eq!(output, BIAS);
    }

    #[test]
    fn any_input_can_be_quantized() {
        let extremes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-45, 0.0];
        for a in extremes {
            for b in extremes {
                let mut quantized = [0; 2];
                quantize(InputQuantization::Symmetric, &[a, b], &mut quantized);
                quantize(InputQuantization::Asymmetric, &[a, b], &mut quantized);
            }
        }
    }

    #[test]
    fn refuses_slices_that_do_not_fit() {
        let p = HybridFullyConnected {
            layer: FullyConnected { rows: 1, inputs: 4, outputs: 3, clamp: Clamp::NONE },
            input: InputQuantization::Symmetric,
        };
        let (w, mut scratch, mut y) = (weights(12), [0; 5], [0.0; 3]);
        let refused = fully_connected(&p, &[0.0; 4], &w, &[1.0], None, &mut scratch, &mut y);
        assert_eq!(refused, Err(KernelError::Shape));
        let refused = fully_connected(&p, &[0.0; 4], &w, &[1.0; 2], None, &mut scratch[..4], &mut y);
        assert_eq!(refused, Err(KernelError::Shape));
    }
}
