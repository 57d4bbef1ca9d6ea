//! Element-wise binary operators.

use dunlin_artifact::{Kernel, TensorId, op};

use super::Lowering;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Activation, BinaryOp, DType, Node, ValueId};
use crate::quantize::{
    activation_bounds, activation_range, check_scale, factor, quantize_multiplier,
    quantize_multiplier_below_one,
};

type Lowered = Result<(), Unsupported>;

pub(super) fn binary(
    cx: &mut Lowering<'_>,
    node: &Node,
    operator: BinaryOp,
    activation: Activation,
) -> Lowered {
    let operands = Operands::new(cx, node, operator)?;
    match cx.value(operands.to).dtype {
        DType::I8 | DType::I16 => match operator {
            BinaryOp::Add | BinaryOp::Sub => add(cx, &operands, operator, activation),
            BinaryOp::SquaredDifference => squared_difference(cx, &operands, activation),
            BinaryOp::Mul | BinaryOp::Div => mul(cx, &operands, operator, activation),
            BinaryOp::Minimum | BinaryOp::Maximum => min_max(cx, &operands, operator, activation),
        },
        DType::F32 => arith_f32(cx, &operands, operator, activation),
        DType::I32 => arith_i32(cx, &operands, operator, activation),
        DType::I64 => arith_i64(cx, &operands, operator, activation),
        other => unsupported(format!(
            "not for {other}; supported are int8, uint8, int16, int32, int64 and float32"
        )),
    }
}

/// The operands in the order in which the kernel gets them.
struct Operands {
    a: ValueId,
    b: ValueId,
    to: ValueId,
}

impl Operands {
    /// Checks types and shapes. Swaps the operands of a commutative operator when the result can take over the
    /// memory of the second one only.
    fn new(cx: &Lowering<'_>, node: &Node, operator: BinaryOp) -> Result<Self, Unsupported> {
        let (a, b, to) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
        let (left, right, result) = (cx.value(a), cx.value(b), cx.value(to));
        if left.dtype != right.dtype || left.dtype != result.dtype {
            return unsupported("operands and result must be of one type");
        }
        if broadcast(&left.shape, &right.shape).is_none_or(|shape| !same_shape(&shape, &result.shape)) {
            return unsupported("the operands' shapes do not broadcast to the result's");
        }
        // The smaller and the larger of floats depend on the order if one is not a number.
        let commutative = match operator {
            BinaryOp::Add | BinaryOp::Mul | BinaryOp::SquaredDifference => true,
            BinaryOp::Minimum | BinaryOp::Maximum => result.dtype != DType::F32,
            BinaryOp::Sub | BinaryOp::Div => false,
        };
        let swap = commutative && !reusable(cx, a, to) && reusable(cx, b, to);
        Ok(if swap { Operands { a: b, b: a, to } } else { Operands { a, b, to } })
    }

    /// Appends the instruction.
    fn emit<P: serde::Serialize>(
        &self,
        cx: &mut Lowering<'_>,
        kernel: Kernel,
        params: impl FnOnce([TensorId; 3]) -> P,
    ) {
        let (a, b, output) = (cx.tensor(self.a), cx.tensor(self.b), cx.tensor(self.to));
        let whole = cx.value(self.a).elements() == cx.value(self.to).elements();
        let step = cx.emit(kernel, &params([a, b, output]), &[a, b], &[output]);
        if whole {
            step.in_place(a, output);
        }
    }
}

/// Whether a result may be written over an operand: it is as large, computed, and not needed afterwards.
fn reusable(cx: &Lowering<'_>, operand: ValueId, result: ValueId) -> bool {
    cx.value(operand).elements() == cx.value(result).elements()
        && cx.value(operand).data.is_none()
        && !cx.graph.is_output(operand)
        && cx.graph.consumers(operand).all(|consumer| consumer <= cx.position())
}

/// The shape of the result by NumPy's rules, aligned at the last axis.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (a, b) if a == b => Some(a),
            (1, other) | (other, 1) => Some(other),
            _ => None,
        })
        .collect()
}

/// Whether two shapes differ in leading ones at most.
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    broadcast(a, b).is_some() && a.iter().product::<usize>() == b.iter().product::<usize>()
}

/// Scale and zero point of a per-tensor quantized value.
pub(super) fn quantization(cx: &Lowering<'_>, id: ValueId) -> Result<(f32, i32), Unsupported> {
    let value = cx.value(id);
    match value.scale_and_zero_point() {
        Some((scale, zero_point)) => {
            check_scale(scale)?;
            Ok((scale, zero_point))
        }
        None if value.quant.is_some() => unsupported("quantized per channel; only weights may be"),
        None => unsupported(format!("{} without a scale and a zero point", value.dtype)),
    }
}

