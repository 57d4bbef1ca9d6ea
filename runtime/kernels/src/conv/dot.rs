//! The inner loop of all layers with int8 weights: one run of input values against a block of filters.

/// Output channels computed together, so that an input value is loaded once for all of them. Four accumulators,
/// five pointers and the operands just fit the registers of a Cortex-M.
pub(crate) const BLOCK: usize = 4;

/// An activation type, with the accumulator that TensorFlow Lite Micro gives it.
pub(crate) trait Activation: Copy + Into<i32> + From<i8> {
    /// `i32` or `i64`; wraps around.
    type Sum: Copy + Default + From<i32>;

    /// Whether zero points may differ from 0.
    const ZERO_POINTS: bool;

    /// `a + b`.
    fn add(a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// `a + x * w`.
    fn multiply_add(a: Self::Sum, x: Self, w: i8) -> Self::Sum;

    /// Adds `sum((x - zero_point) * w)` to the sum of each filter of a block. The filters' weights for `x` begin at
    /// the start of `weights` and then every `stride` elements; where `weights` ends early the block has fewer filters.
    /// `zero_point` is an int8, and 0 for int16 activations.
    fn dot(sums: &mut [Self::Sum; BLOCK], x: &[Self], zero_point: i16, weights: &[i8], stride: usize);
}

impl Activation for i8 {
    type Sum = i32;

    const ZERO_POINTS: bool = true;

    #[inline(always)]
    fn add(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn multiply_add(a: i32, x: i8, w: i8) -> i32 {
        a.wrapping_add(i32::from(x) * i32::from(w))
    }

    #[inline(always)]
    fn dot(sums: &mut [i32; BLOCK], x: &[i8], zero_point: i16, weights: &[i8], stride: usize) {
        match zero_point {
            0 => dot(sums, x, |&x| x.into(), weights, stride),
            _ => dot(sums, x, |&x| i16::from(x).wrapping_sub(zero_point), weights, stride),
        }
    }
}

/// Products of int16 and int8 that fit into an `i32` together: 2^8 * 2^15 * 2^7 = 2^30.
const SAFE_PRODUCTS: usize = 1 << 8;

impl Activation for i16 {
    type Sum = i64;

    const ZERO_POINTS: bool = false;

    #[inline(always)]
    fn add(a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn multiply_add(a: i64, x: i16, w: i8) -> i64 {
        a.wrapping_add(i64::from(i32::from(x) * i32::from(w)))
    }

    #[inline(always)]
    fn dot(sums: &mut [i64; BLOCK], x: &[i16], _zero_point: i16, weights: &[i8], stride: usize) {
        for (index, x) in x.chunks(SAFE_PRODUCTS).enumerate() {
            let mut products = [0; BLOCK];
            dot(&mut products, x, |&x| x, skip(weights, index * SAFE_PRODUCTS), stride);
            for (sum, products) in sums.iter_mut().zip(products) {
                *sum = sum.wrapping_add(i64::from(products));
            }
        }
    }
}

/// The multiply-accumulate loop. Plain zips over slices: no index to check, and a form that compilers turn into
/// `smlabb` on Cortex-M4 and into `pmaddwd` on x86. Out of line, so that the loop has all registers to itself.
#[inline(never)]
fn dot<T>(sums: &mut [i32; BLOCK], x: &[T], widen: impl Fn(&T) -> i16, weights: &[i8], stride: usize) {
    let multiply = |x: &T, w: i8| i32::from(widen(x)) * i32::from(w);
    if let Some((a, rest)) = weights.split_at_checked(stride)
        && let Some((b, rest)) = rest.split_at_checked(stride)
        && let Some((c, d)) = rest.split_at_checked(stride)
        && d.len() >= x.len()
    {
        let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = *sums;
        for ((((x, &a), &b), &c), &d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
            sum_a = sum_a.wrapping_add(multiply(x, a));
            sum_b = sum_b.wrapping_add(multiply(x, b));
            sum_c = sum_c.wrapping_add(multiply(x, c));
            sum_d = sum_d.wrapping_add(multiply(x, d));
        }
        *sums = [sum_a, sum_b, sum_c, sum_d];
    } else {
        for (sum, filter) in sums.iter_mut().zip(weights.chunks(stride.max(1))) {
            *sum = x.iter().zip(filter).fold(*sum, |sum, (x, &w)| sum.wrapping_add(multiply(x, w)));
        }
    }
}

/// `weights` without the first `count`.
#[inline(always)]
pub(crate) fn skip(weights: &[i8], count: usize) -> &[i8] {
    weights.get(count..).unwrap_or_default()
}
