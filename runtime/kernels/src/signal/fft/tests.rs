extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// The table of factors, times `one`.
fn twiddles<T>(length: usize, convert: impl Fn(f64) -> T) -> Vec<T> {
    let (n, pi) = (length / 2, core::f64::consts::PI);
    let transform = (0..n).map(|k| -2.0 * pi * k as f64 / n as f64);
    let separation = (1..=n / 2).map(|k| -pi * (k as f64 / n as f64 + 0.5));
    transform.chain(separation).flat_map(|phase| [phase.cos(), phase.sin()]).map(convert).collect()
}

fn q15(x: f64) -> i16 {
    (0.5 + 32767.0 * x).floor() as i16
}

fn spectrum<T: FftScalar>(length: usize, twiddles: &[T], samples: &[T]) -> Vec<T> {
    let mut output = vec![T::default(); length + 2];
    rfft(&Rfft { frame: samples.len(), length }, twiddles, samples, &mut output).unwrap();
    output
}

/// Expected values are those of TensorFlow Lite Micro's Python interpreter.
#[test]
fn int16_equals_the_oracle() {
    // Radices 4 and 3, an odd frame and one zero behind it.
    let samples: [i16; 23] = [
        23270, -20504, -31483, -4273, -20885, 25160, 24034, -8168, -12531, 13820, -3060, -26424, 10652,
        14897, -28174, 18118, 2217, 21349, 22940, 11416, -10917, -8472, 14690,
    ];
    let expected = [
        1153, 0, -826, 2587, -3617, 710, 1783, 2281, 4817, 3553, 1716, 2155, -297, -2315, -2604, 3152, 5677,
        -1935, 1058, 436, 2284, -4088, 2024, 19, -1923, 0,
    ];
    assert_eq!(spectrum(24, &twiddles(24, q15), &samples), expected);
    // Radices 2 and 5.
    let samples: [i16; 20] = [
        -28560, -17629, 1230, 29018, 16872, 20680, -20262, -14397, -15320, 16353, 2367, -18932, 16274, 9059,
        25990, 3844, -24528, 25464, -20692, -29167,
    ];
    let expected = [
        -1116, 0, -2922, -246, -5499, -5706, -4832, -427, -2115, 4516, -1194, -4177, 932, -672, 3453, -1061,
        2464, 4534, -2234, -1275, -3544, 0,
    ];
    assert_eq!(spectrum(20, &twiddles(20, q15), &samples), expected);
}

#[test]
fn every_radix_agrees_with_the_definition() {
    for length in [4, 6, 8, 10, 12, 16, 18, 30, 36, 50, 64, 90, 120, 150, 256, 480, 500] {
        let samples: Vec<f32> = (0..length).map(|i| ((i * i + 3 * i) % 17) as f32 / 17.0 - 0.4).collect();
        let found = spectrum(length, &twiddles(length, |x| x as f32), &samples);
        let fixed: Vec<i32> = samples.iter().map(|x| (x * 2f32.powi(30)) as i32).collect();
        let found_fixed =
            spectrum(length, &twiddles(length, |x| (0.5 + f64::from(i32::MAX) * x).floor() as i32), &fixed);
        for bin in 0..=length / 2 {
            let (mut real, mut imaginary) = (0.0, 0.0);
            for (i, &x) in samples.iter().enumerate() {
                let phase = -2.0 * core::f64::consts::PI * ((bin * i) % length) as f64 / length as f64;
                real += f64::from(x) * phase.cos();
                imaginary += f64::from(x) * phase.sin();
            }
            let error =
                f64::hypot(f64::from(found[2 * bin]) - real, f64::from(found[2 * bin + 1]) - imaginary);
            assert!(error < 1e-4, "length {length}, bin {bin}: {error}");
            // In fixed point the spectrum is divided by the length.
            let unit = 2f64.powi(30) / length as f64;
            let [re, im] = [found_fixed[2 * bin], found_fixed[2 * bin + 1]].map(|x| f64::from(x) / unit);
            let error = f64::hypot(re - real, im - imaginary);
            assert!(error < 1e-5, "length {length}, bin {bin}, fixed point: {error}");
        }
    }
}

#[test]
fn knows_its_lengths() {
    for length in [4, 6, 8, 480, 512, 1 << 16, 2 * 19_683] {
        assert!(rfft_supports(length), "{length}");
    }
    for length in [0, 1, 2, 3, 5, 14, 22, 511, 1 << 17, 2 * 59_049, usize::MAX, usize::MAX - 1] {
        assert!(!rfft_supports(length), "{length}");
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let table = twiddles(8, q15);
    let run = |frame, length, twiddles: &[i16], input: usize, output: usize| {
        rfft(&Rfft { frame, length }, twiddles, &[1; 99][..input], &mut [0; 99][..output])
    };
    assert_eq!(run(7, 8, &table, 14, 20), Ok(()));
    assert_eq!(run(7, 8, &table, 13, 20), Err(KernelError::Shape));
    assert_eq!(run(7, 8, &table, 14, 10), Err(KernelError::Shape));
    assert_eq!(run(7, 8, &table[1..], 14, 20), Err(KernelError::Shape));
    assert_eq!(run(9, 8, &table, 18, 20), Err(KernelError::Parameter));
    assert_eq!(run(0, 8, &table, 0, 0), Err(KernelError::Parameter));
    assert_eq!(run(7, 14, &table, 14, 32), Err(KernelError::Parameter));
}

proptest! {
    /// Whatever stands in the table and the samples: a result, never a panic.
    #[test]
    fn is_total(length in prop::sample::select(&[4usize, 6, 8, 10, 36, 50, 60, 128][..]), seed: u64) {
        let mut state = seed;
        let mut extreme = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            [i32::MIN, i32::MAX, -1, (state >> 32) as i32][(state >> 60) as usize % 4]
        };
        let table: Vec<i32> = (0..rfft_twiddle_len(length)).map(&mut extreme).collect();
        let samples: Vec<i32> = (0..length).map(&mut extreme).collect();
        spectrum(length, &table, &samples);
        let narrow = |all: &[i32]| all.iter().map(|x| (x >> 16) as i16).collect::<Vec<_>>();
        spectrum(length, &narrow(&table), &narrow(&samples));
    }
}
