//! The FFT of real samples.
//!
//! A mixed-radix (4, 2, 3, 5) decimation in time over half as many complex numbers, then one pass that separates
//! even from odd samples. In fixed point every butterfly first divides its inputs by the radix, so that nothing
//! overflows and the result is the spectrum divided by the length; every rounding is that of KISS FFT (version 130),
//! which TensorFlow Lite Micro uses.

mod butterfly;
mod scalar;

use crate::KernelError;
use crate::window::part;
use butterfly::Complex;
use scalar::FftScalar;

/// The largest length of an FFT.
pub const RFFT_MAX_LEN: usize = 1 << 16;

/// Parameters of an FFT of real samples.
#[derive(Clone, Debug)]
pub struct Rfft {
    /// Samples of a frame, 1 ..= `length`; zeros follow up to the length.
    pub frame: usize,
    /// Length of the FFT: see [`rfft_supports`].
    pub length: usize,
}

/// Whether there is an FFT of this length: even, 4 ..= [`RFFT_MAX_LEN`], and half of it has no prime factor above 5.
pub const fn rfft_supports(length: usize) -> bool {
    Factors::new(length).is_some()
}

/// Numbers in the table of factors for a length: pairs (cosine, sine), first of the angles `-2 pi k / n` for `k` in
/// `0 .. n`, then of `-pi (k / n + 1/2)` for `k` in `1 ..= n / 2`, where `n` is half the length.
pub const fn rfft_twiddle_len(length: usize) -> usize {
    let n = length / 2;
    2 * (n + n / 2)
}

/// The spectrum of every frame of `input`: bins 0 to `length / 2` as pairs (real, imaginary), divided by the length.
/// `twiddles` is the table of [`rfft_twiddle_len`] numbers as `floor(32767 * x + 1/2)`.
///
/// # Errors
/// [`KernelError::Parameter`] for a length without FFT or a frame that is empty or longer; [`KernelError::Shape`] when
/// the input is not a whole number of frames, the output not as many spectra, or the table not of its length.
pub fn rfft_i16(p: &Rfft, twiddles: &[i16], input: &[i16], output: &mut [i16]) -> Result<(), KernelError> {
    rfft(p, twiddles, input, output)
}

/// As [`rfft_i16`] for int32; the table holds `floor((2^31 - 1) * x + 1/2)`.
///
/// # Errors
/// As [`rfft_i16`].
pub fn rfft_i32(p: &Rfft, twiddles: &[i32], input: &[i32], output: &mut [i32]) -> Result<(), KernelError> {
    rfft(p, twiddles, input, output)
}

/// As [`rfft_i16`] for float32; the spectrum is not divided by the length, the table holds the numbers themselves.
///
/// # Errors
/// As [`rfft_i16`].
pub fn rfft_f32(p: &Rfft, twiddles: &[f32], input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
    rfft(p, twiddles, input, output)
}

fn rfft<T: FftScalar>(p: &Rfft, twiddles: &[T], input: &[T], output: &mut [T]) -> Result<(), KernelError> {
    let factors = Factors::new(p.length).ok_or(KernelError::Parameter)?;
    if p.frame == 0 || p.frame > p.length {
        return Err(KernelError::Parameter);
    }
    let spectrum = p.length.saturating_add(2);
    let fits = twiddles.len() == rfft_twiddle_len(p.length)
        && input.len().is_multiple_of(p.frame)
        && output.len().is_multiple_of(spectrum)
        && input.len() / p.frame == output.len() / spectrum;
    if !fits {
        return Err(KernelError::Shape);
    }
    let Some((twiddles, separation)) = twiddles.as_chunks().0.split_at_checked(p.length / 2) else {
        return Err(KernelError::Shape);
    };
    for (row, spectrum) in output.chunks_exact_mut(spectrum).enumerate() {
        let samples = part(input, row * p.frame, p.frame);
        let bins = spectrum.as_chunks_mut().0;
        if let Some((_, packed)) = bins.split_last_mut() {
            gather(&factors, samples, packed);
            transform(&factors, twiddles, packed);
        }
        separate(bins, separation);
    }
    Ok(())
}

/// Stages of the longest FFT: 3^9 < 2^15 < 3^10, and a length of 2^15 takes 8.
const MAX_STAGES: usize = 10;

/// The radices of the stages of a complex FFT, the outermost first.
struct Factors {
    radices: [u8; MAX_STAGES],
    stages: usize,
}

