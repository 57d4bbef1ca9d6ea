//! SVDF.

use dunlin_artifact::{DType, op};
use dunlin_kernels::float::Clamp;
use dunlin_kernels::svdf::{SvdfF32, SvdfInt, SvdfShape, svdf_f32, svdf_i8, svdf_i8_state16};

use super::factor;
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn svdf_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SvdfI8 = decode(body)?;
    let t = &p.tensors;
    let wide = match cx.tensor(t.state)?.dtype {
        DType::I8 => false,
        DType::I16 => true,
        _ => return Err(RunError::BadTensor(t.state)),
    };
    let params = SvdfInt {
        shape: shape(cx, t)?,
        state_zero_point: p.state_zero_point,
        output_zero_point: p.output_zero_point,
        feature: factor(p.feature),
        time: factor(p.time),
    };
    let features = cx.constant(t.feature_weights)?;
    let feature_bias = p.feature_bias.map(|bias| cx.constant(bias)).transpose()?;
    let bias = t.bias.map(|bias| cx.constant(bias)).transpose()?;
    if wide {
        let times = cx.constant(t.time_weights)?;
        let ([state, output], [input]) = cx.borrow([t.state, t.output], [t.input])?;
        let (input, state, output) = (cast(input)?, cast_mut(state)?, cast_mut(output)?);
        return Ok(svdf_i8_state16(&params, input, features, feature_bias, times, bias, state, output)?);
    }
    let times = cx.constant(t.time_weights)?;
    let ([state, output], [input]) = cx.borrow([t.state, t.output], [t.input])?;
    let (input, state, output) = (cast(input)?, cast_mut(state)?, cast_mut(output)?);
    Ok(svdf_i8(&params, input, features, feature_bias, times, bias, state, output)?)
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
