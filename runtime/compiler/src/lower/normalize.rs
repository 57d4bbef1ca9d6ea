//! L2 normalization.

use dunlin_artifact::{Kernel, op};

use super::arith::quantization;
use super::softmax::same_shape;
use super::{Lowering, float};
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node};

pub(super) fn l2_normalization(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_shape(cx, from, to)?;
    let value = cx.value(from);
    match (value.dtype, cx.value(to).dtype) {
        (DType::I8, DType::I8) => {
            let (_, input_zero_point) = quantization(cx, from)?;
            let (input, output) = (cx.tensor(from), cx.tensor(to));
            let params = op::L2NormI8 { input, output, input_zero_point, unsigned: value.was_unsigned };
            cx.emit(Kernel::L2NormI8, &params, &[input], &[output]).in_place(input, output);
            Ok(())
        }
        (DType::F32, DType::F32) => float::l2_normalization(cx, node),
        (from, to) => unsupported(format!("{from} to {to} is not supported; int8 to int8 and float32 are")),
    }
}
