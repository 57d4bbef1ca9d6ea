//! Reductions over axes.

use dunlin_artifact::{DType, MAX_RANK, TensorId, op};
use dunlin_kernels::KernelError;
use dunlin_kernels::reduce::{self as kernel, ArgMinMax, Indices, QuantizedMean, ReduceOp, Reduction};

use super::factor;
use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn mean_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    mean(cx, body, kernel::mean_i8)
}

pub(crate) fn mean_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    mean(cx, body, kernel::mean_i16)
}

pub(crate) fn reduce_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    reduce(cx, body, kernel::reduce_f32)
}

pub(crate) fn reduce_i32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    reduce(cx, body, kernel::reduce_i32)
}

pub(crate) fn reduce_min_max_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    reduce(cx, body, kernel::reduce_min_max_i8)
}

pub(crate) fn reduce_min_max_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    reduce(cx, body, kernel::reduce_min_max_i16)
}

pub(crate) fn arg_min_max_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    arg_min_max(cx, body, kernel::arg_min_max_i8)
}

pub(crate) fn arg_min_max_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    arg_min_max(cx, body, kernel::arg_min_max_f32)
}

type MeanKernel<T> = fn(&QuantizedMean, &[T], &mut [T]) -> Result<(), KernelError>;

fn mean<T: Plain>(cx: &mut Context<'_, '_>, body: &[u8], kernel: MeanKernel<T>) -> Result<(), RunError> {
    let p: op::Mean = decode(body)?;
    let params = QuantizedMean {
        shape: reduction(cx, p.input, p.reduced)?,
        input_zero_point: p.input_zero_point,
        factor: factor(p.factor),
        output_zero_point: p.output_zero_point,
    };
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel(&params, cast(input)?, cast_mut(output)?)?)
}

type ReduceKernel<T> = fn(&Reduction, ReduceOp, &[T], &mut [T]) -> Result<(), KernelError>;

fn reduce<T: Plain>(cx: &mut Context<'_, '_>, body: &[u8], kernel: ReduceKernel<T>) -> Result<(), RunError> {
    let p: op::Reduce = decode(body)?;
    let shape = reduction(cx, p.input, p.reduced)?;
    let op = match p.op {
        op::ReduceOp::Sum => ReduceOp::Sum,
        op::ReduceOp::Mean => ReduceOp::Mean,
        op::ReduceOp::Minimum => ReduceOp::Minimum,
        op::ReduceOp::Maximum => ReduceOp::Maximum,
    };
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel(&shape, op, cast(input)?, cast_mut(output)?)?)
}

fn reduction(cx: &Context<'_, '_>, input: TensorId, reduced: u8) -> Result<Reduction, RunError> {
    let mut extents = [1; MAX_RANK];
    for (extent, dim) in extents.iter_mut().zip(cx.tensor(input)?.padded_shape()) {
        *extent = dim as usize;
    }
    Ok(Reduction { extents, reduced })
}

type ArgKernel<T> = fn(&ArgMinMax, &[T], Indices<'_>) -> Result<(), KernelError>;

fn arg_min_max<T: Plain>(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    kernel: ArgKernel<T>,
) -> Result<(), RunError> {
    let p: op::ArgMinMax = decode(body)?;
    let input = cx.tensor(p.input)?;
    let (before, rest) = input.shape().split_at_checked(p.axis.into()).ok_or(RunError::BadInstruction)?;
    let (&axis, behind) = rest.split_first().ok_or(RunError::BadInstruction)?;
    let product = |dims: &[u32]| dims.iter().fold(1usize, |n, &dim| n.wrapping_mul(dim as usize));
    let params =
        ArgMinMax { outer: product(before), axis: axis as usize, inner: product(behind), maximum: p.maximum };
    let output_type = cx.tensor(p.output)?.dtype;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    let indices = match output_type {
        DType::I32 => Indices::I32(cast_mut(output)?),
        DType::I64 => Indices::I64(cast_mut(output)?),
        _ => return Err(RunError::BadTensor(p.output)),
    };
    Ok(kernel(&params, cast(input)?, indices)?)
}
