//! Changes of scale and of element type.

use dunlin_artifact::{Kernel, op};

use super::arith::quantization;
use super::{Lowering, unary};
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node};
use crate::quantize::{factor, quantize_multiplier};

type Lowered = Result<(), Unsupported>;

pub(super) fn quantize(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_size(cx, node)?;
    let bytes = |dtype| matches!(dtype, DType::I8 | DType::U8);
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (source, target) if bytes(source) && bytes(target) => unary::requantize_lut(cx, node),
        (DType::F32, DType::I8 | DType::U8 | DType::I16) => {
            let (scale, zero_point) = quantization(cx, to)?;
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            let params = op::Quantize { input, output, scale, zero_point };
            cx.emit(Kernel::Quantize, &params, &[input], &[output]);
            Ok(())
        }
        (DType::I8, DType::I16 | DType::I32)
        | (DType::I16, DType::I8 | DType::I16 | DType::I32)
        | (DType::I32, DType::I8 | DType::I16) => {
            let (source, target) = (quantization(cx, from)?, quantization(cx, to)?);
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            let params = op::Requantize {
                input,
                output,
                factor: factor(quantize_multiplier(f64::from(source.0) / f64::from(target.0))?),
                input_zero_point: source.1,
                output_zero_point: target.1,
            };
            cx.emit(Kernel::Requantize, &params, &[input], &[output]);
            Ok(())
        }
        (source, target) => unsupported(format!(
            "not from {source} to {target}; supported are float32 to int8, uint8 and int16, all pairs of int8 and \
             uint8, int8 to int16 and int32, int16 to int8, int16 and int32, and int32 to int8 and int16"
        )),
    }
}

pub(super) fn dequantize(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_size(cx, node)?;
    match (cx.value(from).dtype, cx.value(to).dtype) {
        (DType::I8 | DType::U8 | DType::I16, DType::F32) => {
            let (scale, zero_point) = quantization(cx, from)?;
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            let params = op::Quantize { input, output, scale, zero_point };
            cx.emit(Kernel::Dequantize, &params, &[input], &[output]);
            Ok(())
        }
        (DType::F16, _) => unsupported("float16 is supported for constants only"),
        (source, target) => unsupported(format!(
            "not from {source} to {target}; supported are int8, uint8, int16 and constant float16 to float32"
        )),
    }
}

pub(super) fn cast(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_size(cx, node)?;
    let (source, target) = (cx.value(from).dtype, cx.value(to).dtype);
    if [source, target].iter().any(|dtype| matches!(dtype, DType::F16 | DType::U64)) {
        return unsupported(format!(
            "not from {source} to {target}; supported are int8, uint8, int16, int32, uint32, int64, float32 and bool"
        ));
    }
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    cx.emit(Kernel::Cast, &op::Cast { input, output }, &[input], &[output]);
    Ok(())
}

fn same_size(cx: &Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.value(cx.input(node, 0)?), cx.value(cx.output(node, 0)?));
    if from.elements() != to.elements() {
        return unsupported("input and output must have as many elements");
    }
    Ok(())
}
