//! SVDF.

use dunlin_artifact::{DType, Kernel, op};
use dunlin_kernels::conv::fold_bias;

use super::Lowering;
use super::lstm::per_tensor;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Activation, Node, StateId};
use crate::quantize::{factor, quantize_multiplier};

pub(super) fn svdf(
    cx: &mut Lowering<'_>,
    node: &Node,
    rank: usize,
    activation: Activation,
    state: StateId,
) -> Result<(), Unsupported> {
    let tensors = tensors(cx, node, rank, state)?;
    let types = [0, 1, 2].map(|at| cx.input(node, at).map(|id| cx.value(id).dtype));
    let [input, feature_weights, time_weights] = types;
    let output = cx.value(cx.output(node, 0)?).dtype;
    match (input?, feature_weights?, time_weights?, cx.graph.states[state].dtype, output) {
        (DType::F32, DType::F32, DType::F32, DType::F32, DType::F32) => float(cx, node, tensors, activation),
        (DType::I8, DType::I8, time @ (DType::I8 | DType::I16), memory, DType::I8) if time == memory => {
            quantized(cx, node, tensors, state)
        }
        _ => unsupported(
            "all tensors of an SVDF must be float32; or input, feature weights and output int8, time weights and \
             state both int8 or both int16",
        ),
    }
}

/// Checks the shapes and that what should be constant is.
fn tensors(
    cx: &mut Lowering<'_>,
    node: &Node,
    rank: usize,
    state: StateId,
) -> Result<op::SvdfTensors, Unsupported> {
    let [input, feature_weights, time_weights] = [0, 1, 2].map(|at| cx.input(node, at));
    let (input, feature_weights, time_weights) = (input?, feature_weights?, time_weights?);
    let (bias, output) = (cx.optional_input(node, 3), cx.output(node, 0)?);
    let [input_shape, feature_shape, time_shape, output_shape] =
        [input, feature_weights, time_weights, output].map(|id| &*cx.value(id).shape);
    let (&[batch, inputs], &[filters, memory], &[_, units]) = (input_shape, time_shape, output_shape) else {
        return unsupported("input, weights and output must have two axes");
    };
    let state_elements: usize = cx.graph.states[state].shape.iter().product();
    let fits = units.checked_mul(rank) == Some(filters)
        && feature_shape == [filters, inputs]
        && output_shape == [batch, units]
        && state_elements == batch * filters * memory
        && bias.is_none_or(|bias| cx.value(bias).shape == [units]);
    if !fits || [batch, inputs, filters, memory].contains(&0) {
        return unsupported("the shapes of the operands do not fit together");
    }
    if [feature_weights, time_weights].into_iter().chain(bias).any(|id| cx.value(id).data.is_none()) {
        return unsupported("the weights and the bias must be constants");
    }
    Ok(op::SvdfTensors {
        input: cx.tensor(input),
        feature_weights: cx.tensor(feature_weights),
        time_weights: cx.tensor(time_weights),
        bias: bias.map(|bias| cx.tensor(bias)),
        state: cx.state(state),
        output: cx.tensor(output),
        rank: rank as u32,
    })
}

fn float(
    cx: &mut Lowering<'_>,
    node: &Node,
    tensors: op::SvdfTensors,
    activation: Activation,
) -> Result<(), Unsupported> {
    if cx.optional_input(node, 3).is_some_and(|bias| cx.value(bias).dtype != DType::F32) {
        return unsupported("the bias of a float32 SVDF must be float32");
    }
    let (min, max) = match activation {
        Activation::None => (f32::MIN, f32::MAX),
        Activation::Relu => (0.0, f32::MAX),
        Activation::Relu6 => (0.0, 6.0),
        Activation::ReluN1To1 => (-1.0, 1.0),
    };
    let macs = macs(cx, node)?;
    let (reads, writes) = ([tensors.input], [tensors.state, tensors.output]);
    cx.emit(Kernel::SvdfF32, &op::SvdfF32 { tensors, min, max }, &reads, &writes).macs(macs);
    Ok(())
}

/// The fused activation of a quantized SVDF plays no part: TensorFlow Lite Micro ignores it.
fn quantized(
    cx: &mut Lowering<'_>,
    node: &Node,
    tensors: op::SvdfTensors,
    state: StateId,
) -> Result<(), Unsupported> {
    if cx.optional_input(node, 3).is_some_and(|bias| cx.value(bias).dtype != DType::I32) {
        return unsupported("the bias of an int8 SVDF must be int32");
    }
    let (input, output) = (cx.value(cx.input(node, 0)?), cx.value(cx.output(node, 0)?));
    let (feature, time) = (cx.value(cx.input(node, 1)?), cx.value(cx.input(node, 2)?));
    let (input_scale, input_zero_point) = per_tensor(&input.quant, "the input")?;
    let (state_scale, state_zero_point) = per_tensor(&cx.graph.states[state].quant, "the state")?;
    let (output_scale, output_zero_point) = per_tensor(&output.quant, "the output")?;
    let (feature_scale, feature_zero_point) = per_tensor(&feature.quant, "the feature weights")?;
    let (time_scale, time_zero_point) = per_tensor(&time.quant, "the time weights")?;
    if (feature_zero_point, time_zero_point) != (0, 0) {
        return unsupported("the weights of an SVDF must have the zero point 0");
    }
    let macs = macs(cx, node)?;
    let weights = feature.constant::<i8>().unwrap_or_default();
    let inputs = input.shape[1];
    let feature_bias = (input_zero_point != 0).then(|| {
        let rows = weights.chunks_exact(inputs);
        let bias: Vec<i32> = rows.map(|row| fold_bias(0, row.iter().copied(), input_zero_point, 0)).collect();
        cx.constant(DType::I32, &[bias.len()], &bias)
    });
    // In single precision, from left to right.
    let ratio = |a: f32, b: f32, result: f32| quantize_multiplier(f64::from(a * b / result)).map(factor);
    let params = op::SvdfI8 {
        tensors,
        feature_bias,
        state_zero_point,
        output_zero_point,
        feature: ratio(input_scale, feature_scale, state_scale)?,
        time: ratio(state_scale, time_scale, output_scale)?,
    };
    cx.emit(Kernel::SvdfI8, &params, &[tensors.input], &[tensors.state, tensors.output]).macs(macs);
    Ok(())
}

fn macs(cx: &Lowering<'_>, node: &Node) -> Result<usize, Unsupported> {
    let weights = [1, 2].map(|at| cx.input(node, at).map(|id| cx.value(id).elements()));
    let [feature, time] = weights;
    let batch = cx.value(cx.input(node, 0)?).shape[0];
    Ok(batch * (feature? + time?))
}
