//! SVDF: a dense layer over the last `memory` steps of a sequence, with filters of low rank (singular value
//! decomposition filter; Nakkiran et al., "Compressing deep neural networks using a rank-constrained topology", 2015).
//!
//! Every filter first reduces the input vector to one number, remembers it, and then weighs its memory; `rank`
//! neighbouring filters add up to one unit. The memory belongs to the caller and is kept from call to call.

use crate::KernelError;
use crate::conv::{Activation, BLOCK, part_mut};
use crate::fixed::Multiplier;
use crate::float::Clamp;
use crate::window::{part, product};

/// Shapes of an SVDF layer.
#[derive(Clone, Debug)]
pub struct SvdfShape {
    /// Input vectors; at least 1.
    pub batch: usize,
    /// Elements of an input vector; at least 1.
    pub inputs: usize,
    /// Elements of an output vector; at least 1.
    pub units: usize,
    /// Filters of a unit; at least 1.
    pub rank: usize,
    /// Steps that a filter remembers, the current one included; at least 1.
    pub memory: usize,
}

/// Parameters of a quantized SVDF layer.
#[derive(Clone, Debug)]
pub struct SvdfInt {
    /// The shapes.
    pub shape: SvdfShape,
    /// Zero point of the state, in the range of its type.
    pub state_zero_point: i32,
    /// Zero point of the output, -128 ..= 127.
    pub output_zero_point: i32,
    /// Input scale * scale of the feature weights / state scale.
    pub feature: Multiplier,
    /// State scale * scale of the time weights / output scale.
    pub time: Multiplier,
}

/// Parameters of a float32 SVDF layer.
#[derive(Clone, Debug)]
pub struct SvdfF32 {
    /// The shapes.
    pub shape: SvdfShape,
    /// Fused activation.
    pub clamp: Clamp,
}

/// The type of a quantized SVDF's memory and time weights: int8 or int16.
trait State: Copy + Into<i32> {
    /// `x` limited to the type's range, plus the zero point; that sum wraps.
    fn store(x: i32, zero_point: i32) -> Self;
}

impl State for i8 {
    #[inline(always)]
    fn store(x: i32, zero_point: i32) -> i8 {
        x.clamp(i32::from(i8::MIN), i32::from(i8::MAX)).wrapping_add(zero_point) as i8
    }
}

impl State for i16 {
    #[inline(always)]
    fn store(x: i32, zero_point: i32) -> i16 {
        x.clamp(i32::from(i16::MIN), i32::from(i16::MAX)).wrapping_add(zero_point) as i16
    }
}

