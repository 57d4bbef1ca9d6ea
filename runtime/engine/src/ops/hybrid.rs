//! Layers with float32 activations and int8 weights.

use dunlin_artifact::{TensorId, op};
use dunlin_kernels::KernelError;
use dunlin_kernels::float::Clamp;
use dunlin_kernels::hybrid::{self, HybridConv2D, HybridFullyConnected, InputQuantization};
use dunlin_kernels::window::Window;

use super::float::{bias, conv_window, depthwise_window, layer};
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn conv2d_hybrid(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    convolution(cx, body, conv_window, hybrid::conv2d)
}

pub(crate) fn depthwise_hybrid(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    convolution(cx, body, depthwise_window, hybrid::depthwise_conv2d)
}

type Convolution = fn(
    &HybridConv2D,
    &[f32],
    &[i8],
    &[f32],
    Option<&[f32]>,
    &mut [i8],
    &mut [f32],
) -> Result<(), KernelError>;

fn convolution(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    geometry: fn(&mut Context<'_, '_>, &op::ConvF32) -> Result<Window, RunError>,
    kernel: Convolution,
) -> Result<(), RunError> {
    let op::ConvHybrid { layer: p, hybrid: q } = decode(body)?;
    let clamp = Clamp { min: p.min, max: p.max };
    let params = HybridConv2D { window: geometry(cx, &p)?, input: quantization(&q), clamp };
    let (weights, scales, bias) = operands(cx, p.weights, &q, p.bias)?;
    let ([scratch, output], [input]) = cx.borrow([q.scratch, p.output], [p.input])?;
    let (input, scratch, output) = (cast(input)?, cast_mut(scratch)?, cast_mut(output)?);
    Ok(kernel(&params, input, weights, scales, bias, scratch, output)?)
}

pub(crate) fn fully_connected_hybrid(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let op::FullyConnectedHybrid { layer: p, hybrid: q } = decode(body)?;
    let params = HybridFullyConnected { layer: layer(cx, &p)?, input: quantization(&q) };
    let (weights, scales, bias) = operands(cx, p.weights, &q, p.bias)?;
    let ([scratch, output], [input]) = cx.borrow([q.scratch, p.output], [p.input])?;
    let (input, scratch, output) = (cast(input)?, cast_mut(scratch)?, cast_mut(output)?);
    Ok(hybrid::fully_connected(&params, input, weights, scales, bias, scratch, output)?)
}

fn quantization(q: &op::Hybrid) -> InputQuantization {
    if q.asymmetric { InputQuantization::Asymmetric } else { InputQuantization::Symmetric }
}

type Operands<'m> = (&'m [i8], &'m [f32], Option<&'m [f32]>);

fn operands<'m>(
    cx: &Context<'m, '_>,
    weights: TensorId,
    q: &op::Hybrid,
    bias_id: Option<TensorId>,
) -> Result<Operands<'m>, RunError> {
    Ok((cx.constant(weights)?, cx.constant(q.scales)?, bias(cx, bias_id)?))
}
