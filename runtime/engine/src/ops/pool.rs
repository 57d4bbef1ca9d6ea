//! Integer pooling.

use dunlin_artifact::op;
use dunlin_kernels::pool as kernel;

use super::window::{Channels, window};
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn average_pool_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, pool) = pool(cx, body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::average_pool2d_i8(&pool, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn average_pool_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, pool) = pool(cx, body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::average_pool2d_i16(&pool, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn max_pool_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, pool) = pool(cx, body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::max_pool2d_i8(&pool, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn max_pool_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, pool) = pool(cx, body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::max_pool2d_i16(&pool, cast(input)?, cast_mut(output)?)?)
}

/// Decodes a pool and charges its work. Out of line: all pools share it.
#[inline(never)]
fn pool(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(op::PoolInt, kernel::Pool2D), RunError> {
    let p: op::PoolInt = decode(body)?;
    let window = window(cx, &p.window, p.input, p.output, p.size, Channels::Separate)?;
    let pool = kernel::Pool2D {
        window,
        offset: p.offset.into(),
        activation_min: p.min.into(),
        activation_max: p.max.into(),
    };
    Ok((p, pool))
}