/// SVDF with int8 input, output and state. With `filters = units * rank`:
///
/// `input` is `[batch, inputs]`, `feature_weights` `[filters, inputs]`, `feature_bias` `[filters]` the input's zero point
/// [folded](crate::conv::fold_bias) (from 0; `None` for zeros), `time_weights` `[filters, memory]` with the oldest step
/// first, `bias` `[units]`, `state` `[batch, filters, memory]`, which holds its zero point until it is first used, and
/// `output` `[batch, units]`.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the shape, [`KernelError::Parameter`] when an extent is 0 or an
/// exponent out of range.
pub fn svdf_i8(
    p: &SvdfInt,
    input: &[i8],
    feature_weights: &[i8],
    feature_bias: Option<&[i32]>,
    time_weights: &[i8],
    bias: Option<&[i32]>,
    state: &mut [i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    svdf(p, input, feature_weights, feature_bias, time_weights, bias, state, output)
}

/// As [`svdf_i8`], with int16 state and time weights.
///
/// # Errors
/// As [`svdf_i8`].
pub fn svdf_i8_state16(
    p: &SvdfInt,
    input: &[i8],
    feature_weights: &[i8],
    feature_bias: Option<&[i32]>,
    time_weights: &[i16],
    bias: Option<&[i32]>,
    state: &mut [i16],
    output: &mut [i8],
) -> Result<(), KernelError> {
    svdf(p, input, feature_weights, feature_bias, time_weights, bias, state, output)
}

#[inline(always)]
fn svdf<S: State>(
    p: &SvdfInt,
    input: &[i8],
    feature_weights: &[i8],
    feature_bias: Option<&[i32]>,
    time_weights: &[S],
    bias: Option<&[i32]>,
    state: &mut [S],
    output: &mut [i8],
) -> Result<(), KernelError> {
    let shape = &p.shape;
    let lengths = [input.len(), feature_weights.len(), time_weights.len(), state.len(), output.len()];
    let filters = shape.check(lengths, bias.map(<[i32]>::len))?;
    if feature_bias.is_some_and(|bias| bias.len() != filters) {
        return Err(KernelError::Shape);
    }
    p.feature.check()?;
    p.time.check()?;
    shape.run(input, state, output, |x, memories, out| {
        // Blocks of filters, and what is left over one by one.
        let mut first = 0;
        while first < filters {
            let (len, stride) = if filters - first >= BLOCK { (BLOCK, x.len()) } else { (1, x.len()) };
            let mut sums = core::array::from_fn(|filter| at(feature_bias, first + filter));
            i8::dot(&mut sums, x, 0, feature_weights.get(first * x.len()..).unwrap_or_default(), stride);
            for (filter, sum) in (first..).zip(sums).take(len) {
                let memory = part_mut(memories, filter * shape.memory, shape.memory);
                remember(memory, S::store(p.feature.apply(sum), p.state_zero_point));
            }
            first += len;
        }
        let centred = |x: S| x.into().wrapping_sub(p.state_zero_point);
        let unit_len = (shape.rank * shape.memory).max(1);
        let filters = memories.chunks_exact(unit_len).zip(time_weights.chunks_exact(unit_len));
        for (unit, (out, (memory, weights))) in out.iter_mut().zip(filters).enumerate() {
            let sum = memory
                .iter()
                .zip(weights)
                .fold(at(bias, unit), |sum, (&x, &w)| sum.wrapping_add(centred(x).wrapping_mul(w.into())));
            let scaled = p.time.apply(sum).wrapping_add(p.output_zero_point);
            *out = scaled.clamp(i32::from(i8::MIN), i32::from(i8::MAX)) as i8;
        }
    });
    Ok(())
}

/// SVDF of float32; the slices as for [`svdf_i8`], the state holds zeros until it is first used.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the shape, [`KernelError::Parameter`] when an extent is 0.
pub fn svdf_f32(
    p: &SvdfF32,
    input: &[f32],
    feature_weights: &[f32],
    time_weights: &[f32],
    bias: Option<&[f32]>,
    state: &mut [f32],
    output: &mut [f32],
) -> Result<(), KernelError> {
    let shape = &p.shape;
    let lengths = [input.len(), feature_weights.len(), time_weights.len(), state.len(), output.len()];
    shape.check(lengths, bias.map(<[f32]>::len))?;
    // Each filter's sum starts from zero, as in TensorFlow Lite's reference kernel.
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0, |sum, (x, w)| sum + x * w);
    shape.run(input, state, output, |x, memories, out| {
        for (filter, memory) in memories.chunks_exact_mut(shape.memory.max(1)).enumerate() {
            remember(memory, dot(x, part(feature_weights, filter * x.len(), x.len())));
        }
        let unit_len = (shape.rank * shape.memory).max(1);
        let units = memories.chunks_exact(unit_len).zip(time_weights.chunks_exact(unit_len));
        for (unit, (out, (memory, weights))) in out.iter_mut().zip(units).enumerate() {
            let filters =
                memory.chunks_exact(shape.memory.max(1)).zip(weights.chunks_exact(shape.memory.max(1)));
            let bias = bias.and_then(|bias| bias.get(unit)).copied().unwrap_or(0.0);
            *out = p.clamp.apply(filters.fold(bias, |sum, (memory, weights)| sum + dot(memory, weights)));
        }
    });
    Ok(())
}

impl SvdfShape {
    /// Checks the lengths of input, feature weights, time weights, state and output, and of the bias if there is one.
    /// Returns the number of filters.
    fn check(&self, lengths: [usize; 5], bias: Option<usize>) -> Result<usize, KernelError> {
        let SvdfShape { batch, inputs, units, rank, memory } = *self;
        if batch == 0 || inputs == 0 || units == 0 || rank == 0 || memory == 0 {
            return Err(KernelError::Parameter);
        }
        let expected = [
            product(&[batch, inputs]),
            product(&[units, rank, inputs]),
            product(&[units, rank, memory]),
            product(&[batch, units, rank, memory]),
            product(&[batch, units]),
        ];
        let fits = expected == lengths.map(Some) && bias.is_none_or(|len| len == units);
        product(&[units, rank]).filter(|_| fits).ok_or(KernelError::Shape)
    }

