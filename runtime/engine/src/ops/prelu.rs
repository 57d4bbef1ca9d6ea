//! PReLU on integers.

use dunlin_artifact::op;
use dunlin_kernels::prelu::{Prelu, prelu_i8, prelu_i16};

use super::factor;
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn prelu_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Prelu = decode(body)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], [alpha]) = cx.borrow([p.output], [p.alpha])?;
    Ok(prelu_i8(&parameters(&p), cast(alpha)?, cast_mut(output)?)?)
}

pub(crate) fn prelu_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Prelu = decode(body)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], [alpha]) = cx.borrow([p.output], [p.alpha])?;
    Ok(prelu_i16(&parameters(&p), cast(alpha)?, cast_mut(output)?)?)
}

fn parameters(p: &op::Prelu) -> Prelu {
    Prelu {
        shape: p.shape.map(|extent| extent as usize),
        alpha_shape: p.alpha_shape.map(|extent| extent as usize),
        input_zero_point: p.input_zero_point,
        alpha_zero_point: p.alpha_zero_point,
        output_zero_point: p.output_zero_point,
        positive: factor(p.positive),
        negative: factor(p.negative),
    }
}
