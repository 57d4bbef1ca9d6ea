//! Average and maximum pooling.

use super::{WindowOp, check_images};
use crate::KernelError;
use crate::conv::for_each_patch;
use crate::window::part;

/// Average pooling: `input` is `[batch, in_h, in_w, in_c]`, `output` `[batch, out_h, out_w, out_c]` with
/// `out_c == in_c == groups`. Padding is left out of the average.
///
/// # Errors
/// [`KernelError::Parameter`] for an impossible window or one that can lie wholly in the padding,
/// [`KernelError::Shape`] when a slice does not fit it.
pub fn average_pool(p: &WindowOp, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
    pool(p, input, output, 0.0, |sum, x| sum + x, |sum, count| sum / count)
}

/// Maximum pooling; shapes and errors as for [`average_pool`].
///
/// # Errors
/// As for [`average_pool`].
pub fn max_pool(p: &WindowOp, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
    pool(p, input, output, f32::MIN, |max, x| if x > max { x } else { max }, |max, _| max)
}

#[inline(always)]
fn pool(
    p: &WindowOp,
    input: &[f32],
    output: &mut [f32],
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32, f32) -> f32,
) -> Result<(), KernelError> {
    let window = &p.window;
    let channels = window.in_c;
    check_images(window, input.len(), output.len())?;
    if window.out_c != channels || window.groups != channels || !window.covers_input() {
        return Err(KernelError::Parameter);
    }
    for_each_patch(window, input, output, |patch, pixel| {
        pixel.fill(start);
        patch.for_each_row(|first, _| {
            for column in 0..patch.columns.count {
                let inputs = part(patch.image, (first + column * window.dilation_w) * channels, channels);
                for (value, &x) in pixel.iter_mut().zip(inputs) {
                    *value = join(*value, x);
                }
            }
        });
        let count = (patch.rows.count * patch.columns.count) as f32;
        for value in pixel {
            *value = p.clamp.apply(finish(*value, count));
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Clamp;
    use super::super::testing::plain;
    use super::*;
    use crate::window::Window;

    fn padded() -> WindowOp {
        let window = Window {
            out_h: 2,
            out_w: 2,
            stride_h: 2,
            stride_w: 2,
            pad_top: 1,
            pad_left: 1,
            ..plain([3, 3, 1], [2, 2], 1)
        };
        WindowOp { window, clamp: Clamp { min: -100.0, max: 7.5 } }
    }

    const INPUT: [f32; 9] = [-1.0, -2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

    #[test]
    fn padding_counts_for_nothing() {
        let mut output = [0.0; 4];
        average_pool(&padded(), &INPUT, &mut output).unwrap();
        assert_eq!(output, [-1.0, 0.5, 5.5, 7.0]);
        max_pool(&padded(), &INPUT, &mut output).unwrap();
        assert_eq!(output, [-1.0, 3.0, 7.0, 7.5]);
    }

    #[test]
    fn refuses_a_window_in_the_padding() {
        let mut p = padded();
        p.window.pad_left = 2;
        assert_eq!(average_pool(&p, &INPUT, &mut [0.0; 4]), Err(KernelError::Parameter));
    }
}
