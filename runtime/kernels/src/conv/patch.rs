//! The part of an image that one output pixel sees.

use super::dot::{Activation, BLOCK, skip};
use crate::window::{Taps, Window, part};

/// To sum weights with the inner loop for products.
static ONES: [i8; 32] = [1; 32];

/// A window at one position over one image.
pub(crate) struct Patch<'a, T> {
    /// The window's geometry.
    pub(crate) window: &'a Window,
    /// All pixels of the image.
    pub(crate) image: &'a [T],
    /// Taps inside the image, vertically.
    pub(crate) rows: Taps,
    /// Taps inside the image, horizontally.
    pub(crate) columns: Taps,
}

/// Calls `compute` for each output pixel with what it sees of the input and with the pixel's channels.
#[inline(always)]
pub(crate) fn for_each_patch<T, U>(
    window: &Window,
    input: &[T],
    output: &mut [U],
    mut compute: impl FnMut(&Patch<'_, T>, &mut [U]),
) {
    let image_len = window.in_h * window.in_w * window.in_c;
    let mut pixels = output.chunks_exact_mut(window.out_c.max(1));
    for index in 0..window.batch {
        let image = part(input, index * image_len, image_len);
        for y in 0..window.out_h {
            let rows = window.rows(y);
            for x in 0..window.out_w {
                let patch = Patch { window, image, rows, columns: window.columns(x) };
                if let Some(pixel) = pixels.next() {
                    compute(&patch, pixel);
                }
            }
        }
    }
}

impl<T> Patch<'_, T> {
    /// Whether all taps lie inside the image.
    #[inline(always)]
    pub(crate) fn is_complete(&self) -> bool {
        self.rows.count == self.window.k_h && self.columns.count == self.window.k_w
    }

    /// Calls `visit` for each window row inside the image with the pixel under the first tap inside (its number in
    /// the image) and that tap's number in the window. The row has `columns.count` such taps.
    #[inline(always)]
    pub(crate) fn for_each_row(&self, mut visit: impl FnMut(usize, usize)) {
        if self.columns.count == 0 {
            return;
        }
        for row in 0..self.rows.count {
            let y = self.rows.position + row * self.window.dilation_h;
            let tap = (self.rows.first + row) * self.window.k_w + self.columns.first;
            visit(y * self.window.in_w + self.columns.position, tap);
        }
    }

    /// Calls `visit` for the taps outside the image, in runs: the number of the first tap, and how many.
    #[inline(always)]
    pub(crate) fn for_each_run_outside(&self, mut visit: impl FnMut(usize, usize)) {
        let width = self.window.k_w;
        let rows = if self.columns.count == 0 { 0 } else { self.rows.count };
        let mut start = 0;
        // What lies right of the image in one row and left of it in the next is one run.
        for row in 0..=rows {
            let end = match row < rows {
                true => (self.rows.first + row) * width + self.columns.first,
                false => self.window.k_h * width,
            };
            if start < end {
                visit(start, end - start);
            }
            start = end + self.columns.count;
        }
    }
}

impl<T: Activation> Patch<'_, T> {
    /// `sum(x)` over all taps and the channels of `group`, where padding reads as `zero_point`.
    #[inline(never)]
    pub(crate) fn sum(&self, group: usize, zero_point: i32) -> i32 {
        let mut sum = 0i32;
        self.runs(group).for_each(|values, _| {
            for &value in values {
                sum = sum.wrapping_add(value.into());
            }
        });
        let depth = self.window.depth();
        self.for_each_run_outside(|_, taps| {
            sum = sum.wrapping_add(((taps * depth) as i32).wrapping_mul(zero_point));
        });
        sum
    }

    /// `sum(w)` over the taps outside the image for each filter of a block, as in [`Activation::dot`].
    #[inline(never)]
    pub(crate) fn weights_outside(&self, filters: &[i8], stride: usize) -> [i32; BLOCK] {
        let depth = self.window.depth();
        let mut sums = [0; BLOCK];
        self.for_each_run_outside(|tap, taps| {
            let (mut at, end) = (tap * depth, (tap + taps) * depth);
            while at < end {
                let ones = ONES.get(..end - at).unwrap_or(&ONES);
                i8::dot(&mut sums, ones, 0, skip(filters, at), stride);
                at += ones.len();
            }
        });
        sums
    }

    /// The taps inside the image, with the channels of `group`, in runs of consecutive elements. A run is all of a
    /// filter row, unless dilation or groups tear its taps apart.
    #[inline(always)]
    pub(crate) fn runs(&self, group: usize) -> Runs<'_, T> {
        let (w, rows, columns) = (self.window, self.rows, self.columns);
        let depth = w.depth();
        let dense = w.groups == 1 && w.dilation_w == 1;
        let (runs, run_len) = if dense { (1, columns.count * depth) } else { (columns.count, depth) };
        // The coordinates of a window beside the image mean nothing; nothing is read then.
        let first_pixel = rows.position.wrapping_mul(w.in_w).wrapping_add(columns.position);
        let row_len = w.in_w * w.in_c;
        Runs {
            image: self.image,
            rows: if columns.count == 0 { 0 } else { rows.count },
            runs,
            run_len,
            start: first_pixel.wrapping_mul(w.in_c).wrapping_add(group * depth),
            row_step: row_len.wrapping_mul(w.dilation_h),
            run_step: w.in_c.wrapping_mul(w.dilation_w),
            weight_start: rows.first.wrapping_mul(w.k_w).wrapping_add(columns.first).wrapping_mul(depth),
            weight_row_step: w.k_w * depth,
        }
    }
}

/// Runs of consecutive input elements and the weights that go with them, in elements of the image and of a filter.
pub(crate) struct Runs<'a, T> {
    image: &'a [T],
    rows: usize,
    /// Runs in a row; their weights lie one behind the other.
    runs: usize,
    run_len: usize,
    start: usize,
    row_step: usize,
    run_step: usize,
    weight_start: usize,
    weight_row_step: usize,
}

impl<T: Activation> Runs<'_, T> {
    /// Calls `visit` for each run with its input values and the place of its weights in a filter.
    #[inline(always)]
    fn for_each(&self, mut visit: impl FnMut(&[T], usize)) {
        let (mut row, mut weight_row) = (self.start, self.weight_start);
        for _ in 0..self.rows {
            let (mut run, mut weights) = (row, weight_row);
            for _ in 0..self.runs {
                visit(part(self.image, run, self.run_len), weights);
                run = run.wrapping_add(self.run_step);
                weights = weights.wrapping_add(self.run_len);
            }
            row = row.wrapping_add(self.row_step);
            weight_row = weight_row.wrapping_add(self.weight_row_step);
        }
    }

    /// `sum(x * w)` over the runs for each filter of a block, as in [`Activation::dot`].
    #[inline(always)]
    pub(crate) fn dot(&self, filters: &[i8], stride: usize) -> [T::Sum; BLOCK] {
        let mut sums = [T::Sum::default(); BLOCK];
        self.for_each(|values, at| T::dot(&mut sums, values, 0, skip(filters, at), stride));
        sums
    }
}
