//! Data movement and table look-up.

use dunlin_artifact::op;
use dunlin_kernels::copy as kernel;

use crate::RunError;
use crate::context::{Context, cast, decode};

pub(crate) fn copy(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Copy = decode(body)?;
    let (input_type, output_type) = (cx.tensor(p.input)?.dtype, cx.tensor(p.output)?.dtype);
    if input_type.size() != output_type.size() {
        return Err(RunError::BadTensor(p.output));
    }
    let geometry = kernel::StridedCopy {
        element: output_type.size(),
        counts: p.counts,
        in_offset: p.in_offset,
        in_strides: p.in_strides,
        out_offset: p.out_offset,
        out_strides: p.out_strides,
    };
    cx.charge(geometry.elements())?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::strided_copy(&geometry, input, output)?)
}

pub(crate) fn fill(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Fill = decode(body)?;
    let element = cx.tensor(p.output)?.dtype.size();
    let ([output], [value]) = cx.borrow([p.output], [p.value])?;
    Ok(kernel::fill(value.get(..element).ok_or(RunError::BadTensor(p.value))?, output)?)
}

pub(crate) fn lut8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Lut8 = decode(body)?;
    let table = cx.constant(p.table)?.first_chunk().ok_or(RunError::BadTensor(p.table))?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    kernel::lut8(table, output);
    Ok(())
}

pub(crate) fn gather(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::Gather = decode(body)?;
    let element = cx.tensor(p.output)?.dtype.size();
    let ([output], [input, indices]) = cx.borrow([p.output], [p.input, p.indices])?;
    let geometry =
        kernel::Gather { element, batch: p.batch as usize, outer: p.outer as usize, inner: p.inner as usize };
    Ok(kernel::gather(&geometry, input, cast(indices)?, output)?)
}
