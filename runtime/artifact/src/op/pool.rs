//! Integer pooling.

use serde::{Deserialize, Serialize};

use super::Window2d;
use crate::TensorId;

/// Body of [`crate::Kernel::AveragePoolI8`], [`crate::Kernel::AveragePoolI16`], [`crate::Kernel::MaxPoolI8`] and
/// [`crate::Kernel::MaxPoolI16`]. Input and output have the same scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInt {
    /// `[batch, rows, columns, channels]`.
    pub input: TensorId,
    /// `[batch, rows, columns, channels]`.
    pub output: TensorId,
    /// Rows and columns of the window.
    pub size: [u32; 2],
    /// The steps of the window; dilations are 1.
    pub window: Window2d,
    /// Averages round half away from minus this number: 128 for values that were uint8, otherwise 0.
    pub offset: i16,
    /// Smallest output.
    pub min: i16,
    /// Largest output.
    pub max: i16,
}
