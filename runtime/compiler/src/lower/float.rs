//! Operators on float32, and layers with float32 activations and int8 weights ("hybrid").
//!
//! Hybrid layers follow TensorFlow Lite's reference kernels, see [`dunlin_kernels::hybrid`].

use dunlin_artifact::op::FunctionF32;
use dunlin_artifact::{DType, Kernel, TensorId, op};
use dunlin_kernels::float::Clamp;

use super::Lowering;
use super::window::window;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Activation, Node, Op, UnaryOp, ValueId, Window2d};

type Lowered = Result<(), Unsupported>;

/// Whether the node is a layer with weights or a pool that reads float32. All other operators decide by their
/// operands' types themselves.
pub(super) fn takes(cx: &Lowering<'_>, node: &Node) -> bool {
    let layer = matches!(
        node.op,
        Op::Conv2d { .. }
            | Op::DepthwiseConv2d { .. }
            | Op::TransposeConv2d { .. }
            | Op::FullyConnected { .. }
            | Op::AveragePool2d { .. }
            | Op::MaxPool2d { .. }
    );
    layer && cx.input(node, 0).is_ok_and(|input| cx.value(input).dtype == DType::F32)
}

/// Lowers a node that [`takes`] names.
pub(super) fn layer(cx: &mut Lowering<'_>, node: &Node, op: &Op) -> Lowered {
    match op {
        Op::Conv2d { window, activation, .. } => conv2d(cx, node, window, *activation),
        Op::DepthwiseConv2d { window, activation, .. } => depthwise_conv2d(cx, node, window, *activation),
        Op::TransposeConv2d { window, activation, .. } => transpose_conv2d(cx, node, window, *activation),
        Op::FullyConnected { activation, asymmetric_inputs, .. } => {
            fully_connected(cx, node, *activation, *asymmetric_inputs)
        }
        Op::AveragePool2d { window, size, activation } => {
            pool(cx, node, window, *size, *activation, Kernel::AveragePoolF32)
        }
        Op::MaxPool2d { window, size, activation } => {
            pool(cx, node, window, *size, *activation, Kernel::MaxPoolF32)
        }
        _ => unsupported("not an operator on float32"),
    }
}

fn conv2d(cx: &mut Lowering<'_>, node: &Node, steps: &Window2d, activation: Activation) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let [[_, _, _, in_c], weights, out] = layer.images(cx)?;
    let [channels, rows, columns, depth] = weights;
    if depth == 0 || !in_c.is_multiple_of(depth) || !channels.is_multiple_of(in_c / depth) {
        return unsupported(format!("weights of shape {weights:?} do not go with {in_c} input channels"));
    }
    layer.expect_channels(cx, channels, out[3])?;
    let groups = in_c / depth;
    let scales = layer.scales(cx, 0, channels)?;
    // As TensorFlow Lite has it: equal scales count as one, and groups are quantized like scales per channel.
    let asymmetric = groups != 1 || scales.len() > 1;
    let macs = out.iter().product::<usize>() * rows * columns * depth;
    layer.convolution(
        cx,
        steps,
        activation,
        &scales,
        asymmetric,
        [Kernel::Conv2dF32, Kernel::Conv2dHybrid],
        macs,
    )
}

fn depthwise_conv2d(cx: &mut Lowering<'_>, node: &Node, steps: &Window2d, activation: Activation) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let [[_, _, _, in_c], weights, out] = layer.images(cx)?;
    let [one, rows, columns, channels] = weights;
    if one != 1 || in_c == 0 || !channels.is_multiple_of(in_c) {
        return unsupported(format!("weights of shape {weights:?} do not go with {in_c} input channels"));
    }
    layer.expect_channels(cx, channels, out[3])?;
    let scales = layer.scales(cx, 3, channels)?;
    let macs = out.iter().product::<usize>() * rows * columns;
    layer.convolution(
        cx,
        steps,
        activation,
        &scales,
        true,
        [Kernel::DepthwiseF32, Kernel::DepthwiseHybrid],
        macs,
    )
}

fn transpose_conv2d(cx: &mut Lowering<'_>, node: &Node, steps: &Window2d, activation: Activation) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let [input, weights, out] = layer.images(cx)?;
    let [channels, rows, columns, depth] = weights;
    if depth != input[3] {
        return unsupported(format!(
            "weights of shape {weights:?} do not go with {} input channels",
            input[3]
        ));
    }
    layer.expect_channels(cx, channels, out[3])?;
    if layer.hybrid(cx) {
        return unsupported("int8 weights need int8 or int16 activations; float32 activations float weights");
    }
    let macs = input.iter().product::<usize>() * rows * columns * channels;
    let kernel = Kernel::TransposeConvF32;
    layer.convolution(cx, steps, activation, &[], false, [kernel, kernel], macs)
}

