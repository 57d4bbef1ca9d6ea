//! Unary operators: tables for 8 bits, arithmetic for int16.

use dunlin_artifact::op::{self, FunctionI16};
use dunlin_artifact::{DType, Kernel};

use super::arith::quantization;
use super::{Lowering, float, movement};
use crate::error::{Unsupported, unsupported};
use crate::graph::{Node, UnaryOp, ValueId};
use crate::lut::{self, Quantized8, Table};
use crate::quantize::{
    SigmoidFunction, factor, leaky_relu_factors, rectifier_factor, relu6_range_i16, rsqrt_factor,
    sigmoid_scaling_i16,
};

pub(super) fn unary(cx: &mut Lowering<'_>, node: &Node, op: UnaryOp) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    if cx.value(from).elements() != cx.value(to).elements() {
        return unsupported("input and output must have equally many elements");
    }
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (DType::I8, DType::I8) => {
            let (input, output) = (quantized8(cx, from)?, quantized8(cx, to)?);
            let table = table(op, cx.value(from).was_unsigned, input, output)?;
            look_up(cx, node, from, to, &table)
        }
        (DType::I16, DType::I16) => unary_i16(cx, from, to, op),
        (DType::F32, DType::F32) => float::unary(cx, node, op),
        (from, to) => {
            unsupported(format!("{from} to {to} is not supported; int8, int16 and float32 to the same are"))
        }
    }
}

/// The table of an operator on 8 bits.
fn table(op: UnaryOp, unsigned: bool, input: Quantized8, output: Quantized8) -> Result<Table, Unsupported> {
    Ok(match op {
        UnaryOp::HardSwish => lut::hard_swish(input, output)?,
        UnaryOp::LeakyRelu { alpha } => lut::leaky_relu(input, output, alpha)?,
        UnaryOp::Logistic => lut::logistic(input, output)?,
        UnaryOp::Relu => lut::relu(input, output)?,
        UnaryOp::Relu6 => lut::relu6(input, output)?,
        UnaryOp::ReluN1To1 => lut::relu_n1_to_1(input, output)?,
        UnaryOp::Tanh => lut::tanh(input, output)?,
        UnaryOp::Abs if !unsigned => lut::abs(input, output)?,
        UnaryOp::Elu if !unsigned => lut::elu(input, output)?,
        UnaryOp::Rsqrt if !unsigned => lut::rsqrt(input, output)?,
        _ => {
            let name = if unsigned { "uint8" } else { "int8" };
            return unsupported(format!("the reference has no {name} kernel; float32 is supported"));
        }
    })
}

/// A change of scale or type between 8-bit values.
pub(super) fn requantize_lut(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let table = lut::requantize(quantized8(cx, from)?, quantized8(cx, to)?)?;
    look_up(cx, node, from, to, &table)
}

fn quantized8(cx: &Lowering<'_>, id: ValueId) -> Result<Quantized8, Unsupported> {
    quantization(cx, id)?;
    Quantized8::of(cx.value(id)).ok_or_else(|| Unsupported::new("not an 8-bit tensor"))
}

fn look_up(
    cx: &mut Lowering<'_>,
    node: &Node,
    from: ValueId,
    to: ValueId,
    table: &Table,
) -> Result<(), Unsupported> {
    let identity = table.iter().enumerate().all(|(byte, &value)| byte == usize::from(value));
    if identity && cx.value(from).dtype == cx.value(to).dtype {
        return movement::reshape(cx, node);
    }
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let table = cx.constant(DType::U8, &[table.len()], table);
    cx.emit(Kernel::Lut8, &op::Lut8 { input, output, table }, &[input], &[output]).in_place(input, output);
    Ok(())
}

fn unary_i16(cx: &mut Lowering<'_>, from: ValueId, to: ValueId, op: UnaryOp) -> Result<(), Unsupported> {
    let (input_scale, input_zero_point) = quantization(cx, from)?;
    let (output_scale, output_zero_point) = quantization(cx, to)?;
    let symmetric = input_zero_point == 0 && output_zero_point == 0;
    if !symmetric && !matches!(op, UnaryOp::LeakyRelu { .. } | UnaryOp::Relu6) {
        return unsupported("int16 needs zero points of 0");
    }
    let leaky_relu = |alpha: f32| {
        let (positive, negative, negate) = leaky_relu_factors(DType::I16, alpha, input_scale, output_scale)?;
        let (positive, negative) = (factor(positive), factor(negative));
        Ok::<_, Unsupported>(FunctionI16::LeakyRelu {
            input_zero_point,
            output_zero_point,
            positive,
            negative,
            negate,
        })
    };
    let function = match op {
        UnaryOp::Logistic => return sigmoid(cx, from, to, SigmoidFunction::Logistic),
        UnaryOp::Tanh => return sigmoid(cx, from, to, SigmoidFunction::Tanh),
        UnaryOp::Relu => leaky_relu(0.0)?,
        UnaryOp::LeakyRelu { alpha } => leaky_relu(alpha)?,
        UnaryOp::Relu6 => {
            let (min, max) = relu6_range_i16(input_scale, input_zero_point)?;
            FunctionI16::Clamp { min, max }
        }
        UnaryOp::Abs => FunctionI16::Abs(factor(rectifier_factor(DType::I16, input_scale, output_scale)?)),
        UnaryOp::Rsqrt => FunctionI16::Rsqrt(factor(rsqrt_factor(input_scale, output_scale)?)),
        _ => return unsupported("the reference has no int16 kernel; float32 is supported"),
    };
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    cx.emit(Kernel::UnaryI16, &op::UnaryI16 { input, output, function }, &[input], &[output])
        .in_place(input, output);
    Ok(())
}

fn sigmoid(
    cx: &mut Lowering<'_>,
    from: ValueId,
    to: ValueId,
    function: SigmoidFunction,
) -> Result<(), Unsupported> {
    let (input_scale, _) = quantization(cx, from)?;
    let (output_scale, _) = quantization(cx, to)?;
    let scaling = sigmoid_scaling_i16(function, input_scale, output_scale)?;
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::SigmoidI16 {
        input,
        output,
        tanh: function == SigmoidFunction::Tanh,
        multiplier: scaling.multiplier,
        shift: scaling.shift as u8,
    };
    cx.emit(Kernel::SigmoidI16, &params, &[input], &[output]).in_place(input, output);
    Ok(())
}
