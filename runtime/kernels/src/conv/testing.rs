//! Test support: convolutions straight from their definition, and random cases for them.

extern crate std;

use super::Conv2D;
use crate::window::Window;
use proptest::prelude::*;
use std::vec::Vec;

/// The `index`-th value of the input pattern of the golden vectors.
pub(crate) fn pattern_i8(len: usize, factor: usize, offset: usize) -> Vec<i8> {
    (0..len).map(|i| ((factor * i + offset) % 256) as i32 - 128).map(|v| v as i8).collect()
}

/// As [`pattern_i8`], for int16.
pub(crate) fn pattern_i16(len: usize, factor: usize, offset: usize) -> Vec<i16> {
    (0..len).map(|i| ((factor * i + offset) % 65536) as i32 - 32768).map(|v| v as i16).collect()
}

/// Which weights an output channel uses.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Plain,
    Depthwise,
    Transposed,
}

/// `sum((x - zx) * (w - zw))` for every output element.
pub(crate) fn reference_sums<T: Copy + Into<i64>>(
    p: &Conv2D,
    kind: Kind,
    input: &[T],
    weights: &[i8],
) -> Vec<i64> {
    let w = &p.window;
    let depth = w.in_c / w.groups;
    let mut sums = Vec::new();
    for b in 0..w.batch {
        for y in 0..w.out_h {
            for x in 0..w.out_w {
                for c in 0..w.out_c {
                    let group = c / (w.out_c / w.groups);
                    let mut sum = 0i64;
                    for ky in 0..w.k_h {
                        for kx in 0..w.k_w {
                            let Some((iy, ix)) = source(w, kind, (y, x), (ky, kx)) else { continue };
                            for d in 0..depth {
                                let value =
                                    input[((b * w.in_h + iy) * w.in_w + ix) * w.in_c + group * depth + d];
                                let weight = match kind {
                                    Kind::Depthwise => weights[(ky * w.k_w + kx) * w.out_c + c],
                                    _ => weights[((c * w.k_h + ky) * w.k_w + kx) * depth + d],
                                };
                                sum += (value.into() - i64::from(p.input_zero_point))
                                    * (i64::from(weight) - i64::from(p.weights_zero_point));
                            }
                        }
                    }
                    sums.push(sum);
                }
            }
        }
    }
    sums
}

/// The input pixel under a tap of an output pixel's window, unless it is padding.
fn source(w: &Window, kind: Kind, output: (usize, usize), tap: (usize, usize)) -> Option<(usize, usize)> {
    let axis = |output: usize, tap: usize, stride: usize, dilation: usize, pad: usize, extent: usize| {
        let (output, tap, stride) = (output as isize, tap as isize, stride as isize);
        let position = if kind == Kind::Transposed {
            let reached = output + pad as isize - tap;
            if reached % stride != 0 {
                return None;
            }
            reached / stride
        } else {
            output * stride + tap * dilation as isize - pad as isize
        };
        (0..extent as isize).contains(&position).then_some(position as usize)
    };
    let y = axis(output.0, tap.0, w.stride_h, w.dilation_h, w.pad_top, w.in_h)?;
    let x = axis(output.1, tap.1, w.stride_w, w.dilation_w, w.pad_left, w.in_w)?;
    Some((y, x))
}

/// A convolution with its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) p: Conv2D,
    pub(crate) input: Vec<i16>,
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<i32>,
    pub(crate) multipliers: Vec<i32>,
    pub(crate) shifts: Vec<i8>,
}

impl Case {
    /// The input with its values brought into the range of int8.
    pub(crate) fn input_i8(&self) -> Vec<i8> {
        self.input.iter().map(|&x| x as i8).collect()
    }

    /// The multiplier of a channel.
    pub(crate) fn multiplier(&self, channel: usize) -> crate::fixed::Multiplier {
        let index = channel % self.multipliers.len();
        crate::fixed::Multiplier { multiplier: self.multipliers[index], shift: i32::from(self.shifts[index]) }
    }

