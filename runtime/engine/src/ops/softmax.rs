//! Softmax and log-softmax on integers.

use dunlin_artifact::{TensorId, op};
use dunlin_kernels::softmax as kernel;

use super::factor;
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn softmax_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SoftmaxI8 = decode(body)?;
    let params = parameters(cx, &p)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    Ok(kernel::softmax_i8(&params, cast_mut(output)?)?)
}

pub(crate) fn softmax_int8_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SoftmaxI8 = decode(body)?;
    let params = parameters(cx, &p)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::softmax_i8_i16(&params, cast(input)?, cast_mut(output)?)?)
}

fn parameters(cx: &Context<'_, '_>, p: &op::SoftmaxI8) -> Result<kernel::SoftmaxI8, RunError> {
    let (rows, depth) = rows_and_depth(cx, p.output)?;
    Ok(kernel::SoftmaxI8 { rows, depth, multiplier: factor(p.factor), diff_min: p.diff_min })
}

pub(crate) fn softmax_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SoftmaxI16 = decode(body)?;
    let (rows, depth) = rows_and_depth(cx, p.output)?;
    let params = kernel::SoftmaxI16 { rows, depth, multiplier: factor(p.factor) };
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    Ok(kernel::softmax_i16(&params, cast_mut(output)?)?)
}

pub(crate) fn log_softmax_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::LogSoftmaxI8 = decode(body)?;
    let (rows, depth) = rows_and_depth(cx, p.output)?;
    let params = kernel::LogSoftmaxI8 {
        rows,
        depth,
        multiplier: factor(p.factor),
        inverse: factor(p.inverse),
        diff_min: p.diff_min,
    };
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    Ok(kernel::log_softmax_i8(&params, cast_mut(output)?)?)
}

/// A tensor as rows of its last axis.
pub(super) fn rows_and_depth(cx: &Context<'_, '_>, id: TensorId) -> Result<(usize, usize), RunError> {
    let tensor = cx.tensor(id)?;
    let depth = tensor.shape().last().map_or(0, |&depth| depth as usize);
    let rows = tensor.elements().checked_div(depth).ok_or(RunError::BadTensor(id))?;
    Ok((rows, depth))
}
