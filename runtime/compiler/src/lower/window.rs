//! The steps of sliding windows.

use dunlin_artifact::op;

use crate::error::{Unsupported, unsupported};
use crate::graph::Window2d;

/// The steps of a window as an instruction has them.
pub(super) fn window(window: &Window2d) -> Result<op::Window2d, Unsupported> {
    let narrow = |sizes: [usize; 2]| -> Result<[u32; 2], Unsupported> {
        match sizes.map(u32::try_from) {
            [Ok(rows), Ok(columns)] => Ok([rows, columns]),
            _ => unsupported("a stride, dilation or padding is larger than 32 bits"),
        }
    };
    let padding = [window.padding.top, window.padding.left];
    Ok(op::Window2d {
        stride: narrow(window.stride)?,
        dilation: narrow(window.dilation)?,
        padding: narrow(padding)?,
    })
}
