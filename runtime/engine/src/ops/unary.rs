//! Unary operators on int16.

use dunlin_artifact::op;
use dunlin_artifact::op::FunctionI16;
use dunlin_kernels::unary_i16 as kernel;

use super::factor;
use crate::RunError;
use crate::context::{Context, cast_mut, decode};

pub(crate) fn unary_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::UnaryI16 = decode(body)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    let data = cast_mut(output)?;
    Ok(match p.function {
        FunctionI16::LeakyRelu { input_zero_point, output_zero_point, positive, negative, negate } => {
            let (positive, negative) = (factor(positive), factor(negative));
            let params =
                kernel::LeakyReluI16 { input_zero_point, output_zero_point, positive, negative, negate };
            kernel::leaky_relu_i16(&params, data)
        }
        FunctionI16::Clamp { min, max } => kernel::clamp_i16(min, max, data),
        FunctionI16::Abs(scale) => kernel::abs_i16(factor(scale), data),
        FunctionI16::Rsqrt(scale) => kernel::rsqrt_i16(factor(scale), data),
    }?)
}

pub(crate) fn sigmoid_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SigmoidI16 = decode(body)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    let params = kernel::SigmoidI16 { multiplier: p.multiplier, shift: p.shift.into() };
    let apply = if p.tanh { kernel::tanh_i16 } else { kernel::logistic_i16 };
    Ok(apply(&params, cast_mut(output)?)?)
}
