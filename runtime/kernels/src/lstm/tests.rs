//! Two sequences of three steps, run twice without a reset in between. Expected values are those of TensorFlow Lite
//! Micro's Python interpreter for a model with these weights, `cell_clip` 0.75 and scales that are powers of two.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::conv::fold_bias;
use crate::fixed::Multiplier;
use crate::unary_i16::SigmoidI16;

const SHAPE: LstmShape = LstmShape { batch: 2, steps: 3, inputs: 3, units: 2, time_major: false };

/// `2^exponent`.
fn power(exponent: i32) -> Multiplier {
    Multiplier { multiplier: 1 << 30, shift: exponent + 1 }
}

/// Scales 2^-6 (input), 2^-7 (its weights, hidden state), 2^-6 (recurrent weights), 2^-11 (cell); with `bits` more bits for
/// the activations.
fn parameters(bits: i32, hidden_zero_point: i32) -> LstmInt {
    LstmInt {
        shape: SHAPE,
        gates: [GateScales { input: power(-1 - bits), recurrent: power(-1 - bits) }; GATES],
        forget: power(-15),
        update: power(-19),
        cell_clip: Some(1536),
        cell_tanh: SigmoidI16 { multiplier: 6, shift: 0 },
        output: power(-23 + bits),
        hidden_zero_point,
    }
}

/// Swaps the axes of sequence and time of rows of `len` elements.
fn time_major<T: Copy>(rows: &[T], len: usize) -> Vec<T> {
    let row = |batch: usize, step: usize| &rows[(batch * SHAPE.steps + step) * len..][..len];
    (0..SHAPE.steps)
        .flat_map(|step| (0..SHAPE.batch).flat_map(move |batch| row(batch, step).to_vec()))
        .collect()
}

const INPUT_I8: [i8; 24] = [
    113, 32, 47, 85, -70, -113, 105, -126, 0, -97, -8, 81, 101, 20, 70, -51, -55, 95, 82, -94, 76, -50, -40,
    -57,
];
const RECURRENT_I8: [i8; 16] = [56, -63, -6, 1, 2, 126, 51, 31, 125, -14, 21, 14, 78, 75, -41, 125];
const BIAS_I8: [i32; 8] = [-271, 2760, 2859, -3083, -2278, -2719, 900, -3649];
const X_I8: [[i8; 18]; 2] = [
    [-15, -119, -92, 3, 120, -9, 78, 106, 82, 33, -16, 3, -60, -1, -31, -65, 126, -125],
    [-104, -79, 120, 49, 97, -77, 56, -34, -3, -128, 30, 84, 41, -89, 8, -60, 119, 97],
];
const Y_I8: [[i8; 12]; 2] =
    [[4, 3, -22, -18, -23, -4, 14, 10, 11, -3, -7, -13], [-7, 3, -8, -20, 8, 6, -27, -17, 8, 8, -47, -10]];

/// Folds a zero point into biases.
fn folded(bias: &[i32], weights: &[i8], zero_point: i32) -> Vec<i32> {
    let rows = weights.chunks(weights.len() / bias.len());
    bias.iter().zip(rows).map(|(&bias, row)| fold_bias(bias, row.iter().copied(), zero_point, 0)).collect()
}

#[test]
fn int8_equals_the_oracle_in_both_orders() {
    let (bias, recurrent_bias) = (folded(&BIAS_I8, &INPUT_I8, 5), folded(&[0; 8], &RECURRENT_I8, -3));
    let weights = LstmWeights {
        input: &INPUT_I8,
        recurrent: &RECURRENT_I8,
        bias: &bias,
        recurrent_bias: &recurrent_bias,
    };
    let p = parameters(0, -3);
    let (mut hidden, mut cell, mut output) = ([-3; 4], [0; 4], [0; 12]);
    for (x, y) in X_I8.iter().zip(&Y_I8) {
        lstm_i8(&p, &weights, x, &mut hidden, &mut cell, &mut output).unwrap();
        assert_eq!(&output, y);
        assert_eq!(hidden, [y[4], y[5], y[10], y[11]]);
    }

    let p = LstmInt { shape: LstmShape { time_major: true, ..SHAPE }, ..p };
    let (mut hidden, mut cell) = ([-3; 4], [0; 4]);
    for (x, y) in X_I8.iter().zip(&Y_I8) {
        lstm_i8(&p, &weights, &time_major(x, 3), &mut hidden, &mut cell, &mut output).unwrap();
        assert_eq!(output[..], time_major(y, 2));
    }
}

