extern crate std;

use super::testing::{Case, Kind, case, pattern_i8, pattern_i16, reference_sums};
use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn folded(case: &Case) -> Vec<i32> {
    let filter_len = case.weights.len() / case.bias.len();
    let fold = |(&bias, filter): (&i32, &[i8])| {
        fold_bias(bias, filter.iter().copied(), case.p.input_zero_point, case.p.weights_zero_point)
    };
    case.bias.iter().zip(case.weights.chunks(filter_len)).map(fold).collect()
}

fn run_i8(case: &Case) -> Vec<i8> {
    let mut output = vec![0; case.p.window.output_len().unwrap()];
    let bias = folded(case);
    conv2d_i8(
        &case.p,
        &case.input_i8(),
        &case.weights,
        Some(&bias),
        &case.multipliers,
        &case.shifts,
        &mut output,
    )
    .unwrap();
    output
}

/// 4x4x3 to 4x2x5, 2x3 taps, stride 1x2, padded below and to the right only.
fn example_i8() -> Case {
    let window = Window {
        batch: 1,
        in_h: 4,
        in_w: 4,
        in_c: 3,
        out_h: 4,
        out_w: 2,
        out_c: 5,
        k_h: 2,
        k_w: 3,
        stride_h: 1,
        stride_w: 2,
        dilation_h: 1,
        dilation_w: 1,
        pad_top: 0,
        pad_left: 0,
        groups: 1,
    };
    Case {
        p: Conv2D {
            window,
            input_zero_point: -7,
            weights_zero_point: 0,
            output_zero_point: 4,
            activation_min: -128,
            activation_max: 127,
        },
        input: pattern_i8(48, 37, 11).into_iter().map(i16::from).collect(),
        weights: pattern_i8(90, 53, 7),
        bias: vec![1000, -2000, 300, 0, 77],
        multipliers: vec![1221679610, 1954687512, 1221679610, 1710351545, 1145324705],
        shifts: vec![-10, -12, -9, -11, -5],
    }
}

/// 3x3x2 to 3x3x3, 2x2 taps, dilation 2, padding 1.
fn example_i16() -> Case {
    let mut example = example_i8();
    example.p.window = Window {
        in_h: 3,
        in_w: 3,
        in_c: 2,
        out_h: 3,
        out_w: 3,
        out_c: 3,
        k_h: 2,
        k_w: 2,
        stride_w: 1,
        dilation_h: 2,
        dilation_w: 2,
        pad_top: 1,
        pad_left: 1,
        ..example.p.window
    };
    Case {
        p: example.wide(),
        input: pattern_i16(18, 9377, 11),
        weights: pattern_i8(24, 53, 7),
        bias: vec![100_000, -200_000, 30],
        multipliers: vec![1999112112, 1599289801, 1999112112],
        shifts: vec![-10, -11, -9],
    }
}

// Golden vectors: TensorFlow Lite Micro (PyPI tflite-micro, October 2026), single-operator models over the pattern.

#[test]
fn conv2d_i8_equals_tensorflow_lite_micro() {
    let expected = [
        4, 11, -28, -7, -128, -11, 5, -5, -9, 127, -16, 5, 35, 5, -128, -11, 0, 45, 15, -128, 19, -2, -4, 20,
        127, 25, 0, -10, 9, 54, 10, 2, -16, -1, 127, 10, 3, -5, 3, 127,
    ];
    assert_eq!(run_i8(&example_i8()), expected);
}

#[test]
fn conv2d_i16_equals_tensorflow_lite_micro() {
    let example = example_i16();
    let run = |bias: Bias16<'_>| {
        let mut output = vec![0; 27];
        let (m, s) = (&example.multipliers, &example.shifts);
        conv2d_i16(&example.p, &example.input, &example.weights, bias, m, s, &mut output).unwrap();
        output
    };
    let narrow = [
        1415, -520, -2759, 5576, -1057, -1252, -419, -381, 4406, 1994, 38, -7008, 5100, -1817, 830, 1584,
        -988, 7322, -72, 1052, -5733, -247, -777, -1958, 3511, -976, 1432,
    ];
    assert_eq!(run(Bias16::Narrow(Some(&example.bias))), narrow);
    let wide = [
        1415, -520, 32767, 5576, -1057, 32767, -419, -381, 32767, 1994, 38, 32767, 5100, -1817, 32767, 1584,
        -988, 32767, -72, 1052, 32767, -247, -777, 32767, 3511, -976, 32767,
    ];
    // The third channel's bias does not fit into 32 bits.
    assert_eq!(run(Bias16::Wide(Some(&[100_000, -200_000, 3 << 33]))), wide);
}