fn fully_connected(cx: &mut Lowering<'_>, node: &Node, activation: Activation, asymmetric: bool) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let weights = &cx.value(layer.weights).shape;
    let &[outputs, inputs] = weights.as_slice() else {
        return unsupported(format!("the weights must have two axes, not {weights:?}"));
    };
    let (in_len, out_len) = (cx.value(layer.input).elements(), cx.value(layer.output).elements());
    if in_len == 0 || outputs == 0 || !in_len.is_multiple_of(inputs) || out_len != in_len / inputs * outputs {
        return unsupported(format!("weights of shape {weights:?} do not go with input and output"));
    }
    layer.expect_channels(cx, outputs, outputs)?;
    let scales = layer.scales(cx, 0, outputs)?;
    let hybrid = layer.hybrid_part(cx, &scales, asymmetric, inputs);
    let Clamp { min, max } = clamp(activation);
    let [input, weights, output] = [layer.input, layer.weights, layer.output].map(|id| cx.tensor(id));
    let bias = layer.bias.map(|id| cx.tensor(id));
    let params = op::FullyConnectedF32 { input, weights, bias, output, min, max };
    match hybrid {
        None => cx.emit(Kernel::FullyConnectedF32, &params, &[input], &[output]),
        Some(hybrid) => {
            let params = op::FullyConnectedHybrid { layer: params, hybrid };
            cx.emit(Kernel::FullyConnectedHybrid, &params, &[input], &[hybrid.scratch, output])
        }
    }
    .macs(in_len * outputs);
    Ok(())
}

/// The operands of a layer with weights.
struct Layer {
    input: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
    output: ValueId,
}

impl Layer {
    /// Finds the operands and checks their types.
    fn of(cx: &Lowering<'_>, node: &Node) -> Result<Self, Unsupported> {
        let layer = Layer {
            input: cx.input(node, 0)?,
            weights: cx.input(node, 1)?,
            bias: cx.optional_input(node, 2),
            output: cx.output(node, 0)?,
        };
        let (input, weights, output) =
            (cx.value(layer.input), cx.value(layer.weights), cx.value(layer.output));
        if (input.dtype, output.dtype) != (DType::F32, DType::F32) {
            return unsupported(format!(
                "{} to {} is not supported; float32 to float32 is",
                input.dtype, output.dtype
            ));
        }
        let known = matches!(weights.dtype, DType::F32 | DType::F16 | DType::I8) && !weights.was_unsigned;
        if !known {
            return unsupported("with float32 activations the weights must be float32, float16 or int8");
        }
        if weights.data.is_none() {
            return unsupported("the weights must be constant");
        }
        let bias = layer.bias.map(|bias| cx.value(bias));
        if bias.is_some_and(|bias| bias.dtype != DType::F32 || bias.data.is_none()) {
            return unsupported("with float32 activations the bias must be a float32 constant");
        }
        Ok(layer)
    }

    /// The shapes of input, weights and output, all of four axes.
    fn images(&self, cx: &Lowering<'_>) -> Result<[[usize; 4]; 3], Unsupported> {
        let (input, weights, output) =
            (images(cx, self.input)?, images(cx, self.weights)?, images(cx, self.output)?);
        if input[0] != output[0] {
            return unsupported("input and output differ in the number of images");
        }
        Ok([input, weights, output])
    }

    /// Checks that weights, bias and output have as many channels.
    fn expect_channels(&self, cx: &Lowering<'_>, weights: usize, output: usize) -> Lowered {
        let bias = self.bias.map_or(output, |bias| cx.value(bias).elements());
        if weights == output && bias == output {
            return Ok(());
        }
        unsupported(format!(
            "weights for {weights} channels and {bias} biases do not go with {output} outputs"
        ))
    }

    fn hybrid(&self, cx: &Lowering<'_>) -> bool {
        cx.value(self.weights).dtype == DType::I8
    }

