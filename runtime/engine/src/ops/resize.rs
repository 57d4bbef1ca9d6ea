//! Image resizing.

use dunlin_artifact::{TensorId, op};
use dunlin_kernels::KernelError;
use dunlin_kernels::resize::{self as kernel, ResizeBilinear, ResizeShape};
use serde::de::DeserializeOwned;

use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn resize_bilinear_i8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    bilinear(cx, body, kernel::resize_bilinear_i8)
}

pub(crate) fn resize_bilinear_u8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    bilinear(cx, body, kernel::resize_bilinear_u8)
}

pub(crate) fn resize_bilinear_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    bilinear(cx, body, kernel::resize_bilinear_f32)
}

pub(crate) fn resize_nearest(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::ResizeNearest = decode(body)?;
    let mut shape = shape(cx, p.input, p.output)?;
    let element = cx.tensor(p.output)?.dtype.size();
    shape.channels = shape.channels.checked_mul(element).ok_or(RunError::BadTensor(p.output))?;
    let (rows, columns) = (cx.constant(p.rows)?, cx.constant(p.columns)?);
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::resize_nearest(&shape, rows, columns, input, output)?)
}

type Kernel<S, T> = fn(&ResizeBilinear<S>, &[T], &mut [T]) -> Result<(), KernelError>;

fn bilinear<S: DeserializeOwned, T: Plain>(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    kernel: Kernel<S, T>,
) -> Result<(), RunError> {
    let p: op::ResizeBilinear<S> = decode(body)?;
    let params = ResizeBilinear {
        shape: shape(cx, p.input, p.output)?,
        scale_h: p.scale_h,
        scale_w: p.scale_w,
        half_pixel_centers: p.half_pixel_centers,
    };
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel(&params, cast(input)?, cast_mut(output)?)?)
}

fn shape(cx: &Context<'_, '_>, input: TensorId, output: TensorId) -> Result<ResizeShape, RunError> {
    let &[batch, in_h, in_w, channels] = cx.tensor(input)?.shape() else {
        return Err(RunError::BadTensor(input));
    };
    let &[_, out_h, out_w, _] = cx.tensor(output)?.shape() else { return Err(RunError::BadTensor(output)) };
    let [batch, in_h, in_w, out_h, out_w, channels] =
        [batch, in_h, in_w, out_h, out_w, channels].map(|size| size as usize);
    Ok(ResizeShape { batch, in_h, in_w, out_h, out_w, channels })
}
