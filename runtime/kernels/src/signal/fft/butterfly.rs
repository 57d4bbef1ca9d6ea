//! Butterflies: each combines the spectra of `radix` interleaved sequences into one, in place.
//!
//! A block holds `radix` spectra of `m` bins, one after the other. Twiddle factor `k` is `exp(-2 pi i k / n)`; a block
//! uses every `stride`-th of them, where `n = stride * radix * m`.

use super::FftScalar;

/// Real and imaginary part.
pub(super) type Complex<T> = [T; 2];

#[inline(always)]
pub(super) fn add<T: FftScalar>(a: Complex<T>, b: Complex<T>) -> Complex<T> {
    [T::add(a[0], b[0]), T::add(a[1], b[1])]
}

#[inline(always)]
pub(super) fn sub<T: FftScalar>(a: Complex<T>, b: Complex<T>) -> Complex<T> {
    [T::sub(a[0], b[0]), T::sub(a[1], b[1])]
}

#[inline(always)]
pub(super) fn mul<T: FftScalar>(a: Complex<T>, b: Complex<T>) -> Complex<T> {
    [T::mul_sub(a[0], b[0], a[1], b[1]), T::mul_add(a[0], b[1], a[1], b[0])]
}

#[inline(always)]
pub(super) fn scale_down<T: FftScalar>(a: Complex<T>, radix: u8) -> Complex<T> {
    [T::scale_down(a[0], radix), T::scale_down(a[1], radix)]
}

/// `a - i b`.
#[inline(always)]
fn sub_i<T: FftScalar>(a: Complex<T>, b: Complex<T>) -> Complex<T> {
    [T::add(a[0], b[1]), T::sub(a[1], b[0])]
}

/// `a + i b`.
#[inline(always)]
fn add_i<T: FftScalar>(a: Complex<T>, b: Complex<T>) -> Complex<T> {
    [T::sub(a[0], b[1]), T::add(a[1], b[0])]
}

/// Every `step`-th twiddle factor.
#[inline(always)]
fn every<T: FftScalar>(twiddles: &[Complex<T>], step: usize) -> impl Iterator<Item = Complex<T>> {
    twiddles.iter().step_by(step.max(1)).copied()
}

/// Twiddle factor `index`.
#[inline(always)]
fn at<T: FftScalar>(twiddles: &[Complex<T>], index: usize) -> Complex<T> {
    twiddles.get(index).copied().unwrap_or_default()
}

/// Combines two spectra.
#[inline(never)]
pub(super) fn radix_2<T: FftScalar>(
    block: &mut [Complex<T>],
    m: usize,
    twiddles: &[Complex<T>],
    stride: usize,
) {
    let (even, odd) = block.split_at_mut(m.min(block.len()));
    for ((a, b), twiddle) in even.iter_mut().zip(odd).zip(every(twiddles, stride)) {
        let first = scale_down(*a, 2);
        let second = mul(scale_down(*b, 2), twiddle);
        *a = add(first, second);
        *b = sub(first, second);
    }
}

/// Combines three spectra.
#[inline(never)]
pub(super) fn radix_3<T: FftScalar>(
    block: &mut [Complex<T>],
    m: usize,
    twiddles: &[Complex<T>],
    stride: usize,
) {
    let [_, sine] = at(twiddles, stride * m); // of -2 pi / 3
    let Some([a, b, c]) = parts(block, m) else { return };
    let twiddles = every(twiddles, stride).zip(every(twiddles, 2 * stride));
    for (((a, b), c), (tb, tc)) in a.iter_mut().zip(b).zip(c).zip(twiddles) {
        let first = scale_down(*a, 3);
        let second = mul(scale_down(*b, 3), tb);
        let third = mul(scale_down(*c, 3), tc);
        let (sum, difference) = (add(second, third), sub(second, third));
        let centre = sub(first, sum.map(T::half));
        let offset = difference.map(|x| T::mul(x, sine));
        *a = add(first, sum);
        *b = add_i(centre, offset);
        *c = sub_i(centre, offset);
    }
}