    /// The scales of int8 weights: one if all are equal, else one per channel. Empty for float weights.
    fn scales(&self, cx: &Lowering<'_>, axis: usize, channels: usize) -> Result<Vec<f32>, Unsupported> {
        if !self.hybrid(cx) {
            return Ok(vec![]);
        }
        let Some(quant) = &cx.value(self.weights).quant else {
            return unsupported("int8 weights need a scale");
        };
        if quant.zero_points.iter().any(|&zero_point| zero_point != 0) {
            return unsupported("int8 weights with float32 activations must have the zero point 0");
        }
        let scales = &quant.scales;
        if scales.iter().all(|scale| scale == &scales[0]) {
            return Ok(vec![scales[0]]);
        }
        if scales.len() != channels || quant.axis != axis {
            return unsupported(format!("{} scales of the weights for {channels} channels", scales.len()));
        }
        Ok(scales.clone())
    }

    /// What makes a layer with int8 weights hybrid; `len` elements are quantized at a time.
    fn hybrid_part(
        &self,
        cx: &mut Lowering<'_>,
        scales: &[f32],
        asymmetric: bool,
        len: usize,
    ) -> Option<op::Hybrid> {
        self.hybrid(cx).then(|| op::Hybrid {
            scales: cx.constant(DType::F32, &[scales.len()], scales),
            scratch: cx.scratch(DType::I8, len),
            asymmetric,
        })
    }

    /// Emits a convolution with the first kernel, or with the second for int8 weights.
    fn convolution(
        &self,
        cx: &mut Lowering<'_>,
        steps: &Window2d,
        activation: Activation,
        scales: &[f32],
        asymmetric: bool,
        [kernel, hybrid_kernel]: [Kernel; 2],
        macs: usize,
    ) -> Lowered {
        let image: usize = cx.value(self.input).shape.iter().skip(1).product();
        let hybrid = self.hybrid_part(cx, scales, asymmetric, image);
        let Clamp { min, max } = clamp(activation);
        let [input, weights, output] = [self.input, self.weights, self.output].map(|id| cx.tensor(id));
        let bias = self.bias.map(|id| cx.tensor(id));
        let params = op::ConvF32 { input, weights, bias, output, window: window(steps)?, min, max };
        match hybrid {
            None => cx.emit(kernel, &params, &[input], &[output]),
            Some(hybrid) => {
                let params = op::ConvHybrid { layer: params, hybrid };
                cx.emit(hybrid_kernel, &params, &[input], &[hybrid.scratch, output])
            }
        }
        .macs(macs);
        Ok(())
    }
}

fn pool(
    cx: &mut Lowering<'_>,
    node: &Node,
    steps: &Window2d,
    size: [usize; 2],
    activation: Activation,
    kernel: Kernel,
) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    float_to_float(cx, from, to)?;
    let ([in_batch, _, _, in_c], [out_batch, _, _, out_c]) = (images(cx, from)?, images(cx, to)?);
    if in_batch != out_batch || in_c != out_c {
        return unsupported("input and output must have the same number of images and channels");
    }
    let size = size.map(|size| size as u32);
    let Clamp { min, max } = clamp(activation);
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::PoolF32 { input, output, size, window: window(steps)?, min, max };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

pub(super) fn unary(cx: &mut Lowering<'_>, node: &Node, function: UnaryOp) -> Lowered {
    let (input, output) = in_place(cx, node)?;
    let (kernel, function) = match function {
        UnaryOp::Relu => (Kernel::UnaryF32, FunctionF32::Relu),
        UnaryOp::Relu6 => (Kernel::UnaryF32, FunctionF32::Relu6),
        UnaryOp::ReluN1To1 => (Kernel::UnaryF32, FunctionF32::ReluN1To1),
        UnaryOp::LeakyRelu { alpha } => (Kernel::UnaryF32, FunctionF32::LeakyRelu(alpha)),
        UnaryOp::HardSwish => (Kernel::UnaryF32, FunctionF32::HardSwish),
        UnaryOp::Abs => (Kernel::UnaryF32, FunctionF32::Abs),
        UnaryOp::Neg => (Kernel::UnaryF32, FunctionF32::Neg),
        UnaryOp::Square => (Kernel::UnaryF32, FunctionF32::Square),
        UnaryOp::Floor => (Kernel::UnaryF32, FunctionF32::Floor),
        UnaryOp::Ceil => (Kernel::UnaryF32, FunctionF32::Ceil),
        UnaryOp::Round => (Kernel::UnaryF32, FunctionF32::Round),
        UnaryOp::Sqrt => (Kernel::UnaryF32, FunctionF32::Sqrt),
        UnaryOp::Rsqrt => (Kernel::UnaryF32, FunctionF32::Rsqrt),
        UnaryOp::Exp => (Kernel::ExponentialF32, FunctionF32::Exp),
        UnaryOp::Log => (Kernel::ExponentialF32, FunctionF32::Log),
        UnaryOp::Logistic => (Kernel::ExponentialF32, FunctionF32::Logistic),
        UnaryOp::Tanh => (Kernel::ExponentialF32, FunctionF32::Tanh),
        UnaryOp::Elu => (Kernel::ExponentialF32, FunctionF32::Elu),
        UnaryOp::Sin => (Kernel::TrigonometricF32, FunctionF32::Sin),
        UnaryOp::Cos => (Kernel::TrigonometricF32, FunctionF32::Cos),
    };
    let params = op::UnaryF32 { input, output, function };
    cx.emit(kernel, &params, &[input], &[output]).in_place(input, output);
    Ok(())
}