fn add(cx: &mut Lowering<'_>, operands: &Operands, operator: BinaryOp, activation: Activation) -> Lowered {
    let (a, b) = (quantization(cx, operands.a)?, quantization(cx, operands.b)?);
    let output = quantization(cx, operands.to)?;
    let result = cx.value(operands.to);
    let (left_shift, kernel) =
        if result.dtype == DType::I8 { (20, Kernel::AddI8) } else { (15, Kernel::AddI16) };
    let subtract = operator == BinaryOp::Sub;
    let twice = 2.0 * f64::from(a.0.max(b.0));
    let shifted = f64::from(1u32 << left_shift) * f64::from(output.0);
    let (min, max) = activation_range(activation, result.dtype, output.0, output.1)?;
    // The kernels of TensorFlow Lite shift the sum to the right only.
    let factors =
        [below_one(f64::from(a.0) / twice)?, below_one(f64::from(b.0) / twice)?, below_one(twice / shifted)?];
    let params = common_scale(factors, [a.1, b.1, output.1], left_shift, [min, max]);
    operands.emit(cx, kernel, |[a, b, output]| op::Add { a, b, output, subtract, ..params });
    Ok(())
}

fn squared_difference(cx: &mut Lowering<'_>, operands: &Operands, activation: Activation) -> Lowered {
    no_activation(activation)?;
    let (a, b) = (quantization(cx, operands.a)?, quantization(cx, operands.b)?);
    let output = quantization(cx, operands.to)?;
    let dtype = cx.value(operands.to).dtype;
    let (left_shift, kernel) = match dtype {
        DType::I8 => (7, Kernel::SquaredDifferenceI8),
        _ => (0, Kernel::SquaredDifferenceI16),
    };
    if dtype == DType::I16 {
        symmetric([a, b, output])?;
    }
    let twice = 2.0 * f64::from(a.0.max(b.0));
    let shifted = f64::from(1u32 << (2 * left_shift)) * f64::from(output.0);
    let factors = [
        below_one(f64::from(a.0) / twice)?,
        below_one(f64::from(b.0) / twice)?,
        factor(quantize_multiplier(twice * twice / shifted)?),
    ];
    let (min, max) = activation_range(Activation::None, dtype, output.0, output.1)?;
    let params = common_scale(factors, [a.1, b.1, output.1], left_shift, [min, max]);
    operands.emit(cx, kernel, |[a, b, output]| op::Add { a, b, output, ..params });
    Ok(())
}

fn below_one(real: f64) -> Result<op::Factor, Unsupported> {
    Ok(factor(quantize_multiplier_below_one(real)?))
}

/// Parameters of the operators that bring both operands to one scale, still without tensors.
fn common_scale(
    [a_factor, b_factor, output_factor]: [op::Factor; 3],
    [a_zero_point, b_zero_point, output_zero_point]: [i32; 3],
    left_shift: u8,
    [min, max]: [i32; 2],
) -> op::Add {
    op::Add {
        a: 0,
        b: 0,
        output: 0,
        left_shift,
        subtract: false,
        a_zero_point,
        b_zero_point,
        output_zero_point,
        a_factor,
        b_factor,
        output_factor,
        min,
        max,
    }
}

fn mul(cx: &mut Lowering<'_>, operands: &Operands, operator: BinaryOp, activation: Activation) -> Lowered {
    let (a, b) = (quantization(cx, operands.a)?, quantization(cx, operands.b)?);
    let output = quantization(cx, operands.to)?;
    let result = cx.value(operands.to);
    let kernel = match (operator, result.dtype) {
        (BinaryOp::Mul, DType::I8) => Kernel::MulI8,
        (BinaryOp::Mul, _) => Kernel::MulI16,
        (_, DType::I8) => Kernel::DivI8,
        _ => return unsupported("division is not for int16; supported are int8, int32 and float32"),
    };
    if result.dtype == DType::I16 {
        symmetric([a, b, output])?;
    }
    let real = match operator {
        // The uint8 kernels are TensorFlow Lite's, which compute in single precision.
        BinaryOp::Mul if result.was_unsigned => f64::from(a.0 * b.0 / output.0),
        BinaryOp::Mul => f64::from(a.0) * f64::from(b.0) / f64::from(output.0),
        _ if result.was_unsigned => f64::from(a.0 / (b.0 * output.0)),
        _ => f64::from(a.0) / (f64::from(b.0) * f64::from(output.0)),
    };
    let factor = factor(quantize_multiplier(real)?);
    let (min, max) = activation_range(activation, result.dtype, output.0, output.1)?;
    let (a_zero_point, b_zero_point, output_zero_point) = (a.1, b.1, output.1);
    operands.emit(cx, kernel, |[a, b, output]| op::Mul {
        a,
        b,
        output,
        a_zero_point,
        b_zero_point,
        output_zero_point,
        factor,
        min,
        max,
    });
    Ok(())
}