    /// Calls `layer` with each input vector, the memory of its filters and its output vector. The lengths have been
    /// checked.
    #[inline(always)]
    fn run<I, S, O>(
        &self,
        input: &[I],
        state: &mut [S],
        output: &mut [O],
        mut layer: impl FnMut(&[I], &mut [S], &mut [O]),
    ) {
        let state = state.chunks_exact_mut((self.units * self.rank * self.memory).max(1));
        let output = output.chunks_exact_mut(self.units.max(1));
        for ((x, memories), out) in input.chunks_exact(self.inputs.max(1)).zip(state).zip(output) {
            layer(x, memories, out);
        }
    }
}

/// Drops the oldest value and appends the newest.
#[inline(always)]
fn remember<S>(memory: &mut [S], newest: S) {
    let mut newer = newest;
    for value in memory.iter_mut().rev() {
        core::mem::swap(value, &mut newer);
    }
}

/// An element of an optional bias.
#[inline(always)]
fn at(bias: Option<&[i32]>, index: usize) -> i32 {
    bias.and_then(|bias| bias.get(index)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    //! Four steps of two sequences; expected values are those of TensorFlow Lite Micro's Python interpreter for a
    //! model with these weights and scales that are powers of two.

    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::conv::fold_bias;

    const SHAPE: SvdfShape = SvdfShape { batch: 2, inputs: 3, units: 2, rank: 2, memory: 3 };

    /// `2^exponent`.
    fn power(exponent: i32) -> Multiplier {
        Multiplier { multiplier: 1 << 30, shift: exponent + 1 }
    }

    /// Input zero point folded in.
    fn folded(weights: &[i8]) -> Vec<i32> {
        weights.chunks(3).map(|row| fold_bias(0, row.iter().copied(), -7, 0)).collect()
    }

    fn check<S: State>(
        p: &SvdfInt,
        features: [i8; 12],
        times: [S; 12],
        bias: [i32; 2],
        mut state: [S; 24],
        steps: &[i8; 24],
        expected: &[i8; 16],
    ) {
        let feature_bias = folded(&features);
        for (x, y) in steps.chunks(6).zip(expected.chunks(4)) {
            let mut output = [0; 4];
            let (feature_bias, bias) = (Some(&feature_bias[..]), Some(&bias[..]));
            svdf(p, x, &features, feature_bias, &times, bias, &mut state, &mut output).unwrap();
            assert_eq!(output, y);
        }
    }

    #[test]
    fn int8_state_equals_the_oracle() {
        let p = SvdfInt {
            shape: SHAPE,
            state_zero_point: 4,
            output_zero_point: -11,
            feature: power(-8), // 2^-6 * 2^-7 / 2^-5
            time: power(-7),    // 2^-5 * 2^-7 / 2^-5
        };
        check(
            &p,
            [65, -9, -68, 33, -22, 34, -104, -81, 60, -112, 45, -23],
            [-127, 67, 51, 80, 101, 59, 87, -99, 107, 105, 49, 77],
            [3860, 6043],
            [4i8; 24],
            &[
                99, 5, 80, 106, -52, -117, -85, -121, -17, -123, -62, -64, 52, -65, 115, -80, 120, 17, -66,
                -119, -50, 23, -101, -86,
            ],
            &[31, -17, 45, -40, 34, 100, 40, 127, 30, -78, -77, -36, 44, 104, 4, 118],
        );
    }

    #[test]
    fn int16_state_equals_the_oracle() {
        let p = SvdfInt {
            shape: SHAPE,
            state_zero_point: 0,
            output_zero_point: -11,
            feature: power(0), // 2^-6 * 2^-7 / 2^-13
            time: power(-23),  // 2^-13 * 2^-15 / 2^-5
        };
        check(
            &p,
            [-98, 45, -105, -122, -11, -48, 18, 112, 91, 10, 36, 79],
            [-4103, 10356, -18586, 7258, -17237, -20234, 17133, 4875, -8075, -30167, -17243, 19770],
            [-33423360, 482410496],
            [0i16; 24],
            &[
                102, 90, -124, -116, 20, -42, 87, -47, -89, -100, -51, 32, -96, 76, -51, -48, 41, 92, -17,
                76, -50, -95, 84, 68,
            ],
            &[-7, 33, -85, 42, 33, 51, -57, 55, -81, 69, -17, 58, -50, 49, -38, 32],
        );
    }

    #[test]
    fn float32_equals_the_oracle() {
        let features = [0.04, -0.86, -1.51, -0.17, -0.97, -1.64, 0.51, -0.06, 0.41, -0.99, -0.66, -1.0];
        let times = [-0.89, 0.2, -0.78, 0.36, 0.34, 2.03, -1.39, 0.89, -0.09, -0.01, -1.45, -0.46];
        let steps: [f32; 24] = [
            0.08, -0.29, 1.15, -0.02, -2.2, -0.69, -1.97, -3.25, -0.53, 1.33, 0.05, -1.17, -0.94, 1.13, 0.16,
            0.05, -0.05, 0.04, 0.81, 0.55, 0.22, -1.04, 0.51, -0.68,
        ];
        let expected: [f32; 16] = [
            0.0, 0.349715, 5.088252, 0.0, 5.994025, 0.0, 4.3898234, 0.0, 2.2050462, 0.0, 0.18083298,
            0.5789093, 0.0, 1.4314201, 0.9308579, 0.0,
        ];
        let p = SvdfF32 { shape: SHAPE, clamp: Clamp::RELU };
        let mut state = [0.0; 24];
        for (x, y) in steps.chunks(6).zip(expected.chunks(4)) {
            let mut output = [0.0; 4];
            svdf_f32(&p, x, &features, &times, Some(&[0.74, -0.08]), &mut state, &mut output).unwrap();
            assert_eq!(output, y);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let factor = power(-1);
        let p = SvdfInt {
            shape: SHAPE,
            state_zero_point: 0,
            output_zero_point: 0,
            feature: factor,
            time: factor,
        };
        let run = |p: &SvdfInt, state: usize, feature_bias: usize, bias: usize| {
            let (feature_bias, bias) = (Some(&[0; 9][..feature_bias]), Some(&[0; 9][..bias]));
            svdf_i8(p, &[0; 6], &[0; 12], feature_bias, &[0i8; 12], bias, &mut [0; 30][..state], &mut [0; 4])
        };
        assert_eq!(run(&p, 24, 4, 2), Ok(()));
        assert_eq!(run(&p, 23, 4, 2), Err(KernelError::Shape));
        assert_eq!(run(&p, 24, 3, 2), Err(KernelError::Shape));
        assert_eq!(run(&p, 24, 4, 3), Err(KernelError::Shape));
        let flat = SvdfInt { shape: SvdfShape { memory: 0, ..SHAPE }, ..p.clone() };
        assert_eq!(run(&flat, 24, 4, 2), Err(KernelError::Parameter));
        let huge = SvdfInt { shape: SvdfShape { memory: usize::MAX / 2, ..SHAPE }, ..p.clone() };
        assert_eq!(run(&huge, 24, 4, 2), Err(KernelError::Shape));
        let shifted = SvdfInt { time: Multiplier { multiplier: 1, shift: -32 }, ..p };
        assert_eq!(run(&shifted, 24, 4, 2), Err(KernelError::Parameter));
    }

    proptest! {
        #[test]
        fn is_total(
            multipliers: [i32; 2], shifts in prop::array::uniform2(-31i32..32), zero_points: [i32; 2], features: [i8; 12],
            times: [i16; 12], biases: [i32; 6], mut state: [i16; 24], x: [i8; 6],
        ) {
            let [feature, time] =
                core::array::from_fn(|i| Multiplier { multiplier: multipliers[i], shift: shifts[i] });
            let [state_zero_point, output_zero_point] = zero_points;
            let p = SvdfInt { shape: SHAPE, state_zero_point, output_zero_point, feature, time };
            let (feature_bias, bias) = (Some(&biases[..4]), Some(&biases[4..]));
            svdf_i8_state16(&p, &x, &features, feature_bias, &times, bias, &mut state, &mut [0; 4]).unwrap();
        }
    }
}