pub(super) fn softmax(cx: &mut Lowering<'_>, node: &Node, beta: f32) -> Lowered {
    softmax_or_logarithm(cx, node, Some(beta))
}

pub(super) fn log_softmax(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    softmax_or_logarithm(cx, node, None)
}

fn softmax_or_logarithm(cx: &mut Lowering<'_>, node: &Node, beta: Option<f32>) -> Lowered {
    let (input, output) = in_place(cx, node)?;
    let params = op::SoftmaxF32 { input, output, beta };
    cx.emit(Kernel::SoftmaxF32, &params, &[input], &[output]).in_place(input, output);
    Ok(())
}

pub(super) fn l2_normalization(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (input, output) = in_place(cx, node)?;
    cx.emit(Kernel::L2NormF32, &op::L2NormF32 { input, output }, &[input], &[output]).in_place(input, output);
    Ok(())
}

pub(super) fn prelu(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let slopes = cx.input(node, 1)?;
    let (input, output) = in_place(cx, node)?;
    let shape = &cx.value(cx.output(node, 0)?).shape;
    let (by, alpha_shape) = (cx.value(slopes).dtype, &cx.value(slopes).shape);
    if by != DType::F32 {
        return unsupported(format!("the slopes of a float32 PReLU must be float32, not {by}"));
    }
    let pairs = shape.iter().rev().zip(alpha_shape.iter().rev());
    let repeats = alpha_shape.len() <= shape.len() && pairs.into_iter().all(|(&n, &a)| a == n || a == 1);
    if !repeats || shape.len() > 4 {
        return unsupported(format!(
            "slopes of shape {alpha_shape:?} for {shape:?}; at most four axes are supported"
        ));
    }
    let alpha = cx.tensor(slopes);
    let params = op::PreluF32 { input, alpha, output };
    cx.emit(Kernel::PreluF32, &params, &[input, alpha], &[output]).in_place(input, output);
    Ok(())
}

/// Tensors of an operator whose result has the shape of its operand.
fn in_place(cx: &mut Lowering<'_>, node: &Node) -> Result<(TensorId, TensorId), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    float_to_float(cx, from, to)?;
    if cx.value(from).shape != cx.value(to).shape {
        return unsupported("input and output must have the same shape");
    }
    if cx.value(from).shape.is_empty() && !matches!(node.op, Op::Unary(_)) {
        return unsupported("a scalar has no axis to work along");
    }
    Ok((cx.tensor(from), cx.tensor(to)))
}

fn float_to_float(cx: &Lowering<'_>, from: ValueId, to: ValueId) -> Lowered {
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (DType::F32, DType::F32) => Ok(()),
        (from, to) => unsupported(format!("{from} to {to} is not supported; float32 to float32 is")),
    }
}

/// The shape of a value of four axes, none of them empty.
fn images(cx: &Lowering<'_>, id: ValueId) -> Result<[usize; 4], Unsupported> {
    let shape = &cx.value(id).shape;
    match <[usize; 4]>::try_from(shape.as_slice()) {
        Ok(axes) if !axes.contains(&0) => Ok(axes),
        _ => unsupported(format!("a tensor of shape {shape:?} is not a batch of images")),
    }
}

fn clamp(activation: Activation) -> Clamp {
    match activation {
        Activation::None => Clamp::NONE,
        Activation::Relu => Clamp::RELU,
        Activation::Relu6 => Clamp::RELU6,
        Activation::ReluN1To1 => Clamp::RELU_N1_TO_1,
    }
}
