//! PReLU.

use dunlin_artifact::{Kernel, op};

use super::arith::quantization;
use super::softmax::same_shape;
use super::{Lowering, float};
use crate::error::{Unsupported, unsupported};
use crate::graph::{DType, Node};
use crate::quantize::{factor, prelu_factors};

pub(super) fn prelu(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let (from, by, to) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let types = (cx.value(from).dtype, cx.value(by).dtype, cx.value(to).dtype);
    let kernel = match types {
        (DType::I8, DType::I8, DType::I8) => Kernel::PreluI8,
        (DType::I16, DType::I8, DType::I16) => Kernel::PreluI16,
        (DType::F32, DType::F32, DType::F32) => return float::prelu(cx, node),
        (from, by, to) => {
            return unsupported(format!(
                "{from} by {by} to {to} is not supported; int8 by int8, int16 by int8 and float32 are"
            ));
        }
    };
    same_shape(cx, from, to)?;
    let (shape, alpha_shape) = four_axes(&cx.value(from).shape, &cx.value(by).shape)?;
    let (input_scale, input_zero_point) = quantization(cx, from)?;
    let (alpha_scale, alpha_zero_point) = quantization(cx, by)?;
    let (output_scale, output_zero_point) = quantization(cx, to)?;
    let dtype = if cx.value(from).was_unsigned { DType::U8 } else { types.0 };
    let (positive, negative) = prelu_factors(dtype, input_scale, alpha_scale, output_scale)?;
    let (input, alpha, output) = (cx.tensor(from), cx.tensor(by), cx.tensor(to));
    let params = op::Prelu {
        input,
        alpha,
        output,
        shape,
        alpha_shape,
        input_zero_point,
        alpha_zero_point,
        output_zero_point,
        positive: factor(positive),
        negative: factor(negative),
    };
    cx.emit(kernel, &params, &[input, alpha], &[output]).in_place(input, output);
    Ok(())
}

/// Both shapes with four axes: alpha gets leading ones, and neighbours that alpha treats alike become one axis.
fn four_axes(shape: &[usize], alpha: &[usize]) -> Result<([u32; 4], [u32; 4]), Unsupported> {
    let mismatch = || Unsupported::new(format!("alpha of shape {alpha:?} cannot be broadcast to {shape:?}"));
    let leading = shape.len().checked_sub(alpha.len()).ok_or_else(mismatch)?;
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for (axis, &extent) in shape.iter().enumerate() {
        let of_alpha = if axis < leading { 1 } else { alpha[axis - leading] };
        if of_alpha != extent && of_alpha != 1 {
            return Err(mismatch());
        }
        match axes.last_mut() {
            _ if extent == 1 => {}
            Some((last, last_of_alpha)) if (*last_of_alpha == 1) == (of_alpha == 1) => {
                *last *= extent;
                *last_of_alpha *= of_alpha;
            }
            _ => axes.push((extent, of_alpha)),
        }
    }
    let Some(padding) = 4usize.checked_sub(axes.len()) else {
        return unsupported("alpha alternates between shared and own axes more often than three times");
    };
    let (mut extents, mut of_alpha) = ([1; 4], [1; 4]);
    for (axis, (extent, alpha)) in axes.into_iter().enumerate() {
        (extents[padding + axis], of_alpha[padding + axis]) = (extent as u32, alpha as u32);
    }
    Ok((extents, of_alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_merged_where_alpha_treats_them_alike() {
        assert_eq!(four_axes(&[1, 8, 8, 3], &[1, 1, 3]).unwrap(), ([1, 1, 64, 3], [1, 1, 1, 3]));
        assert_eq!(four_axes(&[2, 3, 4], &[2, 3, 4]).unwrap(), ([1, 1, 1, 24], [1, 1, 1, 24]));
        assert_eq!(four_axes(&[2, 3, 4, 5, 6], &[2, 1, 4, 1, 1]).unwrap(), ([2, 3, 4, 30], [2, 1, 4, 1]));
        assert_eq!(four_axes(&[7], &[1]).unwrap(), ([1, 1, 1, 7], [1; 4]));
        assert!(four_axes(&[2, 3], &[2, 4]).is_err());
        assert!(four_axes(&[3], &[2, 3]).is_err());
        assert!(four_axes(&[2, 2, 2, 2, 2], &[2, 1, 2, 1, 2]).is_err());
    }
}
