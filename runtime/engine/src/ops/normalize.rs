//! L2 normalization on int8.

use dunlin_artifact::op;
use dunlin_kernels::normalize::{L2NormI8, l2_norm_i8};

use super::softmax::rows_and_depth;
use crate::RunError;
use crate::context::{Context, cast_mut, decode};

pub(crate) fn l2_norm_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::L2NormI8 = decode(body)?;
    let (rows, depth) = rows_and_depth(cx, p.output)?;
    let params = L2NormI8 { rows, depth, input_zero_point: p.input_zero_point, unsigned: p.unsigned };
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    Ok(l2_norm_i8(&params, cast_mut(output)?)?)
}
