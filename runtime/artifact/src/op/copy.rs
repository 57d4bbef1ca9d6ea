//! Data movement and table look-up.

use serde::{Deserialize, Serialize};

use crate::{MAX_RANK, TensorId};

/// Body of [`crate::Kernel::Copy`]: `output[out_offset + i · out_strides] = input[in_offset + i · in_strides]` for
/// every index `i` below `counts`. All numbers are in elements of the tensors' type. Transpose, slice, concat,
/// split, pad, tile and their kin are all sequences of such copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Source.
    pub input: TensorId,
    /// Destination; elements that no index reaches keep their value.
    pub output: TensorId,
    /// Number of steps along each axis, outermost first.
    pub counts: [u32; MAX_RANK],
    /// First source element.
    pub in_offset: u32,
    /// Source step along each axis; negative to reverse, 0 to repeat.
    pub in_strides: [i32; MAX_RANK],
    /// First destination element.
    pub out_offset: u32,
    /// Destination step along each axis.
    pub out_strides: [i32; MAX_RANK],
}

/// Body of [`crate::Kernel::Fill`]: every element of the output becomes the first element of `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// A tensor of the output's type with at least one element.
    pub value: TensorId,
    /// Destination.
    pub output: TensorId,
}

/// Body of [`crate::Kernel::Lut8`]: `output[i] = table[input[i]]`, bytes taken as unsigned. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lut8 {
    /// 8-bit source.
    pub input: TensorId,
    /// 8-bit destination with as many elements.
    pub output: TensorId,
    /// 256 bytes.
    pub table: TensorId,
}

/// Body of [`crate::Kernel::Gather`]: rows of `input` picked by `indices` (int32). The input is seen as
/// `[batch, outer, axis, inner]`, the indices as `[batch, indices]`, the output as `[batch, outer, indices, inner]`.
/// An index outside the axis gives zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// Source.
    pub input: TensorId,
    /// int32.
    pub indices: TensorId,
    /// Destination.
    pub output: TensorId,
    /// Product of the axes that input and indices share.
    pub batch: u32,
    /// Product of the axes between those and the gathered one.
    pub outer: u32,
    /// Product of the axes behind the gathered one.
    pub inner: u32,
}
