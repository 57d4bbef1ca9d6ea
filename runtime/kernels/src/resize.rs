//! Image resizing.

use crate::KernelError;
use crate::arith::element_count;

/// The images before and after, NHWC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeShape {
    /// Number of images.
    pub batch: usize,
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Elements per pixel.
    pub channels: usize,
}

impl ResizeShape {
    /// Checks the buffers' lengths; `false` when there is nothing to compute.
    fn check(&self, input: usize, output: usize) -> Result<bool, KernelError> {
        let fits = element_count(&[self.batch, self.in_h, self.in_w, self.channels]) == Some(input)
            && element_count(&[self.batch, self.out_h, self.out_w, self.channels]) == Some(output);
        if !fits || (input == 0 && output != 0) {
            return Err(KernelError::Shape);
        }
        Ok(output != 0)
    }

    /// Calls `pixel` for every pixel of the output with its position (row, column), the input image, and the pixel.
    #[inline(always)]
    fn for_each_pixel<T>(
        &self,
        input: &[T],
        output: &mut [T],
        mut pixel: impl FnMut(usize, usize, &[T], &mut [T]),
    ) {
        let in_image = self.in_h * self.in_w * self.channels;
        let out_row = self.out_w * self.channels;
        for (n, output) in output.chunks_exact_mut((self.out_h * out_row).max(1)).enumerate() {
            let image = input.get(n * in_image..(n + 1) * in_image).unwrap_or_default();
            for (y, row) in output.chunks_exact_mut(out_row.max(1)).enumerate() {
                for (x, target) in row.chunks_exact_mut(self.channels.max(1)).enumerate() {
                    pixel(y, x, image, target);
                }
            }
        }
    }

    /// The elements of an input pixel.
    #[inline(always)]
    fn pixel<'a, T>(&self, image: &'a [T], y: usize, x: usize) -> &'a [T] {
        let start = (y * self.in_w + x) * self.channels;
        image.get(start..start + self.channels).unwrap_or_default()
    }
}

/// Parameters of a bilinear resize: `S` is `i32` for int8 images and `f32` for float ones.
///
/// The scales are input over output size, or `(input - 1) / (output - 1)` for aligned corners when the output is
/// larger than 1: as a quotient of floats, or in units of 2^-10 and rounded half up.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeBilinear<S> {
    /// Sizes of the images.
    pub shape: ResizeShape,
    /// Input rows per output row.
    pub scale_h: S,
    /// Input columns per output column.
    pub scale_w: S,
    /// Whether a pixel's position is that of its centre rather than of its corner.
    pub half_pixel_centers: bool,
}

/// The two input pixels between which an output pixel lies, and how far from the first, on one axis.
struct Between<F> {
    lower: usize,
    upper: usize,
    fraction: F,
}

/// `position · scale` in units of 2^-10. The fraction leaves 0 ..= 1024 only where both pixels are the same.
#[inline(always)]
fn between_i32(position: usize, scale: i32, half_pixel_centers: bool, size: usize) -> Between<i32> {
    let mut value = (position as i32).wrapping_mul(scale);
    if half_pixel_centers {
        value = value.wrapping_add(scale / 2 - 512);
    }
    // Divisions that truncate: just before the first pixel the bounds are 0 and 0.
    let lower = usize::try_from(value / 1024).unwrap_or(0).min(size - 1);
    let upper = usize::try_from(value.wrapping_add(1023) / 1024).unwrap_or(0).min(size - 1);
    Between { lower, upper, fraction: value.wrapping_sub((lower as i32).wrapping_mul(1024)) }
}

/// Bilinear resize of int8 images, in integer arithmetic with weights of 10 bits.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not have the length that the shape gives it, or an empty image would
/// have to be enlarged.
pub fn resize_bilinear_i8(
    p: &ResizeBilinear<i32>,
    input: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    if !p.shape.check(input.len(), output.len())? {
        return Ok(());
    }
    p.shape.for_each_pixel(input, output, |y, x, image, target| {
        let y = between_i32(y, p.scale_h, p.half_pixel_centers, p.shape.in_h);
        let x = between_i32(x, p.scale_w, p.half_pixel_centers, p.shape.in_w);
        let (down, right) = (y.fraction, x.fraction);
        let (up, left) = (1024i32.wrapping_sub(down), 1024i32.wrapping_sub(right));
        let corner = |y, x, vertical: i32, horizontal| {
            p.shape
                .pixel(image, y, x)
                .iter()
                .map(move |&v| i32::from(v).wrapping_mul(vertical).wrapping_mul(horizontal))
        };
        // Weights that lie outside 0 ..= 1024 may wrap around, but then they are applied to equal values, and the
        // sum is in range again.
        let upper_row = corner(y.lower, x.lower, up, left).zip(corner(y.lower, x.upper, up, right));
        let lower_row = corner(y.upper, x.lower, down, left).zip(corner(y.upper, x.upper, down, right));
        for (target, ((a, b), (c, d))) in target.iter_mut().zip(upper_row.zip(lower_row)) {
            let sum = a.wrapping_add(b).wrapping_add(c).wrapping_add(d);
            let half = if sum > 0 { 1 << 19 } else { -(1 << 19) };
            *target = (sum.wrapping_add(half) / (1 << 20)) as i8;
        }
    });
    Ok(())
}

