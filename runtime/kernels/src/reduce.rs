//! Reductions over axes and arg-min/arg-max.
//!
//! All kernels walk over the outputs and gather their inputs, so that no accumulators are kept in memory. An output's
//! inputs are visited in the order in which they lie in memory.

use crate::KernelError;
use crate::arith::{MAX_RANK, Narrow, Walk, element_count};
use crate::fixed::Multiplier;

/// Which axes of a tensor are reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// Extents of the input, outermost first, padded with ones. The output has the product of the kept ones as
    /// its number of elements.
    pub extents: [usize; MAX_RANK],
    /// Bit `i` says that axis `i` is reduced; bits without an axis have no meaning.
    pub reduced: u8,
}

/// Neighbouring outputs that are accumulated together, so that the input is read in short runs.
const LANES: usize = 8;

const OUTER: usize = MAX_RANK - 1;

/// A [`Reduction`] whose neighbouring axes of the same kind were merged.
struct Plan {
    /// Walks over the kept axes, without the innermost of all.
    kept: Walk<OUTER, 1>,
    /// Walks over the reduced axes, without the innermost of all.
    reduced: Walk<OUTER, 1>,
    /// Whether the innermost axis is reduced.
    inner_reduced: bool,
    /// Extent of the innermost axis.
    inner: usize,
}

impl Reduction {
    fn is_reduced(&self, axis: usize) -> bool {
        (self.reduced >> axis) & 1 != 0
    }

    /// How many inputs make one output, when that fits.
    pub fn count(&self) -> Option<usize> {
        self.product(true)
    }

    /// The product of the extents of all reduced or all kept axes.
    fn product(&self, reduced: bool) -> Option<usize> {
        let mut product = 1usize;
        for (axis, &extent) in self.extents.iter().enumerate() {
            if self.is_reduced(axis) == reduced {
                product = product.checked_mul(extent)?;
            }
        }
        Some(product)
    }

    /// Every extent must be at least 1.
    fn plan(&self) -> Plan {
        // Merge from the innermost axis outwards. Extents of 1 belong to whatever is beside them.
        let mut extents = [1usize; MAX_RANK];
        let mut kinds = [false; MAX_RANK];
        let mut slot = MAX_RANK - 1;
        for axis in (0..MAX_RANK).rev() {
            let (extent, kind) = (self.extents[axis], self.is_reduced(axis));
            if extent == 1 {
                continue;
            }
            if extents[slot] == 1 {
                kinds[slot] = kind;
            } else if kinds[slot] != kind {
                slot = slot.saturating_sub(1);
                kinds[slot] = kind;
            }
            extents[slot] = extents[slot].wrapping_mul(extent);
        }
        let [.., inner] = extents;
        let [.., inner_reduced] = kinds;
        let mut stride = inner;
        let mut strides = [0; OUTER];
        for (own, extent) in strides.iter_mut().zip(&extents).rev() {
            *own = stride;
            stride = stride.wrapping_mul(*extent);
        }
        let walk = |kind| {
            let mut own = [1; OUTER];
            for ((own, extent), axis_kind) in own.iter_mut().zip(extents).zip(kinds) {
                *own = if axis_kind == kind { extent } else { 1 };
            }
            Walk::new(own, [strides])
        };
        Plan { kept: walk(false), reduced: walk(true), inner_reduced, inner }
    }
}