#[test]
fn int16_equals_the_oracle() {
    let weights = LstmWeights {
        input: &[
            -80, 2, 112, -117, 62, -7, 58, 2, 29, 37, 25, -100, 89, 53, 36, -104, -65, 10, 95, 47, -35, -112,
            41, -29,
        ],
        recurrent: &[25, -45, -30, 81, 19, 122, -15, 27, -70, -89, -25, -31, -27, 23, -14, 35],
        bias: &[96512, 935424, 126208, -291072, 361216, -715264, -122368, -533504],
        recurrent_bias: &[],
    };
    let x = [
        [
            -29344, -6390, 21375, -26431, -6154, 30659, 29587, -18678, -32271, 11256, -31834, -13080, -193,
            24515, -26683, 10630, 2164, -24143,
        ],
        [
            22650, 22614, -1134, 29160, 7003, 26471, 30184, 4569, -14362, -23236, 4118, -20155, 16398, 28043,
            -16683, 3429, -29546, -20936,
        ],
    ];
    let y = [
        [-1807, -6401, -2057, -11731, -2795, 1820, 737, -124, -760, 8275, 1216, 6014],
        [2821, 5774, 5349, 2528, 5902, 3579, -3247, 4482, -497, 8975, 1244, 4235],
    ];
    let (mut hidden, mut cell, mut output) = ([0; 4], [0; 4], [0; 12]);
    for (x, y) in x.iter().zip(&y) {
        lstm_i16(&parameters(8, 0), &weights, x, &mut hidden, &mut cell, &mut output).unwrap();
        assert_eq!(&output, y);
    }
}

