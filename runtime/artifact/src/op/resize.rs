//! Image resizing. Input and output are `[batch, rows, columns, channels]`.

use serde::{Deserialize, Serialize};

use crate::TensorId;

/// Body of [`crate::Kernel::ResizeBilinearI8`] with scales in units of 2^-10 as `i32`, and of
/// [`crate::Kernel::ResizeBilinearF32`] and [`crate::Kernel::ResizeBilinearU8`] with scales as `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeBilinear<T> {
    /// Source.
    pub input: TensorId,
    /// Result, of the input's type.
    pub output: TensorId,
    /// Input rows per output row.
    pub scale_h: T,
    /// Input columns per output column.
    pub scale_w: T,
    /// Whether a pixel's position is that of its centre rather than of its corner.
    pub half_pixel_centers: bool,
}

/// Body of [`crate::Kernel::ResizeNearest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeNearest {
    /// Source.
    pub input: TensorId,
    /// Result, of the input's type.
    pub output: TensorId,
    /// Which input row each output row shows: unsigned 16-bit numbers in a tensor of 16-bit elements.
    pub rows: TensorId,
    /// Which input column each output column shows.
    pub columns: TensorId,
}