/// `output = finish(fold(… fold(init, x0) …, xn))` over the reduced axes.
#[inline(always)]
fn reduce<T: Copy, A: Copy, O>(
    shape: &Reduction,
    input: &[T],
    output: &mut [O],
    init: A,
    fold: impl Fn(A, T) -> A,
    finish: impl Fn(A) -> O,
) -> Result<(), KernelError> {
    if element_count(&shape.extents) != Some(input.len()) || shape.product(false) != Some(output.len()) {
        return Err(KernelError::Shape);
    }
    if input.is_empty() {
        output.iter_mut().for_each(|output| *output = finish(init));
        return Ok(());
    }
    let Plan { mut kept, mut reduced, inner_reduced, inner } = shape.plan();
    let (run, row) = if inner_reduced { (inner, 1) } else { (1, inner) };
    let mut start = [0];
    for outputs in output.chunks_exact_mut(row.max(1)) {
        for (block, outputs) in outputs.chunks_mut(LANES).enumerate() {
            let mut accumulators = [init; LANES];
            let mut offset = [start[0] + block * LANES];
            loop {
                let inputs = input.get(offset[0]..offset[0] + run * outputs.len()).unwrap_or_default();
                if inner_reduced {
                    let [first, ..] = &mut accumulators;
                    *first = inputs.iter().fold(*first, |total, &x| fold(total, x));
                } else {
                    accumulators.iter_mut().zip(inputs).for_each(|(total, &x)| *total = fold(*total, x));
                }
                if !reduced.advance(&mut offset) {
                    break;
                }
            }
            outputs.iter_mut().zip(accumulators).for_each(|(output, total)| *output = finish(total));
        }
        kept.advance(&mut start);
    }
    Ok(())
}

/// Parameters of the mean or the sum of quantized values.
///
/// With `m·2^(e-31) = s_in / s_out` a sum takes this factor. A mean over `n` values takes
/// `(m·2^k / n)·2^(e-k-31)`, the quotient truncated, where `k = min(floor(log2 n), 32, 31 + e)`.
#[derive(Clone, Debug)]
pub struct QuantizedMean {
    /// What is reduced.
    pub shape: Reduction,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Factor from the sum of the inputs to the output.
    pub factor: Multiplier,
    /// Zero point of the output.
    pub output_zero_point: i32,
}

/// Mean or sum of int8 values.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not have the length that the shape gives it;
/// [`KernelError::Parameter`] when the factor's shift is out of range.
pub fn mean_i8(p: &QuantizedMean, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    mean(p, input, output, i8::MIN.into(), i8::MAX.into())
}

/// Mean or sum of int16 values. Errors as [`mean_i8`].
pub fn mean_i16(p: &QuantizedMean, input: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    mean(p, input, output, i16::MIN.into(), i16::MAX.into())
}

#[inline(always)]
fn mean<T: Narrow>(
    p: &QuantizedMean,
    input: &[T],
    output: &mut [T],
    min: i32,
    max: i32,
) -> Result<(), KernelError> {
    p.factor.check()?;
    let count = p.shape.count().ok_or(KernelError::Shape)?;
    let bias = p.input_zero_point.wrapping_mul(count as i32);
    let sum = |total: i32, x: T| total.wrapping_add(x.into());
    reduce(&p.shape, input, output, 0, sum, |total| {
        let value = p.factor.apply(total.wrapping_sub(bias)).wrapping_add(p.output_zero_point);
        T::narrow(value.max(min).min(max))
    })
}

/// A reduction of numbers that are not quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Sum; integers wrap around.
    Sum,
    /// Mean; that of integers is computed in 64 bits and truncated towards zero.
    Mean,
    /// Smallest element, but at most the greatest finite number. Not-a-number is ignored.
    Minimum,
    /// Greatest element, but at least the lowest finite number. Not-a-number is ignored.
    Maximum,
}

/// Reduces `f32` values. Errors: [`KernelError::Shape`] as for [`mean_i8`].
pub fn reduce_f32(
    shape: &Reduction,
    op: ReduceOp,
    input: &[f32],
    output: &mut [f32],
) -> Result<(), KernelError> {
    match op {
        ReduceOp::Sum | ReduceOp::Mean => {
            let mean = op == ReduceOp::Mean;
            let divisor = if mean { shape.count().ok_or(KernelError::Shape)? as f32 } else { 1.0 };
            reduce(shape, input, output, 0.0, |total, x| total + x, |total| total / divisor)
        }
        ReduceOp::Minimum | ReduceOp::Maximum => extreme(shape, op, input, output, f32::MIN, f32::MAX),
    }
}

