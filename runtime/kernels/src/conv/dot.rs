//! The inner loop of all layers with int8 weights: one run of input values against a block of filters.

use crate::window::part;

/// Output channels computed together, so that an input value is loaded once for all of them. Four accumulators,
/// five pointers and the operands just fit the registers of a Cortex-M.
pub(crate) const BLOCK: usize = 4;

/// An activation type, with the accumulator that TensorFlow Lite Micro gives it.
pub(crate) trait Activation: Copy + Into<i32> + From<i8> {
    /// `i32` or `i64`; wraps around.
    type Sum: Copy + Default + From<i32>;

    /// `a + b`.
    fn add(a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// `a + x * w`.
    fn multiply_add(a: Self::Sum, x: Self, w: i8) -> Self::Sum;

    /// Adds `sum((x - zero_point) * w)` to the sum of each filter, as far as `x` goes. `zero_point` is an int8, and 0
    /// for int16 activations.
    fn dot(
        sums: [Self::Sum; BLOCK],
        x: &[Self],
        zero_point: i16,
        filters: FilterBlock<'_>,
    ) -> [Self::Sum; BLOCK];
}

impl Activation for i8 {
    type Sum = i32;

    #[inline(always)]
    fn add(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn multiply_add(a: i32, x: i8, w: i8) -> i32 {
        a.wrapping_add(i32::from(x) * i32::from(w))
    }

    #[inline(always)]
    fn dot(mut sums: [i32; BLOCK], x: &[i8], zero_point: i16, filters: FilterBlock<'_>) -> [i32; BLOCK] {
        match zero_point {
            0 => dot(&mut sums, x, |&x| x.into(), filters),
            _ => dot(&mut sums, x, |&x| i16::from(x).wrapping_sub(zero_point), filters),
        }
        sums
    }
}

/// Products of int16 and int8 that fit into an `i32` together: 2^8 * 2^15 * 2^7 = 2^30.
const SAFE_PRODUCTS: usize = 1 << 8;

impl Activation for i16 {
    type Sum = i64;

    #[inline(always)]
    fn add(a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn multiply_add(a: i64, x: i16, w: i8) -> i64 {
        a.wrapping_add(i64::from(i32::from(x) * i32::from(w)))
    }

    #[inline(always)]
    fn dot(mut sums: [i64; BLOCK], x: &[i16], _zero_point: i16, filters: FilterBlock<'_>) -> [i64; BLOCK] {
        for (index, x) in x.chunks(SAFE_PRODUCTS).enumerate() {
            let mut products = [0; BLOCK];
            dot(&mut products, x, |&x| x, filters.from(index * SAFE_PRODUCTS));
            for (sum, products) in sums.iter_mut().zip(products) {
                *sum = sum.wrapping_add(i64::from(products));
            }
        }
        sums
    }
}

/// The multiply-accumulate loop. Plain zips over slices: no index to check, and a form that compilers turn into
/// `smlabb` on Cortex-M4 and into `pmaddwd` on x86. Out of line, so that the loop has all registers to itself.
#[inline(never)]
fn dot<T>(sums: &mut [i32; BLOCK], x: &[T], widen: impl Fn(&T) -> i16, filters: FilterBlock<'_>) {
    let [a, b, c, d] = core::array::from_fn(|index| filters.weights(index, x.len()));
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = *sums;
    for ((((x, &a), &b), &c), &d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
        let x = i32::from(widen(x));
        sum_a = sum_a.wrapping_add(x * i32::from(a));
        sum_b = sum_b.wrapping_add(x * i32::from(b));
        sum_c = sum_c.wrapping_add(x * i32::from(c));
        sum_d = sum_d.wrapping_add(x * i32::from(d));
    }
    *sums = [sum_a, sum_b, sum_c, sum_d];
}

/// The filters of up to [`BLOCK`] neighbouring output channels. A short block repeats its last filter: that spares a
/// second copy of the inner loop for the last channels.
#[derive(Clone, Copy)]
pub(crate) struct FilterBlock<'a> {
    weights: &'a [i8],
    /// Elements from one filter to the next.
    stride: usize,
    /// Index of the last filter.
    last: usize,
}

/// The filters, of `filter_len` weights each, of `count <= BLOCK` output channels from `first` on.
#[inline(always)]
pub(crate) fn filter_block(weights: &[i8], filter_len: usize, first: usize, count: usize) -> FilterBlock<'_> {
    let weights = weights.get(first * filter_len..).unwrap_or_default();
    FilterBlock { weights, stride: filter_len, last: count.saturating_sub(1) }
}

impl<'a> FilterBlock<'a> {
    /// The same filters without their first `skipped` weights.
    #[inline(always)]
    pub(crate) fn from(self, skipped: usize) -> Self {
        FilterBlock { weights: self.weights.get(skipped..).unwrap_or_default(), ..self }
    }

    /// The first `len` weights of filter `index`.
    #[inline(always)]
    pub(crate) fn weights(self, index: usize, len: usize) -> &'a [i8] {
        part(self.weights, index.min(self.last).wrapping_mul(self.stride), len)
    }
}