#[inline(always)]
fn between_f32(position: usize, scale: f32, half_pixel_centers: bool, size: usize) -> Between<f32> {
    let position = position as f32;
    let value = if half_pixel_centers { (position + 0.5) * scale - 0.5 } else { position * scale };
    let truncated = value as i32;
    let ceiling = truncated.saturating_add(i32::from((truncated as f32) < value));
    // Truncation is the floor of everything but negative values, which are limited to 0 in any case.
    let lower = usize::try_from(truncated).unwrap_or(0).min(size - 1);
    let upper = usize::try_from(ceiling).unwrap_or(0).min(size - 1);
    Between { lower, upper, fraction: value - lower as f32 }
}

/// Bilinear resize of float images. Errors as [`resize_bilinear_i8`].
pub fn resize_bilinear_f32(
    p: &ResizeBilinear<f32>,
    input: &[f32],
    output: &mut [f32],
) -> Result<(), KernelError> {
    interpolate(p, input, output, |value| value, |value| value)
}

/// Bilinear resize of uint8 images, stored shifted by -128: in float arithmetic, halves rounded up, as TensorFlow
/// Lite's reference kernel for this type does. Errors as [`resize_bilinear_i8`].
pub fn resize_bilinear_u8(
    p: &ResizeBilinear<f32>,
    input: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    let unsigned = |value: i8| f32::from(value as u8 ^ 0x80);
    interpolate(p, input, output, unsigned, |value| ((value + 0.5) as u8 ^ 0x80) as i8)
}

#[inline(always)]
fn interpolate<T: Copy>(
    p: &ResizeBilinear<f32>,
    input: &[T],
    output: &mut [T],
    load: impl Fn(T) -> f32 + Copy,
    store: impl Fn(f32) -> T,
) -> Result<(), KernelError> {
    if !p.shape.check(input.len(), output.len())? {
        return Ok(());
    }
    p.shape.for_each_pixel(input, output, |y, x, image, target| {
        let y = between_f32(y, p.scale_h, p.half_pixel_centers, p.shape.in_h);
        let x = between_f32(x, p.scale_w, p.half_pixel_centers, p.shape.in_w);
        let corner = |y, x, vertical: f32, horizontal: f32| {
            p.shape.pixel(image, y, x).iter().map(move |&value| load(value) * vertical * horizontal)
        };
        let (down, right) = (y.fraction, x.fraction);
        let (up, left) = (1.0 - down, 1.0 - right);
        // Summed by columns, as the reference does.
        let left_column = corner(y.lower, x.lower, up, left).zip(corner(y.upper, x.lower, down, left));
        let right_column = corner(y.lower, x.upper, up, right).zip(corner(y.upper, x.upper, down, right));
        for (target, ((a, b), (c, d))) in target.iter_mut().zip(left_column.zip(right_column)) {
            *target = store(a + b + c + d);
        }
    });
    Ok(())
}