impl Factors {
    /// Factors half the length of a real FFT: as many fours as possible, then two, threes and fives.
    const fn new(length: usize) -> Option<Self> {
        if length < 4 || length > RFFT_MAX_LEN || !length.is_multiple_of(2) {
            return None;
        }
        let mut factors = Factors { radices: [0; MAX_STAGES], stages: 0 };
        let (mut rest, mut radix) = (length / 2, 4);
        while rest > 1 {
            if rest.is_multiple_of(radix) && factors.stages < MAX_STAGES {
                factors.radices[factors.stages] = radix as u8;
                factors.stages += 1;
                rest /= radix;
            } else {
                radix = match radix {
                    4 => 2,
                    2 => 3,
                    3 => 5,
                    _ => return None,
                };
            }
        }
        Some(factors)
    }

    /// The radices, the outermost first.
    fn radices(&self) -> &[u8] {
        self.radices.get(..self.stages).unwrap_or_default()
    }
}

/// Takes pairs of samples as complex numbers, in the order in which the innermost butterflies want them: that of
/// their index with its digits reversed.
fn gather<T: FftScalar>(factors: &Factors, samples: &[T], packed: &mut [Complex<T>]) {
    let n = packed.len();
    let sample = |index: usize| samples.get(index).copied().unwrap_or_default();
    let mut digits = [0u8; MAX_STAGES];
    let mut source = 0usize;
    for value in packed {
        *value = [sample(2 * source), sample(2 * source + 1)];
        // Count up, the innermost digit first, whose unit is the largest step through the samples.
        let mut step = n;
        for (digit, &radix) in digits.iter_mut().zip(factors.radices()).rev() {
            step /= usize::from(radix.max(1));
            source += step;
            *digit += 1;
            if *digit < radix {
                break;
            }
            *digit = 0;
            source = source.wrapping_sub(step * usize::from(radix));
        }
    }
}

/// All butterflies, from the smallest blocks to the whole.
fn transform<T: FftScalar>(factors: &Factors, twiddles: &[Complex<T>], packed: &mut [Complex<T>]) {
    let n = packed.len();
    let mut m = 1;
    for &radix in factors.radices().iter().rev() {
        let size = m * usize::from(radix);
        let stride = n.checked_div(size).unwrap_or(0);
        for block in packed.chunks_exact_mut(size.max(1)) {
            match radix {
                2 => butterfly::radix_2(block, m, twiddles, stride),
                3 => butterfly::radix_3(block, m, twiddles, stride),
                4 => butterfly::radix_4(block, m, twiddles, stride),
                _ => butterfly::radix_5(block, m, twiddles, stride),
            }
        }
        m = size;
    }
}

/// Turns the spectrum of the `n` packed numbers into the `n + 1` bins of the real samples' spectrum, in place; what the
/// last bin held does not matter.
fn separate<T: FftScalar>(bins: &mut [Complex<T>], twiddles: &[Complex<T>]) {
    let [first, middle @ .., last] = bins else { return };
    let [even, odd] = butterfly::scale_down(*first, 2);
    *first = [T::add(even, odd), T::default()];
    *last = [T::sub(even, odd), T::default()];
    // Bins k and n - k together. With an even n the bin in between is its own partner.
    let pairs = middle.len() / 2;
    let (lower, upper) = middle.split_at_mut(pairs);
    let mut twiddles = twiddles.iter();
    for ((low, high), &twiddle) in lower.iter_mut().zip(upper.iter_mut().rev()).zip(twiddles.by_ref()) {
        (*low, *high) = separate_pair(*low, *high, twiddle);
    }
    if let ([centre, ..], Some(&twiddle)) = (upper, twiddles.next()) {
        (_, *centre) = separate_pair(*centre, *centre, twiddle);
    }
}

/// Bins `k` and `n - k` of the real samples' spectrum from the same bins of the packed one.
#[inline(always)]
fn separate_pair<T: FftScalar>(
    low: Complex<T>,
    high: Complex<T>,
    twiddle: Complex<T>,
) -> (Complex<T>, Complex<T>) {
    let low = butterfly::scale_down(low, 2);
    let mirrored = butterfly::scale_down([high[0], T::neg(high[1])], 2);
    let even = butterfly::add(low, mirrored);
    let odd = butterfly::mul(butterfly::sub(low, mirrored), twiddle);
    (
        [T::half_sum(even[0], odd[0]), T::half_sum(even[1], odd[1])],
        [T::half_difference(even[0], odd[0]), T::half_difference(odd[1], even[1])],
    )
}

#[cfg(test)]
mod tests;
