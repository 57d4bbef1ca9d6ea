//! Element-wise binary operators.

use dunlin_artifact::{MAX_RANK, TensorId, op};
use dunlin_kernels::KernelError;
use dunlin_kernels::arith::{self as kernel, Broadcast, Operand, QuantizedAdd, QuantizedMul};

use super::factor;
use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn add_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    add(cx, body, kernel::add_i8)
}

pub(crate) fn add_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    add(cx, body, kernel::add_i16)
}

pub(crate) fn squared_difference_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    add(cx, body, kernel::squared_difference_i8)
}

pub(crate) fn squared_difference_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    add(cx, body, kernel::squared_difference_i16)
}

pub(crate) fn mul_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    mul(cx, body, kernel::mul_i8)
}

pub(crate) fn mul_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    mul(cx, body, kernel::mul_i16)
}

pub(crate) fn div_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    mul(cx, body, kernel::div_i8)
}

pub(crate) fn min_max_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    min_max(cx, body, kernel::min_max_i8)
}

pub(crate) fn min_max_i16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    min_max(cx, body, kernel::min_max_i16)
}

pub(crate) fn arith_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    arith(cx, decode::<op::Arith<f32>>(body)?, kernel::arith_f32)
}

pub(crate) fn arith_i32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    arith(cx, decode::<op::Arith<i32>>(body)?, kernel::arith_i32)
}

pub(crate) fn arith_i64(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    arith(cx, decode::<op::Arith<i64>>(body)?, kernel::arith_i64)
}

/// A kernel on elements `T` with parameters `P`: first operand (`None` in place), second operand, output.
type Kernel<P, T> = fn(&P, Option<&[T]>, &[T], &mut [T]) -> Result<(), KernelError>;

fn add<T: Plain>(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    kernel: Kernel<QuantizedAdd, T>,
) -> Result<(), RunError> {
    let p: op::Add = decode(body)?;
    let params = QuantizedAdd {
        shape: broadcast(cx, p.a, p.b)?,
        left_shift: p.left_shift.into(),
        a: Operand { zero_point: p.a_zero_point, factor: factor(p.a_factor) },
        b: Operand { zero_point: p.b_zero_point, factor: factor(p.b_factor) },
        subtract: p.subtract,
        output: Operand { zero_point: p.output_zero_point, factor: factor(p.output_factor) },
        min: p.min,
        max: p.max,
    };
    run(cx, [p.a, p.b, p.output], |a, b, output| kernel(&params, a, b, output))
}

fn mul<T: Plain>(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    kernel: Kernel<QuantizedMul, T>,
) -> Result<(), RunError> {
    let p: op::Mul = decode(body)?;
    let params = QuantizedMul {
        shape: broadcast(cx, p.a, p.b)?,
        a_zero_point: p.a_zero_point,
        b_zero_point: p.b_zero_point,
        output: Operand { zero_point: p.output_zero_point, factor: factor(p.factor) },
        min: p.min,
        max: p.max,
    };
    run(cx, [p.a, p.b, p.output], |a, b, output| kernel(&params, a, b, output))
}

type MinMaxKernel<T> = fn(&Broadcast, bool, Option<&[T]>, &[T], &mut [T]) -> Result<(), KernelError>;

fn min_max<T: Plain>(cx: &mut Context<'_, '_>, body: &[u8], kernel: MinMaxKernel<T>) -> Result<(), RunError> {
    let p: op::MinMax = decode(body)?;
    let shape = broadcast(cx, p.a, p.b)?;
    run(cx, [p.a, p.b, p.output], |a, b, output| kernel(&shape, p.maximum, a, b, output))
}

fn arith<T: Plain>(
    cx: &mut Context<'_, '_>,
    p: op::Arith<T>,
    kernel: Kernel<kernel::Arith<T>, T>,
) -> Result<(), RunError> {
    let op = match p.op {
        op::ArithOp::Add => kernel::ArithOp::Add,
        op::ArithOp::Sub => kernel::ArithOp::Sub,
        op::ArithOp::Mul => kernel::ArithOp::Mul,
        op::ArithOp::Div => kernel::ArithOp::Div,
        op::ArithOp::Minimum => kernel::ArithOp::Minimum,
        op::ArithOp::Maximum => kernel::ArithOp::Maximum,
        op::ArithOp::SquaredDifference => kernel::ArithOp::SquaredDifference,
    };
    let params = kernel::Arith { shape: broadcast(cx, p.a, p.b)?, op, min: p.min, max: p.max };
    run(cx, [p.a, p.b, p.output], |a, b, output| kernel(&params, a, b, output))
}

/// The operands' shapes, aligned at the last axis.
fn broadcast(cx: &Context<'_, '_>, a: TensorId, b: TensorId) -> Result<Broadcast, RunError> {
    let aligned = |id: TensorId| -> Result<_, RunError> {
        let mut aligned = [1; MAX_RANK];
        for (extent, &dim) in aligned.iter_mut().rev().zip(cx.tensor(id)?.shape().iter().rev()) {
            *extent = dim as usize;
        }
        Ok(aligned)
    };
    Ok(Broadcast { a: aligned(a)?, b: aligned(b)? })
}

/// Borrows the first operand, the second operand and the output; the first one only if it is not the output.
fn run<T: Plain>(
    cx: &mut Context<'_, '_>,
    [a, b, output]: [TensorId; 3],
    kernel: impl Fn(Option<&[T]>, &[T], &mut [T]) -> Result<(), KernelError>,
) -> Result<(), RunError> {
    let separate = !cx.same_place(a, output)?;
    // A read that is not needed stands for another one, which costs nothing.
    let ([output], [a, b]) = cx.borrow([output], [if separate { a } else { b }, b])?;
    let a = if separate { Some(cast(a)?) } else { None };
    Ok(kernel(a, cast(b)?, cast_mut(output)?)?)
}