/// Combines four spectra.
#[inline(never)]
pub(super) fn radix_4<T: FftScalar>(
    block: &mut [Complex<T>],
    m: usize,
    twiddles: &[Complex<T>],
    stride: usize,
) {
    let Some([a, b, c, d]) = parts(block, m) else { return };
    let twiddles = every(twiddles, stride).zip(every(twiddles, 2 * stride)).zip(every(twiddles, 3 * stride));
    for ((((a, b), c), d), ((tb, tc), td)) in a.iter_mut().zip(b).zip(c).zip(d).zip(twiddles) {
        let first = scale_down(*a, 4);
        let second = mul(scale_down(*b, 4), tb);
        let third = mul(scale_down(*c, 4), tc);
        let fourth = mul(scale_down(*d, 4), td);
        let (even_sum, even_difference) = (add(first, third), sub(first, third));
        let (odd_sum, odd_difference) = (add(second, fourth), sub(second, fourth));
        *a = add(even_sum, odd_sum);
        *b = sub_i(even_difference, odd_difference);
        *c = sub(even_sum, odd_sum);
        *d = add_i(even_difference, odd_difference);
    }
}

/// Combines five spectra.
#[inline(never)]
pub(super) fn radix_5<T: FftScalar>(
    block: &mut [Complex<T>],
    m: usize,
    twiddles: &[Complex<T>],
    stride: usize,
) {
    let [cos_1, sin_1] = at(twiddles, stride * m); // of -2 pi / 5
    let [cos_2, sin_2] = at(twiddles, 2 * stride * m); // of -4 pi / 5
    let Some([a, b, c, d, e]) = parts(block, m) else { return };
    let lower = every(twiddles, stride).zip(every(twiddles, 2 * stride));
    let upper = every(twiddles, 3 * stride).zip(every(twiddles, 4 * stride));
    let blocks = a.iter_mut().zip(b.iter_mut().zip(c)).zip(d.iter_mut().zip(e));
    for (((a, (b, c)), (d, e)), ((tb, tc), (td, te))) in blocks.zip(lower.zip(upper)) {
        let first = scale_down(*a, 5);
        let second = mul(scale_down(*b, 5), tb);
        let third = mul(scale_down(*c, 5), tc);
        let fourth = mul(scale_down(*d, 5), td);
        let fifth = mul(scale_down(*e, 5), te);
        let (outer_sum, outer_difference) = (add(second, fifth), sub(second, fifth));
        let (inner_sum, inner_difference) = (add(third, fourth), sub(third, fourth));
        let scaled = |x: Complex<T>, factor| x.map(|x| T::mul(x, factor));

        *a = add(first, add(outer_sum, inner_sum));
        let centre = add(add(first, scaled(outer_sum, cos_1)), scaled(inner_sum, cos_2));
        let offset = add(scaled(outer_difference, sin_1), scaled(inner_difference, sin_2));
        *b = add_i(centre, offset);
        *e = sub_i(centre, offset);
        let centre = add(add(first, scaled(outer_sum, cos_2)), scaled(inner_sum, cos_1));
        let offset = sub(scaled(outer_difference, sin_2), scaled(inner_difference, sin_1));
        *c = add_i(centre, offset);
        *d = sub_i(centre, offset);
    }
}

/// Splits a block into its `RADIX` spectra of `m` bins.
#[inline(always)]
fn parts<T, const RADIX: usize>(mut block: &mut [T], m: usize) -> Option<[&mut [T]; RADIX]> {
    let mut parts = [const { None }; RADIX];
    for part in &mut parts {
        let (first, rest) = block.split_at_mut_checked(m)?;
        *part = Some(first);
        block = rest;
    }
    Some(parts.map(Option::unwrap_or_default))
}
