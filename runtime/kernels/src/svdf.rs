//! SVDF: a dense layer over the last `memory` steps of a sequence, with filters of low rank (singular value
//! decomposition filter; Nakkiran et al., "Compressing deep neural networks using a rank-constrained topology", 2015).
//!
//! Every filter first reduces the input vector to one number, remembers it, and then weighs its memory; `rank`
//! neighbouring filters add up to one unit. The memory belongs to the caller and is kept from call to call.

use crate::KernelError;
use crate::conv::{Activation, BLOCK, filter_block};
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
pub trait SvdfState: Copy + Into<i32> {
    /// `x` limited to the type's range, plus the zero point; that sum wraps.
    fn store(x: i32, zero_point: i32) -> Self;
}

impl SvdfState for i8 {
    #[inline(always)]
    fn store(x: i32, zero_point: i32) -> i8 {
        x.clamp(i32::from(i8::MIN), i32::from(i8::MAX)).wrapping_add(zero_point) as i8
    }
}

impl SvdfState for i16 {
    #[inline(always)]
    fn store(x: i32, zero_point: i32) -> i16 {
        x.clamp(i32::from(i16::MIN), i32::from(i16::MAX)).wrapping_add(zero_point) as i16
    }
}

/// SVDF with int8 input and output. With `filters = units * rank`:
///
/// `input` is `[batch, inputs]`, `feature_weights` `[filters, inputs]`, `feature_bias` `[filters]` the input's zero point
/// [folded](crate::conv::fold_bias) (from 0; `None` for zeros), `time_weights` `[filters, memory]` with the oldest step
/// first, `bias` `[units]`, `state` `[batch, filters, memory]`, which holds its zero point until it is first used, and
/// `output` `[batch, units]`.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit the shape, [`KernelError::Parameter`] when an extent is 0 or an
/// exponent out of range.
pub fn svdf_i8<S: SvdfState>(
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
        for (block, memories) in memories.chunks_mut(BLOCK.saturating_mul(shape.memory)).enumerate() {
            let memories = memories.chunks_exact_mut(shape.memory);
            let first = block * BLOCK;
            let sums = core::array::from_fn(|filter| at(feature_bias, first + filter));
            let rows = filter_block(feature_weights, x.len(), first, memories.len());
            for (memory, sum) in memories.zip(i8::dot(sums, x, 0, rows)) {
                remember(memory, S::store(p.feature.apply(sum), p.state_zero_point));
            }
        }
        let centred = |x: S| x.into().wrapping_sub(p.state_zero_point);
        let unit_len = shape.rank * shape.memory;
        let filters = memories.chunks_exact(unit_len).zip(time_weights.chunks_exact(unit_len));
        for (unit, (out, (memory, weights))) in out.iter_mut().zip(filters).enumerate() {
            let sum = memory.iter().zip(weights).fold(at(bias, unit), |sum, (&x, &w)| {
                sum.wrapping_add(centred(x).wrapping_mul(w.into()))
            });
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
        for (filter, memory) in memories.chunks_exact_mut(shape.memory).enumerate() {
            remember(memory, dot(x, part(feature_weights, filter * x.len(), x.len())));
        }
        let unit_len = shape.rank * shape.memory;
        let units = memories.chunks_exact(unit_len).zip(time_weights.chunks_exact(unit_len));
        for (unit, (out, (memory, weights))) in out.iter_mut().zip(units).enumerate() {
            let filters = memory.chunks_exact(shape.memory).zip(weights.chunks_exact(shape.memory));
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
