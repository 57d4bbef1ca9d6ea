//! Float32 operators, with weights in single or half precision.

use dunlin_artifact::{DType, TensorId, op};
use dunlin_kernels::float::{self, Clamp, FullyConnected, Prelu, Softmax, Unary, WindowOp};
use dunlin_kernels::{KernelError, window::Window};

use super::window::{Channels, window};
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

/// A layer's weights.
enum Weights<'m> {
    Single(&'m [f32]),
    /// The bits of half-precision numbers.
    Half(&'m [u16]),
}

pub(crate) fn conv2d_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    convolution(cx, body, conv_window, float::conv2d, float::conv2d)
}

pub(crate) fn depthwise_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    convolution(cx, body, depthwise_window, float::depthwise_conv2d, float::depthwise_conv2d)
}

pub(crate) fn transpose_conv_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    convolution(cx, body, conv_window, float::transpose_conv2d, float::transpose_conv2d)
}

type Geometry = fn(&mut Context<'_, '_>, &op::ConvF32) -> Result<Window, RunError>;
type Convolution<W> = fn(&WindowOp, &[f32], &[W], Option<&[f32]>, &mut [f32]) -> Result<(), KernelError>;

fn convolution(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    geometry: Geometry,
    single: Convolution<f32>,
    half: Convolution<u16>,
) -> Result<(), RunError> {
    let p: op::ConvF32 = decode(body)?;
    let params = WindowOp { window: geometry(cx, &p)?, clamp: Clamp { min: p.min, max: p.max } };
    let (weights, bias) = (weights(cx, p.weights)?, bias(cx, p.bias)?);
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    let (input, output) = (cast(input)?, cast_mut(output)?);
    Ok(match weights {
        Weights::Single(weights) => single(&params, input, weights, bias, output),
        Weights::Half(weights) => half(&params, input, weights, bias, output),
    }?)
}

/// The geometry of an ordinary or transposed convolution.
pub(super) fn conv_window(cx: &mut Context<'_, '_>, p: &op::ConvF32) -> Result<Window, RunError> {
    let &[_, rows, columns, depth] = cx.tensor(p.weights)?.shape() else {
        return Err(RunError::BadTensor(p.weights));
    };
    window(cx, &p.window, p.input, p.output, [rows, columns], Channels::Depth(depth))
}

/// The geometry of a depthwise convolution.
pub(super) fn depthwise_window(cx: &mut Context<'_, '_>, p: &op::ConvF32) -> Result<Window, RunError> {
    let &[_, rows, columns, _] = cx.tensor(p.weights)?.shape() else {
        return Err(RunError::BadTensor(p.weights));
    };
    window(cx, &p.window, p.input, p.output, [rows, columns], Channels::Separate)
}

pub(crate) fn fully_connected_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::FullyConnectedF32 = decode(body)?;
    let params = layer(cx, &p)?;
    let (weights, bias) = (weights(cx, p.weights)?, bias(cx, p.bias)?);
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    let (input, output) = (cast(input)?, cast_mut(output)?);
    Ok(match weights {
        Weights::Single(weights) => float::fully_connected(&params, input, weights, bias, output),
        Weights::Half(weights) => float::fully_connected(&params, input, weights, bias, output),
    }?)
}

/// The geometry of a fully connected layer.
pub(super) fn layer(cx: &mut Context<'_, '_>, p: &op::FullyConnectedF32) -> Result<FullyConnected, RunError> {
    let &[outputs, inputs] = cx.tensor(p.weights)?.shape() else {
        return Err(RunError::BadTensor(p.weights));
    };
    let (outputs, inputs) = (outputs as usize, inputs as usize);
    let elements = cx.tensor(p.input)?.elements();
    let rows = elements.checked_div(inputs).ok_or(RunError::BadTensor(p.weights))?;
    cx.charge((elements as u64).saturating_mul(outputs as u64))?;
    Ok(FullyConnected { rows, inputs, outputs, clamp: Clamp { min: p.min, max: p.max } })
}

pub(super) fn bias<'m>(cx: &Context<'m, '_>, id: Option<TensorId>) -> Result<Option<&'m [f32]>, RunError> {
    id.map(|id| cx.constant(id)).transpose()
}

fn weights<'m>(cx: &Context<'m, '_>, id: TensorId) -> Result<Weights<'m>, RunError> {
    match cx.tensor(id)?.dtype {
        DType::F32 => Ok(Weights::Single(cx.constant(id)?)),
        DType::F16 => Ok(Weights::Half(cx.constant(id)?)),
        _ => Err(RunError::BadTensor(id)),
    }
}

pub(crate) fn average_pool_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    pool(cx, body, float::average_pool)
}