fn symmetric(quantizations: [(f32, i32); 3]) -> Lowered {
    match quantizations.iter().find(|(_, zero_point)| *zero_point != 0) {
        Some((_, zero_point)) => unsupported(format!("int16 needs a zero point of 0, not {zero_point}")),
        None => Ok(()),
    }
}

fn min_max(
    cx: &mut Lowering<'_>,
    operands: &Operands,
    operator: BinaryOp,
    activation: Activation,
) -> Lowered {
    no_activation(activation)?;
    let of = |id: ValueId| cx.value(id).scale_and_zero_point();
    if of(operands.a) != of(operands.to) || of(operands.b) != of(operands.to) {
        return unsupported("operands and result must have the same scale and zero point");
    }
    let kernel = if cx.value(operands.to).dtype == DType::I8 { Kernel::MinMaxI8 } else { Kernel::MinMaxI16 };
    let maximum = operator == BinaryOp::Maximum;
    operands.emit(cx, kernel, |[a, b, output]| op::MinMax { a, b, output, maximum });
    Ok(())
}

fn arith_f32(
    cx: &mut Lowering<'_>,
    operands: &Operands,
    operator: BinaryOp,
    activation: Activation,
) -> Lowered {
    let (min, max) = match operator {
        // TensorFlow Lite bounds these four always: an overflow gives the largest number, not infinity.
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
            let (min, max) = activation_bounds(activation);
            (min.max(f32::MIN), max.min(f32::MAX))
        }
        _ => {
            no_activation(activation)?;
            (f32::NEG_INFINITY, f32::INFINITY)
        }
    };
    let op = arith_op(operator);
    operands.emit(cx, Kernel::ArithF32, |[a, b, output]| op::Arith { a, b, output, op, min, max });
    Ok(())
}

fn arith_i32(
    cx: &mut Lowering<'_>,
    operands: &Operands,
    operator: BinaryOp,
    activation: Activation,
) -> Lowered {
    let quantized = [operands.a, operands.b, operands.to].iter().any(|&id| cx.value(id).quant.is_some());
    if quantized && matches!(operator, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Div) {
        return unsupported("quantized int32 is not supported; plain int32 is");
    }
    let (min, max) = match operator {
        BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => integer_bounds(activation),
        // TensorFlow Lite Micro ignores the activation of an addition, TensorFlow Lite does not.
        _ => {
            no_activation(activation)?;
            (i32::MIN, i32::MAX)
        }
    };
    let op = arith_op(operator);
    operands.emit(cx, Kernel::ArithI32, |[a, b, output]| op::Arith { a, b, output, op, min, max });
    Ok(())
}

fn arith_i64(
    cx: &mut Lowering<'_>,
    operands: &Operands,
    operator: BinaryOp,
    activation: Activation,
) -> Lowered {
    no_activation(activation)?;
    if matches!(operator, BinaryOp::Div | BinaryOp::SquaredDifference) {
        return unsupported("not for int64; supported are int8, int32 and float32");
    }
    let op = arith_op(operator);
    let (min, max) = (i64::MIN, i64::MAX);
    operands.emit(cx, Kernel::ArithI64, |[a, b, output]| op::Arith { a, b, output, op, min, max });
    Ok(())
}

/// The bounds of an activation on plain integers.
fn integer_bounds(activation: Activation) -> (i32, i32) {
    // The casts saturate.
    let (min, max) = activation_bounds(activation);
    (min as i32, max as i32)
}

fn no_activation(activation: Activation) -> Lowered {
    match activation {
        Activation::None => Ok(()),
        _ => unsupported("a fused activation is not supported for this operator and type"),
    }
}

fn arith_op(operator: BinaryOp) -> op::ArithOp {
    match operator {
        BinaryOp::Add => op::ArithOp::Add,
        BinaryOp::Sub => op::ArithOp::Sub,
        BinaryOp::Mul => op::ArithOp::Mul,
        BinaryOp::Div => op::ArithOp::Div,
        BinaryOp::Minimum => op::ArithOp::Minimum,
        BinaryOp::Maximum => op::ArithOp::Maximum,
        BinaryOp::SquaredDifference => op::ArithOp::SquaredDifference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_last_axis() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(broadcast(&[], &[4, 1]), Some(vec![4, 1]));
        assert_eq!(broadcast(&[2, 3], &[2]), None);
        assert_eq!(broadcast(&[0, 3], &[1]), Some(vec![0, 3]));
        assert!(same_shape(&[1, 1, 3], &[3]));
        assert!(!same_shape(&[2, 3], &[3]));
        assert!(!same_shape(&[3, 2], &[2, 3]));
    }

    #[test]
    fn activations_of_plain_integers() {
        assert_eq!(integer_bounds(Activation::None), (i32::MIN, i32::MAX));
        assert_eq!(integer_bounds(Activation::Relu), (0, i32::MAX));
        assert_eq!(integer_bounds(Activation::Relu6), (0, 6));
        assert_eq!(integer_bounds(Activation::ReluN1To1), (-1, 1));
    }
}
