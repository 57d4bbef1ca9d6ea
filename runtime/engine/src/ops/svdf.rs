//! SVDF.

use dunlin_artifact::{DType, op};
use dunlin_kernels::float::Clamp;
use dunlin_kernels::svdf::{SvdfF32, SvdfInt, SvdfShape, SvdfState, svdf_f32, svdf_i8};

use super::factor;
use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn svdf_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SvdfI8 = decode(body)?;
    match cx.tensor(p.tensors.state)?.dtype {
        DType::I8 => with_state::<i8>(cx, &p),
        DType::I16 => with_state::<i16>(cx, &p),
        _ => Err(RunError::BadTensor(p.tensors.state)),
    }
}

fn with_state<S: SvdfState + Plain>(cx: &mut Context<'_, '_>, p: &op::SvdfI8) -> Result<(), RunError> {
    let t = &p.tensors;
    let params = SvdfInt {
        shape: shape(cx, t)?,
        state_zero_point: p.state_zero_point,
        output_zero_point: p.output_zero_point,
        feature: factor(p.feature),
        time: factor(p.time),
    };
    let (feature_weights, time_weights) =
        (cx.constant(t.feature_weights)?, cx.constant::<S>(t.time_weights)?);
    let feature_bias = p.feature_bias.map(|bias| cx.constant(bias)).transpose()?;
    let bias = t.bias.map(|bias| cx.constant(bias)).transpose()?;
    let ([state, output], [input]) = cx.borrow([t.state, t.output], [t.input])?;
    let (input, state, output) = (cast(input)?, cast_mut(state)?, cast_mut(output)?);
    Ok(svdf_i8(&params, input, feature_weights, feature_bias, time_weights, bias, state, output)?)
}

pub(crate) fn svdf_float32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SvdfF32 = decode(body)?;
    let t = &p.tensors;
    let params = SvdfF32 { shape: shape(cx, t)?, clamp: Clamp { min: p.min, max: p.max } };
    let (feature_weights, time_weights) = (cx.constant(t.feature_weights)?, cx.constant(t.time_weights)?);
    let bias = t.bias.map(|bias| cx.constant(bias)).transpose()?;
    let ([state, output], [input]) = cx.borrow([t.state, t.output], [t.input])?;
    let (input, state, output) = (cast(input)?, cast_mut(state)?, cast_mut(output)?);
    Ok(svdf_f32(&params, input, feature_weights, time_weights, bias, state, output)?)
}

/// The shapes, from those of input, output and time weights; takes the multiply-accumulates from the budget.
fn shape(cx: &mut Context<'_, '_>, p: &op::SvdfTensors) -> Result<SvdfShape, RunError> {
    let &[batch, inputs] = cx.tensor(p.input)?.shape() else { return Err(RunError::BadTensor(p.input)) };
    let &[_, units] = cx.tensor(p.output)?.shape() else { return Err(RunError::BadTensor(p.output)) };
    let &[filters, memory] = cx.tensor(p.time_weights)?.shape() else {
        return Err(RunError::BadTensor(p.time_weights));
    };
    let products = u64::from(filters).saturating_mul(u64::from(inputs) + u64::from(memory));
    cx.charge(products.saturating_mul(u64::from(batch)))?;
    let [batch, inputs, units, rank, memory] =
        [batch, inputs, units, p.rank, memory].map(|size| size as usize);
    Ok(SvdfShape { batch, inputs, units, rank, memory })
}
