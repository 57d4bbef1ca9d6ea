//! The geometry of sliding windows, from tensor shapes.

use dunlin_artifact::{TensorId, op};
use dunlin_kernels::window::Window;

use crate::RunError;
use crate::context::Context;

/// What a window does to channels.
#[derive(Clone, Copy)]
pub(crate) enum Channels {
    /// Output channels see this many input channels each: the innermost axis of a convolution's weights.
    Depth(u32),
    /// Each output channel sees one input channel.
    Separate,
}

/// The window of `kernel` rows and columns from `input` to `output`, images of four axes. Takes its
/// multiply-accumulates from the budget.
pub(crate) fn window(
    cx: &mut Context<'_, '_>,
    steps: &op::Window2d,
    input: TensorId,
    output: TensorId,
    kernel: [u32; 2],
    channels: Channels,
) -> Result<Window, RunError> {
    let &[batch, in_h, in_w, in_c] = cx.tensor(input)?.shape() else {
        return Err(RunError::BadTensor(input));
    };
    let &[out_batch, out_h, out_w, out_c] = cx.tensor(output)?.shape() else {
        return Err(RunError::BadTensor(output));
    };
    let groups = match channels {
        Channels::Depth(depth) => in_c.checked_div(depth).filter(|groups| groups.wrapping_mul(depth) == in_c),
        Channels::Separate => Some(in_c),
    };
    let groups = groups.filter(|_| batch == out_batch).ok_or(RunError::BadTensor(output))?;
    let depth = in_c.checked_div(groups).unwrap_or(0);
    let products = [out_batch, out_h, out_w, out_c, kernel[0], kernel[1], depth];
    cx.charge(products.iter().fold(1, |n: u64, &factor| n.saturating_mul(factor.into())))?;
    let size = |n: u32| n as usize;
    Ok(Window {
        batch: size(batch),
        in_h: size(in_h),
        in_w: size(in_w),
        in_c: size(in_c),
        out_h: size(out_h),
        out_w: size(out_w),
        out_c: size(out_c),
        k_h: size(kernel[0]),
        k_w: size(kernel[1]),
        stride_h: size(steps.stride[0]),
        stride_w: size(steps.stride[1]),
        dilation_h: size(steps.dilation[0]),
        dilation_w: size(steps.dilation[1]),
        pad_top: size(steps.padding[0]),
        pad_left: size(steps.padding[1]),
        groups: size(groups),
    })
}