#[test]
fn float32_is_close_to_the_oracle() {
    let weights = LstmWeights {
        input: &[
            -0.12, -0.2, -1.11, 0.65, -0.02, 0.67, 0.58, -1.29, 0.35, -0.9, 0.16, 2.24, -0.01, -0.44, 1.17,
            -0.34, 1.05, -0.01, -1.69, -2.04, -0.3, -0.83, -0.62, 0.21,
        ],
        recurrent: &[
            0.49, -0.18, 0.52, -1.03, -1.05, 0.26, 0.19, 0.09, -0.21, 0.7, -0.08, 0.04, -0.86, 0.97, -0.59,
            -0.12,
        ],
        bias: &[-2.0, 0.36, 0.85, 0.76, -1.13, -2.13, -1.75, -0.85],
        recurrent_bias: &[],
    };
    let x = [
        [
            0.78, 0.13, -1.54, 1.25, 1.44, -0.07, -0.27, -0.16, -0.98, 1.1, -0.54, -0.05, -0.79, -0.63,
            -1.28, 1.26, -0.15, 0.97,
        ],
        [
            0.01, -0.69, -0.33, -0.56, 0.01, -0.38, -0.3, -1.38, -0.81, 1.65, -0.67, -1.05, 0.34, 1.41,
            -1.45, -0.21, -0.63, -1.76,
        ],
    ];
    let y: [[f32; 12]; 2] = [
        [
            0.00697046,
            -0.0061377333,
            0.056810893,
            -0.008355716,
            0.04383402,
            -0.023958901,
            0.04687311,
            -0.05103781,
            0.05105062,
            0.023222562,
            0.23781191,
            -0.07718407,
        ],
        [
            0.12921245,
            -0.027452212,
            0.10340971,
            -0.04505367,
            0.100609004,
            0.082288675,
            0.019436764,
            -0.012116094,
            -0.0057028416,
            -0.0060643326,
            0.014995841,
            0.0055039735,
        ],
    ];
    let p = LstmF32 { shape: SHAPE, cell_clip: 0.75 };
    let (mut hidden, mut cell, mut output) = ([0.0; 4], [0.0; 4], [0.0; 12]);
    for (x, y) in x.iter().zip(&y) {
        lstm_f32(&p, &weights, x, &mut hidden, &mut cell, &mut output).unwrap();
        for (found, expected) in output.iter().zip(y) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}

#[test]
fn refuses_slices_that_do_not_fit() {
    let weights =
        LstmWeights { input: &INPUT_I8, recurrent: &RECURRENT_I8, bias: &BIAS_I8, recurrent_bias: &[] };
    let p = parameters(0, 0);
    let run = |p: &LstmInt, weights, hidden: usize, output: usize| {
        lstm_i8(p, &weights, &X_I8[0], &mut [0; 9][..hidden], &mut [0; 4], &mut [0; 12][..output])
    };
    assert_eq!(run(&p, weights, 4, 12), Ok(()));
    assert_eq!(run(&p, weights, 5, 12), Err(KernelError::Shape));
    assert_eq!(run(&p, weights, 4, 11), Err(KernelError::Shape));
    assert_eq!(run(&p, LstmWeights { bias: &[0; 7], ..weights }, 4, 12), Err(KernelError::Shape));
    assert_eq!(run(&p, LstmWeights { recurrent_bias: &[0; 7], ..weights }, 4, 12), Err(KernelError::Shape));
    let empty = LstmInt { shape: LstmShape { units: 0, ..SHAPE }, ..p.clone() };
    assert_eq!(run(&empty, weights, 4, 12), Err(KernelError::Parameter));
    let huge = LstmInt { shape: LstmShape { units: usize::MAX, ..SHAPE }, ..p.clone() };
    assert_eq!(run(&huge, weights, 4, 12), Err(KernelError::Shape));
    let shifted = LstmInt { update: Multiplier { multiplier: 1, shift: 32 }, ..p };
    assert_eq!(run(&shifted, weights, 4, 12), Err(KernelError::Parameter));
}

proptest! {
    /// Whatever stands in parameters, weights and states: a result, never a panic.
    #[test]
    fn is_total(
        multipliers: [i32; 4], shifts in prop::array::uniform4(-31i32..32), clip: Option<i16>, zero_point: i32,
        weights: [i8; 24], recurrent: [i8; 16], bias: [i32; 8], states: [i16; 4], x: [i8; 18], tanh in (any::<i32>(), 0u32..32),
    ) {
        let [a, b, c, d] = core::array::from_fn(|i| Multiplier { multiplier: multipliers[i], shift: shifts[i] });
        let p = LstmInt {
            shape: SHAPE,
            gates: [GateScales { input: a, recurrent: b }; GATES],
            forget: c,
            update: d,
            cell_clip: clip,
            cell_tanh: SigmoidI16 { multiplier: tanh.0, shift: tanh.1 },
            output: a,
            hidden_zero_point: zero_point,
        };
        let all = LstmWeights { input: &weights, recurrent: &recurrent, bias: &bias, recurrent_bias: &bias };
        lstm_i8(&p, &all, &x, &mut states.map(|x| x as i8), &mut states.clone(), &mut [0; 12]).unwrap();
        let bias = bias.map(|bias| i64::from(bias) << 31);
        let all = LstmWeights { input: &weights, recurrent: &recurrent, bias: &bias, recurrent_bias: &bias };
        let x = x.map(|x| i16::from(x) << 8);
        lstm_i16(&p, &all, &x, &mut states.clone(), &mut states.clone(), &mut [0; 12]).unwrap();
    }
}
