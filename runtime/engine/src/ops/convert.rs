//! Changes of scale and of element type.

use dunlin_artifact::{DType, op};
use dunlin_kernels::convert::{self as kernel, Affine, Requantize, Values, ValuesMut};

use super::factor;
use crate::RunError;
use crate::context::{Context, cast, cast_mut, decode};

pub(crate) fn quantize(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Quantize = decode(body)?;
    let params = Affine { scale: p.scale, zero_point: p.zero_point };
    let output_type = cx.tensor(p.output)?.dtype;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::quantize(&params, cast(input)?, values_mut(output_type, output)?)?)
}

pub(crate) fn dequantize(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Quantize = decode(body)?;
    let params = Affine { scale: p.scale, zero_point: p.zero_point };
    let input_type = cx.tensor(p.input)?.dtype;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::dequantize(&params, values(input_type, input)?, cast_mut(output)?)?)
}

pub(crate) fn requantize(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Requantize = decode(body)?;
    let params = Requantize {
        factor: factor(p.factor),
        input_zero_point: p.input_zero_point,
        output_zero_point: p.output_zero_point,
    };
    let (input_type, output_type) = (cx.tensor(p.input)?.dtype, cx.tensor(p.output)?.dtype);
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::requantize(&params, values(input_type, input)?, values_mut(output_type, output)?)?)
}

pub(crate) fn cast_elements(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Cast = decode(body)?;
    let (input_type, output_type) = (cx.tensor(p.input)?.dtype, cx.tensor(p.output)?.dtype);
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::cast(values(input_type, input)?, values_mut(output_type, output)?)?)
}

fn values(dtype: DType, bytes: &[u8]) -> Result<Values<'_>, RunError> {
    Ok(match dtype {
        DType::I8 => Values::I8(cast(bytes)?),
        DType::U8 => Values::U8(bytes),
        DType::I16 => Values::I16(cast(bytes)?),
        DType::I32 => Values::I32(cast(bytes)?),
        DType::U32 => Values::U32(cast(bytes)?),
        DType::I64 => Values::I64(cast(bytes)?),
        DType::F32 => Values::F32(cast(bytes)?),
        DType::Bool => Values::Bool(bytes),
        DType::F16 | DType::U64 => return Err(RunError::BadInstruction),
    })
}

fn values_mut(dtype: DType, bytes: &mut [u8]) -> Result<ValuesMut<'_>, RunError> {
    Ok(match dtype {
        DType::I8 => ValuesMut::I8(cast_mut(bytes)?),
        DType::U8 => ValuesMut::U8(bytes),
        DType::I16 => ValuesMut::I16(cast_mut(bytes)?),
        DType::I32 => ValuesMut::I32(cast_mut(bytes)?),
        DType::U32 => ValuesMut::U32(cast_mut(bytes)?),
        DType::I64 => ValuesMut::I64(cast_mut(bytes)?),
        DType::F32 => ValuesMut::F32(cast_mut(bytes)?),
        DType::Bool => ValuesMut::Bool(bytes),
        DType::F16 | DType::U64 => return Err(RunError::BadInstruction),
    })
}
