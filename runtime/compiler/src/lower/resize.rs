//! Image resizing.

use dunlin_artifact::{Kernel, op};

use super::Lowering;
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node, ValueId};
use crate::resize::Sampling;

type Lowered = Result<(), Unsupported>;

/// Rows and columns before and after.
struct Sizes {
    input: [usize; 2],
    output: [usize; 2],
}

fn sizes(cx: &Lowering<'_>, from: ValueId, to: ValueId) -> Result<Sizes, Unsupported> {
    let (source, target) = (cx.value(from), cx.value(to));
    let (&[batch, in_h, in_w, channels], &[out_batch, out_h, out_w, out_channels]) =
        (source.shape.as_slice(), target.shape.as_slice())
    else {
        return unsupported("needs images of four axes: batch, rows, columns, channels");
    };
    if source.dtype != target.dtype {
        return unsupported("input and output must be of one type");
    }
    if source.scale_and_zero_point() != target.scale_and_zero_point() {
        return unsupported("input and output must have the same scale and zero point");
    }
    if (batch, channels) != (out_batch, out_channels) || source.elements() == 0 || target.elements() == 0 {
        return unsupported("only rows and columns can be resized, and no image may be empty");
    }
    Ok(Sizes { input: [in_h, in_w], output: [out_h, out_w] })
}

pub(super) fn bilinear(cx: &mut Lowering<'_>, node: &Node, sampling: Sampling) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let Sizes { input: [in_h, in_w], output: [out_h, out_w] } = sizes(cx, from, to)?;
    if sampling.align_corners && sampling.half_pixel_centers {
        return unsupported("aligned corners and half-pixel centres exclude one another");
    }
    let half_pixel_centers = sampling.half_pixel_centers;
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    // TensorFlow Lite's reference kernel for uint8 computes in single precision.
    let kernel = match (cx.value(from).dtype, cx.value(from).was_unsigned) {
        (DType::I8, false) => {
            let scale = |input, output| {
                sampling.scale_q10(input, output).ok_or_else(|| Unsupported::new("the image is too large"))
            };
            let (scale_h, scale_w) = (scale(in_h, out_h)?, scale(in_w, out_w)?);
            let params = op::ResizeBilinear { input, output, scale_h, scale_w, half_pixel_centers };
            cx.emit(Kernel::ResizeBilinearI8, &params, &[input], &[output]);
            return Ok(());
        }
        (DType::I8, true) => Kernel::ResizeBilinearU8,
        (DType::F32, _) => Kernel::ResizeBilinearF32,
        (other, _) => return unsupported(format!("not for {other}; supported are int8, uint8 and float32")),
    };
    let (scale_h, scale_w) = (sampling.scale_f32(in_h, out_h), sampling.scale_f32(in_w, out_w));
    let params = op::ResizeBilinear { input, output, scale_h, scale_w, half_pixel_centers };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

pub(super) fn nearest(cx: &mut Lowering<'_>, node: &Node, sampling: Sampling) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let Sizes { input: in_size, output: out_size } = sizes(cx, from, to)?;
    let mut table = |axis: usize| {
        let indices = sampling.nearest(in_size[axis], out_size[axis]);
        let indices = indices.ok_or_else(|| Unsupported::new("images of up to 65536 rows and columns"))?;
        Ok::<_, Unsupported>(cx.constant(DType::I16, &[indices.len()], &indices))
    };
    let (rows, columns) = (table(0)?, table(1)?);
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    cx.emit(
        Kernel::ResizeNearest,
        &op::ResizeNearest { input, output, rows, columns },
        &[input, rows, columns],
        &[output],
    );
    Ok(())
}
