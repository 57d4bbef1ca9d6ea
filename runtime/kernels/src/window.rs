//! The geometry of sliding windows, shared by all convolutions and pools.
//!
//! Separate from quantization, so that integer, float and hybrid kernels take the same struct.

use crate::KernelError;

/// How a window slides over an image: shapes in elements (NHWC), steps and paddings in pixels.
///
/// For a depthwise convolution and for a pool `groups` equals `in_c` (each output channel sees one input channel).
/// For a transposed convolution input and output keep their names and the strides step through the *output*.
/// Padding to the bottom and right is implied by the output's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Images.
    pub batch: usize,
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Input channels, a multiple of `groups`.
    pub in_c: usize,
    /// Output rows.
    pub out_h: usize,
    /// Output columns.
    pub out_w: usize,
    /// Output channels, a multiple of `groups`.
    pub out_c: usize,
    /// Window rows.
    pub k_h: usize,
    /// Window columns.
    pub k_w: usize,
    /// Rows from one window to the next.
    pub stride_h: usize,
    /// Columns from one window to the next.
    pub stride_w: usize,
    /// Rows from one tap of the window to the next; 1 = dense.
    pub dilation_h: usize,
    /// Columns from one tap of the window to the next; 1 = dense.
    pub dilation_w: usize,
    /// Rows of padding above the image.
    pub pad_top: usize,
    /// Columns of padding left of the image.
    pub pad_left: usize,
    /// Channel groups that do not see each other; 1 = an ordinary convolution.
    pub groups: usize,
}

impl Window {
    /// Checks the ranges on which every kernel relies: no extent is zero, groups divide both channel counts, and no
    /// coordinate or tensor length overflows. It does not know the slices; compare those with
    /// [`input_len`](Self::input_len), [`output_len`](Self::output_len) and the weight lengths.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] when a field is out of range.
    pub fn check(&self) -> Result<(), KernelError> {
        let nonzero = [
            self.batch,
            self.in_h,
            self.in_w,
            self.in_c,
            self.out_h,
            self.out_w,
            self.out_c,
            self.k_h,
            self.k_w,
            self.stride_h,
            self.stride_w,
            self.dilation_h,
            self.dilation_w,
            self.groups,
        ];
        if nonzero.contains(&0) {
            return Err(KernelError::Parameter);
        }
        if !self.in_c.is_multiple_of(self.groups) || !self.out_c.is_multiple_of(self.groups) {
            return Err(KernelError::Parameter);
        }
        // The transposed convolution steps through the output by input coordinates, so both are bounded.
        let reach = |steps: usize, stride, taps: usize, dilation, pad| {
            let far = (steps - 1).checked_mul(stride)?.checked_add((taps - 1).checked_mul(dilation)?)?;
            // A quarter of the range leaves room for sums of two coordinates and for rounding up.
            let limit = usize::MAX / 4;
            (far <= limit && pad <= limit && dilation <= limit).then_some(())
        };
        let rows = self.in_h.max(self.out_h);
        let columns = self.in_w.max(self.out_w);
        let fits = reach(rows, self.stride_h, self.k_h, self.dilation_h, self.pad_top)
            .and(reach(columns, self.stride_w, self.k_w, self.dilation_w, self.pad_left))
            .and(self.input_len())
            .and(self.output_len())
            .and(self.weight_len());
        fits.map(|_| ()).ok_or(KernelError::Parameter)
    }

    /// Elements of the input, unless that overflows.
    pub fn input_len(&self) -> Option<usize> {
        product(&[self.batch, self.in_h, self.in_w, self.in_c])
    }

    /// Elements of the output, unless that overflows.
    pub fn output_len(&self) -> Option<usize> {
        product(&[self.batch, self.out_h, self.out_w, self.out_c])
    }

    /// Elements of the weights, unless that overflows: `[out_c, k_h, k_w, in_c / groups]` for a convolution,
    /// `[1, k_h, k_w, out_c]` for a depthwise one, which is the same number when `groups == in_c`.
    pub fn weight_len(&self) -> Option<usize> {
        product(&[self.out_c, self.k_h, self.k_w, self.depth()])
    }

    /// Input channels that an output channel sees: `in_c / groups`.
    #[inline(always)]
    pub fn depth(&self) -> usize {
        self.in_c / self.groups.max(1)
    }

    /// The taps of output row `y` that lie inside the image.
    #[inline(always)]
    pub fn rows(&self, y: usize) -> Taps {
        Taps::new(y * self.stride_h, self.pad_top, self.dilation_h, self.k_h, self.in_h)
    }

