//! Integer layers with weights: convolutions and fully connected layers.

use dunlin_artifact::{DType, TensorId, op};
use dunlin_kernels::conv::{Bias16, Conv2D, conv2d_i8, conv2d_i16};
use dunlin_kernels::depthwise::{depthwise_conv2d_i8, depthwise_conv2d_i16};
use dunlin_kernels::fully_connected::{FullyConnected, fully_connected_i8, fully_connected_i16};
use dunlin_kernels::transpose_conv::{transpose_conv2d_i8, transpose_conv2d_i16};

use super::window::{Channels, window};
use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn conv2d_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Filters)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(conv2d_i8(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn conv2d_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Filters)?;
    let (weights, bias) = (cx.constant(p.weights)?, bias16(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(conv2d_i16(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn depthwise_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Interleaved)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(depthwise_conv2d_i8(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn depthwise_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Interleaved)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(depthwise_conv2d_i16(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn transpose_conv_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Filters)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(transpose_conv2d_i8(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn transpose_conv_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = convolution(cx, body, Layout::Filters)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(transpose_conv2d_i16(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn fully_connected_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = fully_connected(cx, body)?;
    let (weights, bias) = (cx.constant(p.weights)?, optional(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(fully_connected_i8(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

pub(crate) fn fully_connected_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let (p, layer) = fully_connected(cx, body)?;
    let (weights, bias) = (cx.constant(p.weights)?, bias16(cx, p.bias)?);
    let (multipliers, shifts) = scales(cx, &p.scales)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(fully_connected_i16(&layer, cast(input)?, weights, bias, multipliers, shifts, cast_mut(output)?)?)
}

/// How a convolution's weights are laid out.
#[derive(Clone, Copy)]
enum Layout {
    /// `[out, rows, columns, in / groups]`
    Filters,
    /// `[1, rows, columns, out]`
    Interleaved,
}

/// Decodes a convolution and charges its work. Out of line: all convolutions share it.
#[inline(never)]
fn convolution(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    layout: Layout,
) -> Result<(op::ConvInt, Conv2D), RunError> {
    let p: op::ConvInt = decode(body)?;
    let weights = cx.tensor(p.weights)?;
    let &[_, rows, columns, depth] = weights.shape() else { return Err(RunError::BadTensor(p.weights)) };
    let channels = match layout {
        Layout::Filters => Channels::Depth(depth),
        Layout::Interleaved => Channels::Separate,
    };
    let window = window(cx, &p.window, p.input, p.output, [rows, columns], channels)?;
    let layer = Conv2D {
        window,
        input_zero_point: p.input_zero_point.into(),
        weights_zero_point: p.weights_zero_point.into(),
        output_zero_point: p.output_zero_point.into(),
        activation_min: p.min.into(),
        activation_max: p.max.into(),
    };
    Ok((p, layer))
}

/// Decodes a fully connected layer and charges its work.
#[inline(never)]
fn fully_connected(
    cx: &mut Context<'_, '_>,
    body: &[u8],
) -> Result<(op::FullyConnectedInt, FullyConnected), RunError> {
    let p: op::FullyConnectedInt = decode(body)?;
    let weights = cx.tensor(p.weights)?;
    let &[out_features, in_features] = weights.shape() else { return Err(RunError::BadTensor(p.weights)) };
    let (in_features, out_features) = (in_features as usize, out_features as usize);
    let outputs = cx.tensor(p.output)?.elements();
    cx.charge((outputs as u64).saturating_mul(in_features as u64))?;
    let layer = FullyConnected {
        batch: outputs.checked_div(out_features).ok_or(RunError::BadTensor(p.weights))?,
        in_features,
        out_features,
        weights_zero_point: p.weights_zero_point.into(),
        output_zero_point: p.output_zero_point.into(),
        activation_min: p.min.into(),
        activation_max: p.max.into(),
    };
    Ok((p, layer))
}

/// The multipliers and shifts of a layer.
fn scales<'s, 'm: 's>(
    cx: &Context<'m, '_>,
    scales: &'s op::Scales,
) -> Result<(&'s [i32], &'s [i8]), RunError> {
    match scales {
        op::Scales::Shared(factor) => {
            Ok((core::slice::from_ref(&factor.multiplier), core::slice::from_ref(&factor.shift)))
        }
        op::Scales::PerChannel { multipliers, shifts } => {
            Ok((cx.constant(*multipliers)?, cx.constant(*shifts)?))
        }
    }
}

fn optional<'m, T: Plain>(cx: &Context<'m, '_>, id: Option<TensorId>) -> Result<Option<&'m [T]>, RunError> {
    id.map(|id| cx.constant(id)).transpose()
}

/// The bias of a layer with int16 activations, whose type says how wide it accumulates.
fn bias16<'m>(cx: &Context<'m, '_>, id: Option<TensorId>) -> Result<Bias16<'m>, RunError> {
    match id {
        Some(id) if cx.tensor(id)?.dtype == DType::I32 => Ok(Bias16::Narrow(Some(cx.constant(id)?))),
        id => Ok(Bias16::Wide(optional(cx, id)?)),
    }
}
