//! Integer pooling.

use dunlin_artifact::{Kernel, op};
use dunlin_kernels::window::Window;

use super::{Lowering, window};
use crate::error::{Unsupported, unsupported};
use crate::graph::{Activation, DType, Node, Window2d};
use crate::quantize::activation_range;

/// Which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Average,
    Maximum,
}

pub(super) fn pool(
    cx: &mut Lowering<'_>,
    node: &Node,
    pool: Pool,
    steps: &Window2d,
    size: [usize; 2],
    activation: Activation,
) -> Result<(), Unsupported> {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let (source, result) = (cx.value(from), cx.value(to));
    let kernel = match (pool, source.dtype, result.dtype) {
        (Pool::Average, DType::I8, DType::I8) => Kernel::AveragePoolI8,
        (Pool::Average, DType::I16, DType::I16) => Kernel::AveragePoolI16,
        (Pool::Maximum, DType::I8, DType::I8) => Kernel::MaxPoolI8,
        (Pool::Maximum, DType::I16, DType::I16) => Kernel::MaxPoolI16,
        (_, from, to) => {
            return unsupported(format!("{from} to {to} is not supported; int8, int16 and float32 are"));
        }
    };
    let quantization = (source.scale_and_zero_point(), result.scale_and_zero_point());
    let (Some((from_scale, from_zero)), Some((scale, zero_point))) = quantization else {
        return unsupported("input and output need one scale and one zero point each");
    };
    // TensorFlow Lite Micro's tolerance.
    if (from_scale - scale).abs() > 1e-6 || from_zero != zero_point {
        return unsupported(format!(
            "input and output must have the same scale and zero point, but have {from_scale} and {from_zero}, \
             {scale} and {zero_point}"
        ));
    }
    check_window(&source.shape, &result.shape, steps, size)?;
    let (min, max) = activation_range(activation, result.dtype, scale, zero_point)?;
    let offset = if pool == Pool::Average && source.was_unsigned { 128 } else { 0 };
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let params = op::PoolInt {
        input,
        output,
        size: size.map(|size| size as u32),
        window: window::window(steps)?,
        offset,
        min: min as i16,
        max: max as i16,
    };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

/// Refuses what the kernel would refuse when it runs.
fn check_window(
    input: &[usize],
    output: &[usize],
    steps: &Window2d,
    size: [usize; 2],
) -> Result<(), Unsupported> {
    let (&[batch, in_h, in_w, in_c], &[_, out_h, out_w, out_c]) = (input, output) else {
        return unsupported("input and output must have four axes");
    };
    if in_c != out_c {
        return unsupported("input and output must have equally many channels");
    }
    let window = Window {
        batch,
        in_h,
        in_w,
        in_c,
        out_h,
        out_w,
        out_c,
        k_h: size[0],
        k_w: size[1],
        stride_h: steps.stride[0],
        stride_w: steps.stride[1],
        dilation_h: 1,
        dilation_w: 1,
        pad_top: steps.padding.top,
        pad_left: steps.padding.left,
        groups: in_c,
    };
    if window.check().is_err() || !window.covers_input() {
        return unsupported("the window is empty or lies beside the image");
    }
    Ok(())
}
