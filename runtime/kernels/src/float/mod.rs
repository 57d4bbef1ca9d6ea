//! Float32 kernels.
//!
//! They add in the order of TensorFlow Lite's reference kernels and never fuse a multiplication with an addition,
//! so that a processor with or without an FPU gives the same numbers. Only the elementary functions (`exp`, `tanh`,
//! …) may differ from a C library's, by one unit in the last place.
//!
//! Layers with weights read them as `f32` or as half precision, see [`Weight`].

mod activation;
mod conv;
mod depthwise;
mod fully_connected;
mod normalize;
mod pool;
mod softmax;
mod transpose_conv;
mod weight;

pub use activation::{Prelu, Unary, exponential, prelu, trigonometric, unary};
pub use conv::conv2d;
pub use depthwise::depthwise_conv2d;
pub use fully_connected::{FullyConnected, fully_connected};
pub use normalize::l2_normalize;
pub use pool::{average_pool, max_pool};
pub use softmax::{Softmax, log_softmax, softmax};
pub use transpose_conv::transpose_conv2d;
pub use weight::Weight;

pub(crate) use activation::logistic;
pub(crate) use conv::convolve;
pub(crate) use depthwise::{check_depthwise, convolve_depthwise};
pub(crate) use fully_connected::multiply_row;

use crate::KernelError;
use crate::window::Window;

/// A fused activation: the interval to which it limits an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Smallest output.
    pub min: f32,
    /// Largest output.
    pub max: f32,
}

impl Clamp {
    /// No activation: only infinities are limited.
    pub const NONE: Clamp = Clamp { min: f32::MIN, max: f32::MAX };
    /// Rectified linear.
    pub const RELU: Clamp = Clamp { min: 0.0, max: f32::MAX };
    /// Rectified linear up to 6.
    pub const RELU6: Clamp = Clamp { min: 0.0, max: 6.0 };
    /// Between -1 and 1.
    pub const RELU_N1_TO_1: Clamp = Clamp { min: -1.0, max: 1.0 };

    /// Limits `x`; a NaN stays one.
    // Not `f32::clamp`, which panics when `min > max`.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        let x = if x < self.min { self.min } else { x };
        if x > self.max { self.max } else { x }
    }
}

/// Parameters of the float kernels that slide a window: convolutions and pools.
#[derive(Clone, Debug)]
pub struct WindowOp {
    /// The geometry.
    pub window: Window,
    /// The fused activation.
    pub clamp: Clamp,
}

/// Checks the window and the lengths that all convolutions share.
pub(crate) fn check_weighted(
    window: &Window,
    input: usize,
    weights: usize,
    bias: Option<&[f32]>,
    output: usize,
) -> Result<(), KernelError> {
    check_images(window, input, output)?;
    let fits = window.weight_len() == Some(weights) && bias.is_none_or(|bias| bias.len() == window.out_c);
    if fits { Ok(()) } else { Err(KernelError::Shape) }
}

/// Checks the window and that input and output hold its images.
pub(crate) fn check_images(window: &Window, input: usize, output: usize) -> Result<(), KernelError> {
    window.check()?;
    let fits = window.input_len() == Some(input) && window.output_len() == Some(output);
    if fits { Ok(()) } else { Err(KernelError::Shape) }
}

/// The rows (or images) of two matrices side by side.
pub(crate) fn rows_of<'a>(
    input: &'a [f32],
    in_len: usize,
    output: &'a mut [f32],
    out_len: usize,
) -> impl Iterator<Item = (&'a [f32], &'a mut [f32])> {
    // Lengths are not 0 after the checks; `max` spares the test for it and its panic.
    let mut rows = output.chunks_exact_mut(out_len.max(1));
    input.chunks_exact(in_len.max(1)).map_while(move |row| Some((row, rows.next()?)))
}

/// The bias of a channel, 0 where a layer has none.
#[inline(always)]
pub(crate) fn bias_at(bias: Option<&[f32]>, channel: usize) -> f32 {
    bias.and_then(|bias| bias.get(channel)).copied().unwrap_or(0.0)
}

#[cfg(test)]
pub(crate) mod testing {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// A window without padding, stride or dilation over one image.
    pub(crate) fn plain(input: [usize; 3], kernel: [usize; 2], out_c: usize) -> Window {
        let ([in_h, in_w, in_c], [k_h, k_w]) = (input, kernel);
        Window {
            batch: 1,
            in_h,
            in_w,
            in_c,
            out_h: in_h + 1 - k_h,
            out_w: in_w + 1 - k_w,
            out_c,
            k_h,
            k_w,
            stride_h: 1,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 0,
            pad_left: 0,
            groups: 1,
        }
    }

    /// `n` values between -1 and 1 that are different for each `seed`.
    pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Like `numpy`'s `(arange(n) * step % modulus + offset) / divisor`, for golden vectors.
    pub(crate) fn sequence(n: i32, step: i32, modulus: i32, offset: i32, divisor: f32) -> Vec<f32> {
        (0..n).map(|i| (i * step % modulus + offset) as f32 / divisor).collect()
    }

    /// Asserts that two slices agree to 1e-5 relative.
    pub(crate) fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            let scale = b.abs().max(1e-6);
            assert!((a - b).abs() <= 1e-5 * scale, "element {i}: {a} instead of {b}");
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn clamping_keeps_nan_and_limits_infinity() {
        assert!(Clamp::RELU6.apply(f32::NAN).is_nan());
        assert_eq!(Clamp::NONE.apply(f32::INFINITY), f32::MAX);
        assert_eq!(Clamp::RELU_N1_TO_1.apply(-2.0), -1.0);
        // A hostile artifact's interval must not panic.
        assert_eq!(Clamp { min: 1.0, max: -1.0 }.apply(0.0), -1.0);
    }

    fn extent() -> impl Strategy<Value = usize> {
        prop_oneof![
            30 => Just(1),
            30 => 1usize..7,
            1 => Just(0),
            1 => Just(usize::MAX),
            1 => Just(usize::MAX / 5),
            1 => Just(1 << 31)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn no_window_makes_a_kernel_panic(fields in prop::collection::vec(extent(), 16), depthwise: bool) {
            let &[
                batch, in_h, in_w, depth, out_h, out_w, per_group, k_h, k_w, stride_h, stride_w, dilation_h,
                dilation_w, pad_top, pad_left, groups,
            ] = fields.as_slice() else { unreachable!() };
            let depth = if depthwise { 1 } else { depth };
            let (in_c, out_c) = (groups.wrapping_mul(depth), groups.wrapping_mul(per_group));
            let window = Window {
                batch, in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, dilation_h, dilation_w,
                pad_top, pad_left, groups,
            };
            // Slices that fit where that is possible, so that the loops run as well.
            let len = |n: Option<usize>| n.filter(|&n| n <= 20_000).unwrap_or(7);
            let (input, mut output) = (vec![1.0; len(window.input_len())], vec![0.0; len(window.output_len())]);
            let weights = vec![0x3C00u16; len(window.weight_len())];
            let p = WindowOp { window, clamp: Clamp::NONE };
            let _ = conv2d(&p, &input, &weights, None, &mut output);
            let _ = depthwise_conv2d(&p, &input, &weights, None, &mut output);
            let _ = transpose_conv2d(&p, &input, &weights, None, &mut output);
            let _ = average_pool(&p, &input, &mut output);
            let _ = max_pool(&p, &input, &mut output);
        }
    }
}
