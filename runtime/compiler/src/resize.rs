//! Constants of image resizing, computed with the roundings of TensorFlow Lite's reference kernels.

/// How positions of output pixels map to the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// The centres of the four corner pixels coincide.
    pub(crate) align_corners: bool,
    /// A pixel's position is that of its centre rather than of its corner.
    pub(crate) half_pixel_centers: bool,
}

impl Sampling {
    /// The sizes whose quotient is the scale of one axis.
    fn ratio(self, input: usize, output: usize) -> (usize, usize) {
        if self.align_corners && output > 1 { (input.saturating_sub(1), output - 1) } else { (input, output) }
    }

    /// Input pixels per output pixel.
    pub(crate) fn scale_f32(self, input: usize, output: usize) -> f32 {
        let (input, output) = self.ratio(input, output);
        input as f32 / output as f32
    }

    /// Input pixels per output pixel in units of 2^-10, rounded half up; `None` when it does not fit 32 bits or the
    /// output is empty.
    pub(crate) fn scale_q10(self, input: usize, output: usize) -> Option<i32> {
        let (input, output) = self.ratio(input, output);
        let scaled = input.checked_mul(1024)?.checked_add(output / 2)?;
        i32::try_from(scaled.checked_div(output)?).ok()
    }

    /// For every output pixel of one axis the nearest input pixel; `None` when the input is empty or an index does
    /// not fit 16 bits.
    pub(crate) fn nearest(self, input: usize, output: usize) -> Option<Vec<u16>> {
        let last = u16::try_from(input.checked_sub(1)?).ok()?;
        let scale = self.scale_f32(input, output);
        let offset = if self.half_pixel_centers { 0.5 } else { 0.0 };
        let index = |position: usize| {
            let value = (position as f32 + offset) * scale;
            let value = if self.align_corners { value.round() } else { value.floor() };
            (value as u16).min(last)
        };
        Some((0..output).map(index).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORNER: Sampling = Sampling { align_corners: false, half_pixel_centers: false };
    const ALIGNED: Sampling = Sampling { align_corners: true, half_pixel_centers: false };
    const CENTRE: Sampling = Sampling { align_corners: false, half_pixel_centers: true };

    #[test]
    fn scales() {
        assert_eq!(CORNER.scale_q10(3, 7), Some(439)); // 438.86
        assert_eq!(ALIGNED.scale_q10(3, 7), Some(341)); // 341.33
        assert_eq!(ALIGNED.scale_q10(3, 1), Some(3072));
        assert_eq!(CORNER.scale_q10(usize::MAX, 7), None);
        assert_eq!(CORNER.scale_q10(3, 0), None);
        assert_eq!(ALIGNED.scale_f32(3, 5), 0.5);
    }

    #[test]
    fn nearest_pixels() {
        assert_eq!(CORNER.nearest(2, 5).unwrap(), [0, 0, 0, 1, 1]);
        assert_eq!(ALIGNED.nearest(2, 5).unwrap(), [0, 0, 1, 1, 1]);
        assert_eq!(CENTRE.nearest(4, 2).unwrap(), [1, 3]);
        assert_eq!(CORNER.nearest(4, 2).unwrap(), [0, 2]);
        assert_eq!(CORNER.nearest(0, 2), None);
        assert_eq!(CORNER.nearest(70_000, 2), None);
    }
}
