//! Reductions over axes.

use dunlin_artifact::{Kernel, op};

use super::Lowering;
use super::arith::quantization;
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node, ReduceOp, ValueId};
use crate::quantize::{self, quantize_multiplier};

type Lowered = Result<(), Unsupported>;

pub(super) fn reduce(cx: &mut Lowering<'_>, node: &Node, operator: ReduceOp, axes: &[usize]) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    if cx.value(from).dtype != cx.value(to).dtype {
        return unsupported("input and output must be of one type");
    }
    let shape = &cx.value(from).shape;
    if shape.contains(&0) {
        return unsupported("a reduction of an empty tensor");
    }
    let kernel = match (cx.value(from).dtype, operator) {
        (DType::I8 | DType::I16, ReduceOp::Mean | ReduceOp::Sum) => {
            return mean(cx, from, to, operator, axes);
        }
        (DType::I8, _) => Kernel::ReduceMinMaxI8,
        (DType::I16, _) => Kernel::ReduceMinMaxI16,
        (DType::F32, _) => Kernel::ReduceF32,
        (DType::I32, _) => Kernel::ReduceI32,
        (other, _) => {
            return unsupported(format!(
                "not for {other}; supported are int8, uint8, int16, int32 and float32"
            ));
        }
    };
    if cx.value(from).scale_and_zero_point() != cx.value(to).scale_and_zero_point() {
        return unsupported("input and output must have the same scale and zero point");
    }
    let op = match operator {
        ReduceOp::Mean => op::ReduceOp::Mean,
        ReduceOp::Sum => op::ReduceOp::Sum,
        ReduceOp::Max => op::ReduceOp::Maximum,
        ReduceOp::Min => op::ReduceOp::Minimum,
    };
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::Reduce { input, output, reduced: mask(axes), op };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

/// One bit for every reduced axis.
fn mask(axes: &[usize]) -> u8 {
    axes.iter().fold(0, |mask, axis| mask | 1 << axis)
}

fn mean(cx: &mut Lowering<'_>, from: ValueId, to: ValueId, operator: ReduceOp, axes: &[usize]) -> Lowered {
    let (source, target) = (quantization(cx, from)?, quantization(cx, to)?);
    let mut factor = quantize_multiplier(f64::from(source.0) / f64::from(target.0))?;
    if operator == ReduceOp::Mean {
        // The division by the number of elements, truncated, with as many bits as do not overflow.
        let count: i64 = axes.iter().map(|&axis| cx.value(from).shape[axis] as i64).product();
        let bits = (count.ilog2() as i32).min(32).min(31 + factor.shift);
        factor.multiplier = ((i64::from(factor.multiplier) << bits) / count) as i32;
        factor.shift -= bits;
    }
    let kernel = if cx.value(from).dtype == DType::I8 { Kernel::MeanI8 } else { Kernel::MeanI16 };
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::Mean {
        input,
        output,
        reduced: mask(axes),
        input_zero_point: source.1,
        output_zero_point: target.1,
        factor: quantize::factor(factor),
    };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

pub(super) fn arg_min_max(cx: &mut Lowering<'_>, node: &Node, axis: usize, maximum: bool) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let kernel = match cx.value(from).dtype {
        DType::I8 => Kernel::ArgMinMaxI8,
        DType::F32 => Kernel::ArgMinMaxF32,
        other => return unsupported(format!("not for {other}; supported are int8, uint8 and float32")),
    };
    if !matches!(cx.value(to).dtype, DType::I32 | DType::I64) {
        return unsupported(format!("indices as {}; supported are int32 and int64", cx.value(to).dtype));
    }
    let shape = &cx.value(from).shape;
    let kept: usize = shape.iter().enumerate().filter(|&(a, _)| a != axis).map(|(_, &dim)| dim).product();
    if shape.get(axis).is_none_or(|&dim| dim == 0) || kept != cx.value(to).elements() {
        return unsupported("the result's shape does not follow from the operand's");
    }
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::ArgMinMax { input, output, axis: axis as u8, maximum };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}
