//! Softmax and log-softmax.

use dunlin_artifact::{Kernel, op};

use super::arith::quantization;
use super::{Lowering, float};
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node, ValueId};
use crate::quantize::{factor, log_softmax_scaling, softmax_scaling, softmax_scaling_i16};

pub(super) fn softmax(cx: &mut Lowering<'_>, node: &Node, beta: f32) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_shape(cx, from, to)?;
    let unsigned = cx.value(from).was_unsigned;
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (DType::I8, DType::I8) => {
            // The reference for uint8 does not look at the output's quantization.
            if !unsigned {
                output_quantization(cx, to, 1.0 / 256.0, 0.0, -128)?;
            }
            let params = parameters(cx, from, to, beta)?;
            cx.emit(Kernel::SoftmaxI8, &params, &[params.input], &[params.output])
                .in_place(params.input, params.output);
        }
        (DType::I8, DType::I16) => {
            if !unsigned {
                output_quantization(cx, to, 1.0 / 65536.0, 1e-3, -32768)?;
            }
            let params = parameters(cx, from, to, beta)?;
            cx.emit(Kernel::SoftmaxI8I16, &params, &[params.input], &[params.output]);
        }
        (DType::I16, DType::I16) => {
            let (scale, zero_point) = quantization(cx, from)?;
            if zero_point != 0 {
                return unsupported(format!("int16 needs an input zero point of 0, not {zero_point}"));
            }
            output_quantization(cx, to, 1.0 / 32768.0, 1e-3, 0)?;
            let factor = factor(softmax_scaling_i16(beta, scale)?);
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            cx.emit(Kernel::SoftmaxI16, &op::SoftmaxI16 { input, output, factor }, &[input], &[output])
                .in_place(input, output);
        }
        (DType::F32, DType::F32) => return float::softmax(cx, node, beta),
        (from, to) => {
            return unsupported(format!(
                "{from} to {to} is not supported; int8 to int8 or int16, int16 and float32 are"
            ));
        }
    }
    Ok(())
}

fn parameters(
    cx: &mut Lowering<'_>,
    from: ValueId,
    to: ValueId,
    beta: f32,
) -> Result<op::SoftmaxI8, Unsupported> {
    let scaling = softmax_scaling(beta, quantization(cx, from)?.0)?;
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    Ok(op::SoftmaxI8 { input, output, factor: factor(scaling.multiplier), diff_min: scaling.diff_min })
}

pub(super) fn log_softmax(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_shape(cx, from, to)?;
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (DType::I8, DType::I8) => {
            output_quantization(cx, to, 1.0 / 16.0, 0.0, 127)?;
            let (scaling, inverse) = log_softmax_scaling(quantization(cx, from)?.0)?;
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            let params = op::LogSoftmaxI8 {
                input,
                output,
                factor: factor(scaling.multiplier),
                inverse: factor(inverse),
                diff_min: scaling.diff_min,
            };
            cx.emit(Kernel::LogSoftmaxI8, &params, &[input], &[output]).in_place(input, output);
            Ok(())
        }
        (DType::F32, DType::F32) => float::log_softmax(cx, node),
        (from, to) => unsupported(format!("{from} to {to} is not supported; int8 to int8 and float32 are")),
    }
}

/// Checks the quantization that an operator prescribes for its output; `tolerance` is relative.
fn output_quantization(
    cx: &Lowering<'_>,
    to: ValueId,
    scale: f32,
    tolerance: f32,
    zero_point: i32,
) -> Result<(), Unsupported> {
    let found = quantization(cx, to)?;
    if (found.0 - scale).abs() <= tolerance * scale && found.1 == zero_point {
        Ok(())
    } else {
        let (found_scale, found_zero_point) = found;
        unsupported(format!(
            "the output must have scale {scale} and zero point {zero_point}, \
             but has {found_scale} and {found_zero_point}"
        ))
    }
}

/// Checks that input and output have the same shape with at least one axis.
pub(super) fn same_shape(cx: &Lowering<'_>, from: ValueId, to: ValueId) -> Result<(), Unsupported> {
    let (from, to) = (cx.value(from), cx.value(to));
    if from.shape != to.shape || from.shape.is_empty() {
        return unsupported(format!(
            "input and output must have the same shape of at least one axis, but are {} and {}",
            from.describe(),
            to.describe()
        ));
    }
    Ok(())
}
