//! Sliding windows.

use serde::{Deserialize, Serialize};

/// How a window slides over an image; rows first, then columns. Its size and the images' stand in the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window2d {
    /// Pixels from one window to the next.
    pub stride: [u32; 2],
    /// Pixels from one tap of the window to the next.
    pub dilation: [u32; 2],
    /// Pixels of padding above and to the left. Those below and to the right follow from the sizes.
    pub padding: [u32; 2],
}