/// Reduces `i32` values. Errors: [`KernelError::Shape`] as for [`mean_i8`].
pub fn reduce_i32(
    shape: &Reduction,
    op: ReduceOp,
    input: &[i32],
    output: &mut [i32],
) -> Result<(), KernelError> {
    match op {
        ReduceOp::Sum | ReduceOp::Mean => {
            let mean = op == ReduceOp::Mean;
            let divisor = if mean { shape.count().ok_or(KernelError::Shape)?.max(1) as i64 } else { 1 };
            let sum = |total: i64, x: i32| total.wrapping_add(x.into());
            reduce(shape, input, output, 0i64, sum, |total| total.wrapping_div(divisor) as i32)
        }
        ReduceOp::Minimum | ReduceOp::Maximum => extreme(shape, op, input, output, i32::MIN, i32::MAX),
    }
}

/// Smallest or greatest of int8 values, quantized alike on both sides.
///
/// # Errors
/// [`KernelError::Shape`] as for [`mean_i8`]; [`KernelError::Parameter`] for other operators.
pub fn reduce_min_max_i8(
    shape: &Reduction,
    op: ReduceOp,
    input: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    extreme(shape, op, input, output, i8::MIN, i8::MAX)
}

/// Smallest or greatest of int16 values. Errors as [`reduce_min_max_i8`].
pub fn reduce_min_max_i16(
    shape: &Reduction,
    op: ReduceOp,
    input: &[i16],
    output: &mut [i16],
) -> Result<(), KernelError> {
    extreme(shape, op, input, output, i16::MIN, i16::MAX)
}

#[inline(always)]
fn extreme<T: Copy + PartialOrd>(
    shape: &Reduction,
    op: ReduceOp,
    input: &[T],
    output: &mut [T],
    lowest: T,
    greatest: T,
) -> Result<(), KernelError> {
    let (maximum, start) = match op {
        ReduceOp::Minimum => (false, greatest),
        ReduceOp::Maximum => (true, lowest),
        ReduceOp::Sum | ReduceOp::Mean => return Err(KernelError::Parameter),
    };
    let better = |best: T, x: T| if if maximum { x > best } else { x < best } { x } else { best };
    reduce(shape, input, output, start, better, |best| best)
}

/// Parameters of arg-min and arg-max: the input is `[outer, axis, inner]`, the output `[outer, inner]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgMinMax {
    /// Product of the extents before the axis.
    pub outer: usize,
    /// Extent of the axis, at least 1.
    pub axis: usize,
    /// Product of the extents behind the axis.
    pub inner: usize,
    /// Whether the index of the greatest element is wanted, rather than of the smallest.
    pub maximum: bool,
}

/// Where indices are written to.
#[derive(Debug)]
pub enum Indices<'a> {
    /// As `i32`.
    I32(&'a mut [i32]),
    /// As `i64`.
    I64(&'a mut [i64]),
}

impl Indices<'_> {
    fn len(&self) -> usize {
        match self {
            Indices::I32(indices) => indices.len(),
            Indices::I64(indices) => indices.len(),
        }
    }

    fn set(&mut self, position: usize, index: usize) {
        match self {
            Indices::I32(indices) => indices.get_mut(position).map(|slot| *slot = index as i32),
            Indices::I64(indices) => indices.get_mut(position).map(|slot| *slot = index as i64),
        };
    }
}

/// Index of the first extreme int8 value.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not have the length that the extents give it;
/// [`KernelError::Parameter`] when the axis is empty.
pub fn arg_min_max_i8(p: &ArgMinMax, input: &[i8], output: Indices<'_>) -> Result<(), KernelError> {
    arg_min_max(p, input, output)
}

/// Index of the first extreme `f32` value. Not-a-number is never an extreme, unless it comes first: then it stays.
/// Errors as [`arg_min_max_i8`].
pub fn arg_min_max_f32(p: &ArgMinMax, input: &[f32], output: Indices<'_>) -> Result<(), KernelError> {
    arg_min_max(p, input, output)
}