#[test]
fn narrow_accumulators_wrap_around() {
    let mut example = example_i16();
    example.bias = vec![i32::MAX; 3];
    let mut output = vec![0; 27];
    let Case { p, input, weights, bias, multipliers, shifts } = &example;
    conv2d_i16(p, input, weights, Bias16::Narrow(Some(bias)), multipliers, shifts, &mut output).unwrap();
    let sums = reference_sums(p, Kind::Plain, input, weights);
    assert!(sums[0] > 0, "the case must overflow");
    assert_eq!(output[0], i16::MIN);
}

#[test]
fn bias_may_be_absent() {
    let mut example = example_i8();
    example.p.input_zero_point = 0;
    example.bias = vec![0; 5];
    let mut output = vec![0; 40];
    let Case { p, weights, multipliers, shifts, .. } = &example;
    conv2d_i8(p, &example.input_i8(), weights, None, multipliers, shifts, &mut output).unwrap();
    assert_eq!(output, run_i8(&example));
}

#[test]
fn wrong_arguments_are_refused() {
    let example = example_i8();
    let call =
        |p: &Conv2D, input: usize, weights: usize, bias: usize, scales: (usize, usize), output: usize| {
            let bias = vec![0; bias];
            let (multipliers, shifts) = (vec![1 << 30; scales.0], vec![0; scales.1]);
            let mut output = vec![0; output];
            conv2d_i8(p, &vec![0; input], &vec![0; weights], Some(&bias), &multipliers, &shifts, &mut output)
        };
    let p = &example.p;
    assert_eq!(call(p, 48, 90, 5, (5, 5), 40), Ok(()));
    assert_eq!(call(p, 48, 90, 5, (1, 1), 40), Ok(()));
    for (input, weights, bias, scales, output) in [
        (47, 90, 5, (5, 5), 40),
        (48, 91, 5, (5, 5), 40),
        (48, 90, 4, (5, 5), 40),
        (48, 90, 5, (5, 1), 40),
        (48, 90, 5, (2, 2), 40),
        (48, 90, 5, (0, 0), 40),
        (48, 90, 5, (5, 5), 39),
    ] {
        assert_eq!(call(p, input, weights, bias, scales, output), Err(KernelError::Shape));
    }
    let changes: [fn(&mut Conv2D); 6] = [
        |p| p.window.stride_h = 0,
        |p| p.window.groups = 2,
        |p| p.input_zero_point = 128,
        |p| p.output_zero_point = -129,
        |p| p.activation_max = 128,
        |p| (p.activation_min, p.activation_max) = (1, 0),
    ];
    for change in changes {
        let mut p = example.p.clone();
        change(&mut p);
        assert_eq!(call(&p, 48, 90, 5, (5, 5), 40), Err(KernelError::Parameter), "{p:?}");
    }
    let shifts = [32; 5];
    let mut output = [0; 40];
    let Case { p, weights, multipliers, .. } = &example;
    let result = conv2d_i8(p, &example.input_i8(), weights, None, multipliers, &shifts, &mut output);
    assert_eq!(result, Err(KernelError::Parameter));
}

proptest! {
    #[test]
    fn conv2d_i8_follows_its_definition(case in case(Kind::Plain)) {
        let sums = reference_sums(&case.p, Kind::Plain, &case.input_i8(), &case.weights);
        prop_assert_eq!(run_i8(&case), case.finish_i8(&sums));
    }

    #[test]
    fn conv2d_i16_follows_its_definition(case in case(Kind::Plain)) {
        let p = case.wide();
        let bias: Vec<i64> = case.bias.iter().map(|&b| b.into()).collect();
        let mut output = vec![0; p.window.output_len().unwrap()];
        let Case { input, weights, multipliers, shifts, .. } = &case;
        conv2d_i16(&p, input, weights, Bias16::Wide(Some(&bias)), multipliers, shifts, &mut output).unwrap();
        prop_assert_eq!(output, case.finish_i16(&reference_sums(&p, Kind::Plain, input, weights)));
    }
}