pub(crate) fn max_pool_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    pool(cx, body, float::max_pool)
}

type Pool = fn(&WindowOp, &[f32], &mut [f32]) -> Result<(), KernelError>;

fn pool(cx: &mut Context<'_, '_>, body: &[u8], kernel: Pool) -> Result<(), RunError> {
    let p: op::PoolF32 = decode(body)?;
    let window = window(cx, &p.window, p.input, p.output, p.size, Channels::Separate)?;
    let params = WindowOp { window, clamp: Clamp { min: p.min, max: p.max } };
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel(&params, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn unary_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    elementwise(cx, body, float::unary)
}

pub(crate) fn exponential_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    elementwise(cx, body, float::exponential)
}

pub(crate) fn trigonometric_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    elementwise(cx, body, float::trigonometric)
}

fn elementwise(
    cx: &mut Context<'_, '_>,
    body: &[u8],
    kernel: fn(Unary, &mut [f32]) -> Result<(), KernelError>,
) -> Result<(), RunError> {
    let p: op::UnaryF32 = decode(body)?;
    let function = match p.function {
        op::FunctionF32::Relu => Unary::Relu,
        op::FunctionF32::Relu6 => Unary::Relu6,
        op::FunctionF32::ReluN1To1 => Unary::ReluN1To1,
        op::FunctionF32::LeakyRelu(alpha) => Unary::LeakyRelu { alpha },
        op::FunctionF32::HardSwish => Unary::HardSwish,
        op::FunctionF32::Abs => Unary::Abs,
        op::FunctionF32::Neg => Unary::Neg,
        op::FunctionF32::Square => Unary::Square,
        op::FunctionF32::Floor => Unary::Floor,
        op::FunctionF32::Ceil => Unary::Ceil,
        op::FunctionF32::Round => Unary::Round,
        op::FunctionF32::Exp => Unary::Exp,
        op::FunctionF32::Log => Unary::Log,
        op::FunctionF32::Logistic => Unary::Logistic,
        op::FunctionF32::Tanh => Unary::Tanh,
        op::FunctionF32::Elu => Unary::Elu,
        op::FunctionF32::Sqrt => Unary::Sqrt,
        op::FunctionF32::Rsqrt => Unary::Rsqrt,
        op::FunctionF32::Sin => Unary::Sin,
        op::FunctionF32::Cos => Unary::Cos,
    };
    Ok(kernel(function, in_place(cx, p.input, p.output)?)?)
}

pub(crate) fn softmax_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SoftmaxF32 = decode(body)?;
    let depth = depth(cx, p.output)?;
    let data = in_place(cx, p.input, p.output)?;
    Ok(match p.beta {
        Some(beta) => float::softmax(&Softmax { depth, beta }, data),
        None => float::log_softmax(&Softmax { depth, beta: 1.0 }, data),
    }?)
}

pub(crate) fn l2_norm_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::L2NormF32 = decode(body)?;
    let depth = depth(cx, p.output)?;
    Ok(float::l2_normalize(depth, in_place(cx, p.input, p.output)?)?)
}

pub(crate) fn prelu_f32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::PreluF32 = decode(body)?;
    let params = Prelu { shape: four_axes(cx, p.output)?, alpha_shape: four_axes(cx, p.alpha)? };
    cx.bring_in_place(p.input, p.output)?;
    let ([output], [alpha]) = cx.borrow([p.output], [p.alpha])?;
    Ok(float::prelu(&params, cast_mut(output)?, cast(alpha)?)?)
}

/// The elements of `output` after it has taken those of `input`.
fn in_place<'c>(
    cx: &'c mut Context<'_, '_>,
    input: TensorId,
    output: TensorId,
) -> Result<&'c mut [f32], RunError> {
    cx.bring_in_place(input, output)?;
    let ([output], []) = cx.borrow([output], [])?;
    cast_mut(output)
}

/// The size of the innermost axis.
fn depth(cx: &Context<'_, '_>, id: TensorId) -> Result<usize, RunError> {
    cx.tensor(id)?.shape().last().map(|&depth| depth as usize).ok_or(RunError::BadTensor(id))
}

/// The shape, with ones in front.
fn four_axes(cx: &Context<'_, '_>, id: TensorId) -> Result<[usize; 4], RunError> {
    let tensor = cx.tensor(id)?;
    let mut axes = [1; 4];
    let missing = axes.len().checked_sub(tensor.shape().len()).ok_or(RunError::BadTensor(id))?;
    for (axis, &size) in axes.iter_mut().skip(missing).zip(tensor.shape()) {
        *axis = size as usize;
    }
    Ok(axes)
}