    /// What the layer makes of its sums with int8 activations and 32-bit accumulators.
    pub(crate) fn finish_i8(&self, sums: &[i64]) -> Vec<i8> {
        let channels = self.p.window.out_c;
        let finish = |(i, sum): (usize, &i64)| {
            let scaled =
                self.multiplier(i % channels).apply((sum + i64::from(self.bias[i % channels])) as i32);
            (scaled + self.p.output_zero_point).clamp(self.p.activation_min, self.p.activation_max) as i8
        };
        sums.iter().enumerate().map(finish).collect()
    }

    /// What the layer makes of its sums with int16 activations and 64-bit accumulators.
    pub(crate) fn finish_i16(&self, sums: &[i64]) -> Vec<i16> {
        let channels = self.p.window.out_c;
        let finish = |(i, sum): (usize, &i64)| {
            let scaled = self.multiplier(i % channels).apply_i64(sum + i64::from(self.bias[i % channels]));
            scaled.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        };
        sums.iter().enumerate().map(finish).collect()
    }

    /// The parameters for int16 activations.
    pub(crate) fn wide(&self) -> Conv2D {
        Conv2D {
            input_zero_point: 0,
            weights_zero_point: 0,
            output_zero_point: 0,
            activation_min: i32::from(i16::MIN),
            activation_max: i32::from(i16::MAX),
            ..self.p.clone()
        }
    }
}

/// Random convolutions: any padding and any output size, also windows that miss the image altogether.
pub(crate) fn case(kind: Kind) -> impl Strategy<Value = Case> {
    let geometry = (1..3usize, [1..6usize, 1..6], [1..5usize, 1..5], [1..4usize, 1..4], [1..4usize, 1..4]);
    let channels = (1..4usize, 1..10usize, 1..10usize);
    (geometry, channels, [0..4usize, 0..4], [1..4usize, 1..4]).prop_flat_map(move |(g, c, pad, dilation)| {
        let (batch, input, output, kernel, stride) = g;
        let (groups, in_c, out_c) = match kind {
            Kind::Plain => (c.0, c.0 * c.1.div_ceil(3), c.0 * c.2),
            Kind::Depthwise => (c.1, c.1, c.1 * c.2.div_ceil(2)),
            Kind::Transposed => (1, c.1, c.2),
        };
        let dilation = if kind == Kind::Transposed { [1, 1] } else { dilation };
        let window = Window {
            batch,
            in_h: input[0],
            in_w: input[1],
            in_c,
            out_h: output[0],
            out_w: output[1],
            out_c,
            k_h: kernel[0],
            k_w: kernel[1],
            stride_h: stride[0],
            stride_w: stride[1],
            dilation_h: dilation[0],
            dilation_w: dilation[1],
            pad_top: pad[0],
            pad_left: pad[1],
            groups,
        };
        tensors(window)
    })
}

fn tensors(window: Window) -> impl Strategy<Value = Case> {
    let (inputs, weights) = (window.input_len().unwrap(), window.weight_len().unwrap());
    let channels = window.out_c;
    let scales = prop_oneof![Just(1), Just(channels)];
    let zero_point = || prop_oneof![Just(0), -128..128i32];
    (
        prop::collection::vec(any::<i16>(), inputs),
        prop::collection::vec(any::<i8>(), weights),
        prop::collection::vec(-100_000..100_000i32, channels),
        scales.prop_flat_map(|n| prop::collection::vec((1 << 30..=i32::MAX, -14..=1i8), n)),
        (zero_point(), zero_point(), zero_point(), -128..0i32, 0..128i32),
    )
        .prop_map(move |(input, weights, bias, scales, (zx, zw, zo, min, max))| Case {
            p: Conv2D {
                window: window.clone(),
                input_zero_point: zx,
                weights_zero_point: zw,
                output_zero_point: zo,
                activation_min: min,
                activation_max: max,
            },
            input,
            weights,
            bias,
            multipliers: scales.iter().map(|s| s.0).collect(),
            shifts: scales.iter().map(|s| s.1).collect(),
        })
}