/// Nearest-neighbour resize of images of any element type.
///
/// `rows` and `columns` say which input row and column each output row and column shows; `shape.channels` counts
/// bytes per pixel.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not have the length that the shape gives it;
/// [`KernelError::Parameter`] when an index lies outside the input.
pub fn resize_nearest(
    shape: &ResizeShape,
    rows: &[u16],
    columns: &[u16],
    input: &[u8],
    output: &mut [u8],
) -> Result<(), KernelError> {
    if rows.len() != shape.out_h || columns.len() != shape.out_w {
        return Err(KernelError::Shape);
    }
    let inside = |indices: &[u16], size| indices.iter().all(|&index| usize::from(index) < size);
    if !inside(rows, shape.in_h) || !inside(columns, shape.in_w) {
        return Err(KernelError::Parameter);
    }
    if !shape.check(input.len(), output.len())? {
        return Ok(());
    }
    shape.for_each_pixel(input, output, |y, x, image, target| {
        if let (Some(&y), Some(&x)) = (rows.get(y), columns.get(x)) {
            let source = shape.pixel(image, y.into(), x.into());
            target.iter_mut().zip(source).for_each(|(target, &source)| *target = source);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ResizeShape = ResizeShape { batch: 1, in_h: 3, in_w: 2, out_h: 4, out_w: 5, channels: 2 };

    fn bilinear(scale_h: i32, scale_w: i32, half_pixel_centers: bool) -> [i8; 40] {
        let p = ResizeBilinear { shape: SHAPE, scale_h, scale_w, half_pixel_centers };
        let mut output = [0; 40];
        let image = [-58, 38, 100, -88, -78, 51, -128, 49, 9, -65, -115, 60];
        resize_bilinear_i8(&p, &image, &mut output).unwrap();
        output
    }

    #[test]
    fn bilinear_i8() {
        // Expected values: TensorFlow Lite Micro, plain, with aligned corners, and with half-pixel centres.
        let corner = [
            -58, 38, 5, -12, 69, -63, 100, -88, 100, -88, -73, 48, -72, 35, -71, 21, -71, 15, -71, 15, -35,
            -7, -69, 18, -104, 42, -122, 55, -122, 55, 9, -65, -41, -15, -90, 35, -115, 60, -115, 60,
        ];
        assert_eq!(bilinear(768, 410, false), corner);
        let aligned = [
            -58, 38, -19, 7, 21, -25, 61, -57, 100, -88, -71, 47, -67, 36, -62, 25, -57, 14, -52, 3, -49, 12,
            -68, 22, -86, 32, -105, 43, -124, 53, 9, -65, -22, -34, -53, -3, -84, 29, -115, 60,
        ];
        assert_eq!(bilinear(683, 256, false), aligned);
        let centre = [
            -58, 38, -42, 25, 21, -25, 84, -76, 100, -88, -71, 46, -68, 41, -56, 22, -45, 2, -43, -2, -45, 8,
            -53, 12, -84, 30, -115, 49, -123, 53, 9, -65, -3, -52, -53, -2, -103, 48, -115, 60,
        ];
        assert_eq!(bilinear(768, 410, true), centre);
    }

    #[test]
    fn hostile_scales_stay_inside_the_image() {
        for scale in [i32::MIN, -5000, 5000, i32::MAX] {
            bilinear(scale, scale, true);
        }
        for scale in [f32::NAN, f32::INFINITY, -1e30, 1e30] {
            let shape = ResizeShape { channels: 1, ..SHAPE };
            let p = ResizeBilinear { shape, scale_h: scale, scale_w: scale, half_pixel_centers: true };
            resize_bilinear_f32(&p, &[1.0; 6], &mut [0.0; 20]).unwrap();
        }
    }

    #[test]
    fn bilinear_f32() {
        let shape = ResizeShape { batch: 2, in_h: 1, in_w: 2, out_h: 1, out_w: 4, channels: 1 };
        let mut p = ResizeBilinear { shape, scale_h: 1.0, scale_w: 0.5, half_pixel_centers: false };
        let mut output = [0.0; 8];
        resize_bilinear_f32(&p, &[1.0, 3.0, -1.0, 0.0], &mut output).unwrap();
        assert_eq!(output, [1.0, 2.0, 3.0, 3.0, -1.0, -0.5, 0.0, 0.0]);
        p.half_pixel_centers = true;
        resize_bilinear_f32(&p, &[1.0, 3.0, -1.0, 0.0], &mut output).unwrap();
        assert_eq!(output, [1.0, 1.5, 2.5, 3.0, -1.0, -0.75, -0.25, 0.0]);
        assert_eq!(resize_bilinear_f32(&p, &[1.0; 3], &mut output), Err(KernelError::Shape));
        let empty = ResizeBilinear { shape: ResizeShape { in_w: 0, ..p.shape.clone() }, ..p };
        assert_eq!(resize_bilinear_f32(&empty, &[], &mut output), Err(KernelError::Shape));
    }

    #[test]
    fn bilinear_u8_rounds_halves_up() {
        let shape = ResizeShape { batch: 1, in_h: 1, in_w: 2, out_h: 1, out_w: 4, channels: 1 };
        let p = ResizeBilinear { shape, scale_h: 1.0, scale_w: 0.5, half_pixel_centers: false };
        let mut output = [0; 4];
        // 10 and 13: the mean is 11.5.
        resize_bilinear_u8(&p, &[-118, -115], &mut output).unwrap();
        assert_eq!(output.map(|value| i32::from(value) + 128), [10, 12, 13, 13]);
    }

    #[test]
    fn nearest() {
        let shape = ResizeShape { batch: 1, in_h: 2, in_w: 2, out_h: 3, out_w: 2, channels: 2 };
        let mut output = [0; 12];
        let image = [1, 2, 3, 4, 5, 6, 7, 8];
        resize_nearest(&shape, &[0, 0, 1], &[1, 0], &image, &mut output).unwrap();
        assert_eq!(output, [3, 4, 1, 2, 3, 4, 1, 2, 7, 8, 5, 6]);
        let error = resize_nearest(&shape, &[0, 2, 1], &[1, 0], &image, &mut output);
        assert_eq!(error, Err(KernelError::Parameter));
        let error = resize_nearest(&shape, &[0, 1], &[1, 0], &image, &mut output);
        assert_eq!(error, Err(KernelError::Shape));
    }
}
