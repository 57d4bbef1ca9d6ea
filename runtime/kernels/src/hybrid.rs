//! Float activations with int8 weights ("dynamic range quantization"): each input image or vector is quantized to
//! int8 while the layer runs, products are summed as integers, and the sum is scaled back to `f32`.
//!
//! The numbers are those of TensorFlow Lite's reference kernels as they run on Arm and x86 processors, where the
//! input is quantized by vector code that rounds in other places than the portable code; TensorFlow Lite Micro has no
//! such layers.

use crate::KernelError;
use crate::float::{Clamp, FullyConnected, bias_at, check_depthwise, check_weighted};
use crate::float::{convolve_image, depthwise_image, multiply_row, rows_of};
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
    let window = &p.window;
    let (in_image, out_image) = check_weighted(window, input.len(), weights.len(), bias, output.len())?;
    check_scales(scales, window.out_c)?;
    check_scratch(scratch, in_image)?;
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let quantized = quantize(p.input, image, scratch);
        convolve_image(window, scratch, weights, out, quantized.multiply_add(), |sum, channel| {
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
    let window = &p.window;
    let (in_image, out_image) = check_depthwise(window, input.len(), weights.len(), bias, output.len())?;
    check_scales(scales, window.out_c)?;
    check_scratch(scratch, in_image)?;
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let quantized = quantize(p.input, image, scratch);
        depthwise_image(window, scratch, weights, out, quantized.multiply_add(), |sum, channel| {
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
