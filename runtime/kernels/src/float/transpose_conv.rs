//! Transposed 2-D convolution.

use super::{Weight, WindowOp, bias_at, check_weighted, rows_of};
use crate::KernelError;
use crate::window::part;

/// Transposed 2-D convolution: `input` is `[batch, in_h, in_w, in_c]`, `weights` `[out_c, k_h, k_w, in_c]`, `bias`
/// `[out_c]`, `output` `[batch, out_h, out_w, out_c]`. Input pixel `(y, x)` is spread over the output pixels from
/// `(y * stride_h - pad_top, x * stride_w - pad_left)` on; `groups` is 1.
///
/// # Errors
/// [`KernelError::Parameter`] for an impossible window, [`KernelError::Shape`] when a slice does not fit it.
pub fn transpose_conv2d<W: Weight>(
    p: &WindowOp,
    input: &[f32],
    weights: &[W],
    bias: Option<&[f32]>,
    output: &mut [f32],
) -> Result<(), KernelError> {
    let window = &p.window;
    check_weighted(window, input.len(), weights.len(), bias, output.len())?;
    if window.groups != 1 {
        return Err(KernelError::Parameter);
    }
    let (in_c, out_c) = (window.in_c, window.out_c);
    let filter = window.k_h * window.k_w * in_c;
    let (in_image, out_image) = (window.in_h * window.in_w * in_c, window.out_h * window.out_w * out_c);
    output.fill(0.0);
    for (image, out) in rows_of(input, in_image, output, out_image) {
        let mut pixels = image.chunks_exact(in_c.max(1));
        for y in 0..window.in_h {
            let rows = window.output_rows(y);
            for x in 0..window.in_w {
                let columns = window.output_columns(x);
                let pixel = pixels.next().unwrap_or_default();
                for row in 0..rows.count {
                    let out_row = (rows.position + row * window.dilation_h) * window.out_w + columns.position;
                    let tap_row = (rows.first + row) * window.k_w + columns.first;
                    for column in 0..columns.count {
                        let target = (out_row + column * window.dilation_w) * out_c;
                        let sums = out.get_mut(target..target + out_c).unwrap_or_default();
                        for (channel, sum) in sums.iter_mut().enumerate() {
                            let taps = part(weights, channel * filter + (tap_row + column) * in_c, in_c);
                            for (&x, &w) in pixel.iter().zip(taps) {
                                *sum += x * w.to_f32();
                            }
                        }
                    }
                }
            }
        }
    }
    for pixel in output.chunks_exact_mut(out_c.max(1)) {
        for (channel, out) in pixel.iter_mut().enumerate() {
            *out = p.clamp.apply(*out + bias_at(bias, channel));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Clamp;
    use super::super::testing::plain;
    use super::*;
    use crate::window::Window;

    #[test]
    fn spreads_each_pixel_over_the_output() {
        let window = Window {
            out_h: 3,
            out_w: 4,
            stride_h: 2,
            stride_w: 2,
            pad_top: 1,
            ..plain([2, 2, 1], [2, 2], 1)
        };
        let p = WindowOp { window, clamp: Clamp { min: -1.0, max: 40.0 } };
        let mut output = [0.0; 12];
        transpose_conv2d(&p, &[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 10.0], Some(&[0.5]), &mut output)
            .unwrap();
        let expected = [3.5, 10.5, 6.5, 20.5, 3.5, 6.5, 4.5, 8.5, 9.5, 30.5, 12.5, 40.0];
        assert_eq!(output, expected);
    }

    #[test]
    fn refuses_groups() {
        let p = WindowOp { window: Window { groups: 2, ..plain([1, 1, 2], [1, 1], 2) }, clamp: Clamp::NONE };
        assert_eq!(
            transpose_conv2d(&p, &[0.0; 2], &[0.0; 2], None, &mut [0.0; 2]),
            Err(KernelError::Parameter)
        );
    }
}