fn arg_min_max<T: Copy + PartialOrd>(
    p: &ArgMinMax,
    input: &[T],
    mut output: Indices<'_>,
) -> Result<(), KernelError> {
    if p.axis == 0 {
        return Err(KernelError::Parameter);
    }
    let fits = element_count(&[p.outer, p.axis, p.inner]) == Some(input.len())
        && element_count(&[p.outer, p.inner]) == Some(output.len());
    if !fits {
        return Err(KernelError::Shape);
    }
    if input.is_empty() {
        return Ok(());
    }
    let mut position = 0;
    for block in input.chunks_exact((p.axis * p.inner).max(1)) {
        for first in 0..p.inner {
            let mut candidates =
                block.get(first..).unwrap_or_default().iter().step_by(p.inner.max(1)).copied();
            let Some(mut best) = candidates.next() else { continue };
            let mut best_index = 0;
            for (index, candidate) in (1..).zip(candidates) {
                if if p.maximum { candidate > best } else { candidate < best } {
                    (best, best_index) = (candidate, index);
                }
            }
            output.set(position, best_index);
            position += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn shape(extents: &[usize], axes: &[usize]) -> Reduction {
        let skipped = MAX_RANK - extents.len();
        let mut padded = [1; MAX_RANK];
        padded[skipped..].copy_from_slice(extents);
        Reduction { extents: padded, reduced: axes.iter().map(|axis| 1 << (skipped + axis)).sum() }
    }

    // Expected values: TensorFlow Lite Micro, scales 0.05 and (output) 0.03 for means, 0.2 for sums.
    const X: [i8; 60] = [
        120, 66, 62, 79, 19, -102, 109, -107, 117, 83, 111, -83, -123, 29, 31, -68, -74, 108, -19, -82, 71,
        -46, -96, 77, -92, -121, 6, 94, -71, 18, -120, 21, -114, -113, -106, -118, 16, 80, -104, -104, -121,
        -87, -117, -43, -69, -24, 97, -18, 98, 73, -120, 31, -102, -101, 35, -6, -95, -87, 73, -61,
    ];

    fn run_i8<const N: usize>(axes: &[usize], multiplier: i32, shift: i32) -> [i8; N] {
        let p = QuantizedMean {
            shape: shape(&[2, 3, 2, 5], axes),
            input_zero_point: -9,
            factor: Multiplier { multiplier, shift },
            output_zero_point: 4,
        };
        let mut output = [0; N];
        mean_i8(&p, &X, &mut output).unwrap();
        output
    }

    #[test]
    fn means_and_sums() {
        assert_eq!(run_i8(&[1, 2], 1_193_046_515, -1), [22, 13, 2, 78, 13, -123, 15, -81, -34, -46]);
        assert_eq!(
            run_i8(&[3], 1_431_655_818, -1),
            [127, 53, 8, -26, -10, -6, -125, -58, -127, 95, -67, -40]
        );
        assert_eq!(
            run_i8(&[0, 2], 1_789_569_773, -1),
            [-73, 108, -14, 11, -26, -24, -43, -44, 46, -1, -55, -25, -61, 10, -23]
        );
        assert_eq!(run_i8(&[1, 3], 954_437_212, -2), [44, 7, -106, -1]);
        assert_eq!(run_i8(&[1, 3], 1_073_741_824, -1), [94, 11, -128, -7]);
        assert_eq!(run_i8(&[3], 1_073_741_824, -1), [102, 41, 7, -19, -6, -3, -93, -42, -94, 72, -49, -29]);
    }

    #[test]
    fn plain_reductions() {
        let x = [1.0, -2.0, 3.5, f32::NAN, 5.0, f32::NEG_INFINITY];
        let run = |op| {
            let mut output = [0.0; 2];
            reduce_f32(&shape(&[2, 3], &[1]), op, &x, &mut output).unwrap();
            output
        };
        assert_eq!(run(ReduceOp::Maximum), [3.5, 5.0]);
        assert_eq!(run(ReduceOp::Minimum), [-2.0, f32::NEG_INFINITY]);
        assert_eq!(run(ReduceOp::Sum)[0], 2.5);
        assert_eq!(run(ReduceOp::Mean)[0], 2.5 / 3.0);
        assert!(run(ReduceOp::Mean)[1].is_nan());

        let mut output = [0; 3];
        let x = [i32::MAX, -7, 3, 1, 4, 4];
        reduce_i32(&shape(&[2, 3], &[0]), ReduceOp::Sum, &x, &mut output).unwrap();
        assert_eq!(output, [i32::MIN, -3, 7]);
        reduce_i32(&shape(&[2, 3], &[0]), ReduceOp::Mean, &x, &mut output).unwrap();
        assert_eq!(output, [1 << 30, -1, 3]);
        let mut output = [0; 1];
        reduce_min_max_i16(&shape(&[2, 3], &[0, 1]), ReduceOp::Minimum, &[5, 4, 3, 2, 7, 8], &mut output)
            .unwrap();
        assert_eq!(output, [2]);
        assert_eq!(
            reduce_min_max_i8(&shape(&[2], &[0]), ReduceOp::Sum, &[1, 2], &mut [0]),
            Err(KernelError::Parameter)
        );
        assert_eq!(
            reduce_f32(&shape(&[2, 3], &[1]), ReduceOp::Sum, &[0.0; 6], &mut [0.0; 3]),
            Err(KernelError::Shape)
        );
    }

    #[test]
    fn empty_inputs() {
        let mut output = [1.0; 3];
        reduce_f32(&shape(&[0, 3], &[0]), ReduceOp::Sum, &[], &mut output).unwrap();
        assert_eq!(output, [0.0; 3]);
        reduce_f32(&shape(&[0, 3], &[1]), ReduceOp::Sum, &[], &mut []).unwrap();
    }

    proptest! {
        #[test]
        fn sums_like_a_plain_loop(extents in prop::array::uniform6(1usize..5), reduced in 0..64u8) {
            let shape = Reduction { extents, reduced };
            let x: Vec<i32> = (0..extents.iter().product::<usize>() as i32).map(|x| x * x % 1013).collect();
            let mut expected = std::vec![0; shape.product(false).unwrap()];
            for (position, x) in x.iter().enumerate() {
                // The position without the reduced axes, most significant axis first.
                let (mut target, mut divisor) = (0, extents.iter().product::<usize>());
                for (axis, extent) in extents.iter().enumerate() {
                    divisor /= extent;
                    if !shape.is_reduced(axis) {
                        target = target * extent + position / divisor % extent;
                    }
                }
                expected[target] += x;
            }
            let mut output = std::vec![0; expected.len()];
            reduce_i32(&shape, ReduceOp::Sum, &x, &mut output).unwrap();
            prop_assert_eq!(output, expected);
        }

        #[test]
        fn hostile_parameters_do_not_panic(x: [i16; 6], words: [i32; 3], shift in -31..=31) {
            let [input_zero_point, multiplier, output_zero_point] = words;
            let factor = Multiplier { multiplier, shift };
            let p = QuantizedMean { shape: shape(&[2, 3], &[0]), input_zero_point, factor, output_zero_point };
            mean_i16(&p, &x, &mut [0; 3]).unwrap();
        }
    }

    #[test]
    fn first_extreme_wins() {
        let p = ArgMinMax { outer: 1, axis: 3, inner: 2, maximum: true };
        let mut output = [9; 2];
        arg_min_max_i8(&p, &[5, 1, 7, 1, 7, 0], Indices::I32(&mut output)).unwrap();
        assert_eq!(output, [1, 0]);
        let mut output = [9; 2];
        let p = ArgMinMax { outer: 2, axis: 3, inner: 1, maximum: false };
        arg_min_max_f32(&p, &[f32::NAN, 1.0, 0.0, 4.0, f32::NAN, 3.0], Indices::I64(&mut output)).unwrap();
        assert_eq!(output, [0, 2]);
        let empty = ArgMinMax { axis: 0, ..p };
        assert_eq!(arg_min_max_f32(&empty, &[], Indices::I32(&mut [])), Err(KernelError::Parameter));
        let short = ArgMinMax { outer: 2, axis: 3, inner: 1, maximum: false };
        assert_eq!(arg_min_max_i8(&short, &[0; 5], Indices::I32(&mut [0; 2])), Err(KernelError::Shape));
    }
}