    /// The taps of output column `x` that lie inside the image.
    #[inline(always)]
    pub fn columns(&self, x: usize) -> Taps {
        Taps::new(x * self.stride_w, self.pad_left, self.dilation_w, self.k_w, self.in_w)
    }

    /// For a transposed convolution: the taps of input row `y` that reach the output, with their output rows.
    #[inline(always)]
    pub fn output_rows(&self, y: usize) -> Taps {
        Taps::new(y * self.stride_h, self.pad_top, self.dilation_h, self.k_h, self.out_h)
    }

    /// For a transposed convolution: the taps of input column `x` that reach the output, with their output columns.
    #[inline(always)]
    pub fn output_columns(&self, x: usize) -> Taps {
        Taps::new(x * self.stride_w, self.pad_left, self.dilation_w, self.k_w, self.out_w)
    }

    /// Whether every window sees at least one element of the image, as an average or a maximum needs.
    pub fn covers_input(&self) -> bool {
        (0..self.out_h).all(|y| self.rows(y).count > 0) && (0..self.out_w).all(|x| self.columns(x).count > 0)
    }
}

/// The part of a window, along one axis, that covers the image rather than its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// The first tap inside; 0 when there is none.
    pub first: usize,
    /// How many taps lie inside; 0 when the window sees padding only.
    pub count: usize,
    /// The image coordinate under tap `first`, 0 when there is none; tap `first + i` is `i * dilation` further on.
    pub position: usize,
}

impl Taps {
    /// The window whose tap 0 lies at padded coordinate `start`, that is at `start - pad` in the image.
    #[inline(always)]
    fn new(start: usize, pad: usize, dilation: usize, kernel: usize, extent: usize) -> Self {
        // `check` refuses 0, but the compiler does not know.
        let dilation = dilation.max(1);
        let first = if start >= pad { 0 } else { (pad - start).div_ceil(dilation) };
        // `check` bounds each of these by a quarter of the range.
        let position = (start + first * dilation).wrapping_sub(pad);
        if first >= kernel || position >= extent {
            return Taps { first: 0, count: 0, position: 0 };
        }
        let count = (extent - position).div_ceil(dilation).min(kernel - first);
        Taps { first, count, position }
    }
}

/// `values[start..start + len]`, or nothing where that is out of range: indexing that cannot panic.
#[inline(always)]
pub(crate) fn part<T>(values: &[T], start: usize, len: usize) -> &[T] {
    values.get(start..start.wrapping_add(len)).unwrap_or_default()
}

/// The product of `factors`, unless it overflows.
pub(crate) fn product(factors: &[usize]) -> Option<usize> {
    factors.iter().try_fold(1usize, |total, &factor| total.checked_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window() -> Window {
        Window {
            batch: 1,
            in_h: 5,
            in_w: 5,
            in_c: 4,
            out_h: 3,
            out_w: 3,
            out_c: 6,
            k_h: 3,
            k_w: 3,
            stride_h: 2,
            stride_w: 2,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 1,
            pad_left: 1,
            groups: 2,
        }
    }

    #[test]
    fn accepts_a_grouped_convolution() {
        let w = window();
        assert_eq!(w.check(), Ok(()));
        assert_eq!((w.input_len(), w.output_len(), w.weight_len()), (Some(100), Some(54), Some(108)));
    }

    #[test]
    fn refuses_what_kernels_cannot_handle() {
        let refused: [fn(&mut Window); 8] = [
            |w| w.stride_h = 0,
            |w| w.dilation_w = 0,
            |w| w.groups = 0,
            |w| w.groups = 3,
            |w| w.out_c = 0,
            |w| w.stride_w = usize::MAX,
            |w| w.pad_left = usize::MAX,
            |w| w.k_h = usize::MAX,
        ];
        for change in refused {
            let mut w = window();
            change(&mut w);
            assert_eq!(w.check(), Err(KernelError::Parameter), "{w:?}");
        }
    }

    proptest! {
        #[test]
        fn taps_are_those_inside_the_image(
            start in 0usize..20, pad in 0usize..20, dilation in 1usize..5, kernel in 1usize..8, extent in 1usize..16
        ) {
            let taps = Taps::new(start, pad, dilation, kernel, extent);
            let inside = |tap: usize| {
                let at = (start + tap * dilation) as isize - pad as isize;
                (0..extent as isize).contains(&at).then_some(at as usize)
            };
            for tap in 0..kernel {
                let expected = inside(tap);
                let found = (tap >= taps.first && tap < taps.first + taps.count)
                    .then(|| taps.position + (tap - taps.first) * dilation);
                prop_assert_eq!(found, expected, "tap {}", tap);
            }
        }
    }
}
