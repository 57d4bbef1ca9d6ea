//! Integer fully connected layers.

use crate::KernelError;
use crate::conv::{
    Activation, BLOCK, Bias16, Finish, Finish8, Finish16, Lengths, check_i8_range, check_i16_range,
};
use crate::fixed::ChannelMultipliers;
use crate::window::{part, product};

/// A fully connected layer of integers. With int16 activations all zero points are 0.
#[derive(Clone, Debug)]
pub struct FullyConnected {
    /// Input vectors.
    pub batch: usize,
    /// Elements of an input vector.
    pub in_features: usize,
    /// Elements of an output vector.
    pub out_features: usize,
    /// Zero point of the weights, -128 ..= 127. Other than 0 only in models that were uint8. (The zero point of the
    /// input is in the bias.)
    pub weights_zero_point: i32,
    /// Zero point of the output, -128 ..= 127.
    pub output_zero_point: i32,
    /// Smallest output value, in the range of the output's type.
    pub activation_min: i32,
    /// Largest output value, in the range of the output's type, not below `activation_min`.
    pub activation_max: i32,
}

/// Fully connected layer of int8: input `[batch, in_features]`, weights `[out_features, in_features]`, output
/// `[batch, out_features]`.
///
/// `bias` holds one value per output **with the zero points folded in** by [`fold_bias`](crate::conv::fold_bias);
/// `None` stands for zeros (right only when the input's zero point is 0). `multipliers` and `shifts` are
/// `input scale * weight scale / output scale`, one per output or one for all.
///
/// # Errors
/// [`KernelError::Shape`] when a slice does not fit, [`KernelError::Parameter`] when a field of `p` or a shift is out
/// of range.
pub fn fully_connected_i8(
    p: &FullyConnected,
    input: &[i8],
    weights: &[i8],
    bias: Option<&[i32]>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    check_i8_range(&[p.weights_zero_point, p.output_zero_point], p.activation_min, p.activation_max)?;
    p.check(&Lengths::of(input, weights, bias.map(<[i32]>::len), output))?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.out_features)?;
    let (zero_point, min, max) = (p.output_zero_point, p.activation_min, p.activation_max);
    layer(p, input, weights, output, &Finish8 { bias, scale, zero_point, min, max });
    Ok(())
}

/// Fully connected layer of int16 activations with int8 weights; shapes and multipliers as in
/// [`fully_connected_i8`], all zero points 0, the bias as it stands in the model.
///
/// # Errors
/// As [`fully_connected_i8`].
pub fn fully_connected_i16(
    p: &FullyConnected,
    input: &[i16],
    weights: &[i8],
    bias: Bias16<'_>,
    multipliers: &[i32],
    shifts: &[i8],
    output: &mut [i16],
) -> Result<(), KernelError> {
    check_i16_range(&[p.weights_zero_point, p.output_zero_point], p.activation_min, p.activation_max)?;
    p.check(&Lengths::of(input, weights, bias.channels(), output))?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.out_features)?;
    let finish = Finish16 { bias, scale, min: p.activation_min, max: p.activation_max };
    layer(p, input, weights, output, &finish);
    Ok(())
}

impl FullyConnected {
    #[inline(never)]
    fn check(&self, lengths: &Lengths) -> Result<(), KernelError> {
        if self.batch == 0 || self.in_features == 0 || self.out_features == 0 {
            return Err(KernelError::Parameter);
        }
        let fits = product(&[self.batch, self.in_features]) == Some(lengths.input)
            && product(&[self.out_features, self.in_features]) == Some(lengths.weights)
            && product(&[self.batch, self.out_features]) == Some(lengths.output)
            && lengths.bias.is_none_or(|outputs| outputs == self.out_features);
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }
}

/// The loop over vectors and blocks of outputs.
#[inline(always)]
fn layer<T: Activation>(
    p: &FullyConnected,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: &impl Finish<T>,
) {
    let vectors = input.chunks_exact(p.in_features.max(1));
    for (vector, outputs) in vectors.zip(output.chunks_exact_mut(p.out_features.max(1))) {
        let shared = if T::ZERO_POINTS && p.weights_zero_point != 0 {
            let sum = vector.iter().fold(0i32, |sum, &x| sum.wrapping_add(x.into()));
            sum.wrapping_mul(-p.weights_zero_point)
        } else {
            0
        };
        for (block, values) in outputs.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            let filters = part(weights, first * p.in_features, values.len() * p.in_features);
            let mut sums = [T::Sum::from(shared); BLOCK];
            T::dot(&mut sums, vector, 0, filters, p.in_features);
            finish.finish(first, &sums, values);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::conv::fold_bias;
    use crate::conv::testing::{pattern_i8, pattern_i16};
    use crate::fixed::Multiplier;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn layer(batch: usize, in_features: usize, out_features: usize) -> FullyConnected {
        FullyConnected {
            batch,
            in_features,
            out_features,
            weights_zero_point: 0,
            output_zero_point: 0,
            activation_min: -128,
            activation_max: 127,
        }
    }

    // Golden vectors: TensorFlow Lite Micro (PyPI tflite-micro, October 2026), single-operator models over the
    // pattern.

    #[test]
    fn fully_connected_i8_equals_tensorflow_lite_micro() {
        let p = FullyConnected { output_zero_point: 4, ..layer(2, 7, 5) };
        let weights = pattern_i8(35, 53, 7);
        let bias = [1000, -2000, 300, 0, 77];
        let folded: Vec<i32> = bias
            .iter()
            .zip(weights.chunks(7))
            .map(|(&b, w)| fold_bias(b, w.iter().copied(), -7, 0))
            .collect();
        let multipliers = [1221679610, 1954687512, 1221679610, 1710351545, 1145324705];
        let shifts = [-10, -12, -9, -11, -5];
        let mut output = [0; 10];
        fully_connected_i8(
            &p,
            &pattern_i8(14, 37, 11),
            &weights,
            Some(&folded),
            &multipliers,
            &shifts,
            &mut output,
        )
        .unwrap();
        assert_eq!(output, [9, 3, 2, 3, -28, 8, 3, 3, 3, -33]);
    }

    #[test]
    fn fully_connected_i16_equals_tensorflow_lite_micro() {
        let p = FullyConnected { activation_min: -32768, activation_max: 32767, ..layer(1, 9, 5) };
        let bias = Bias16::Wide(Some(&[100_000, -200_000, 30, 0, 5]));
        let mut output = [0; 5];
        let (input, weights) = (pattern_i16(9, 9377, 11), pattern_i8(45, 53, 7));
        fully_connected_i16(&p, &input, &weights, bias, &[1999112112], &[-10], &mut output).unwrap();
        assert_eq!(output, [2048, 250, 3271, 6081, -1968]);
    }

    #[test]
    fn long_int16_vectors_do_not_overflow() {
        // 1000 products of -32768 and -128 exceed 32 bits.
        let p = FullyConnected { activation_min: -32768, activation_max: 32767, ..layer(1, 1000, 1) };
        let mut output = [0];
        fully_connected_i16(
            &p,
            &[-32768; 1000],
            &[-128; 1000],
            Bias16::Wide(None),
            &[1 << 30],
            &[-19],
            &mut output,
        )
        .unwrap();
        assert_eq!(i64::from(output[0]), (1000i64 << 22) >> 20);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let call = |p: &FullyConnected, input: usize, weights: usize, output: usize| {
            fully_connected_i8(p, &vec![0; input], &vec![0; weights], None, &[0], &[0], &mut vec![0; output])
        };
        let p = layer(2, 3, 4);
        assert_eq!(call(&p, 6, 12, 8), Ok(()));
        assert_eq!(call(&p, 5, 12, 8), Err(KernelError::Shape));
        assert_eq!(call(&p, 6, 13, 8), Err(KernelError::Shape));
        assert_eq!(call(&p, 6, 12, 0), Err(KernelError::Shape));
        assert_eq!(call(&layer(0, 3, 4), 0, 12, 0), Err(KernelError::Parameter));
        assert_eq!(call(&layer(usize::MAX, 3, 4), 0, 12, 0), Err(KernelError::Shape));
        let p = FullyConnected { weights_zero_point: -129, ..p };
        assert_eq!(call(&p, 6, 12, 8), Err(KernelError::Parameter));
    }

    proptest! {
        #[test]
        fn fully_connected_i8_follows_its_definition(
            (p, input, weights, scales) in (1..3usize, 1..40usize, 1..11usize).prop_flat_map(|(batch, ins, outs)| (
                Just(layer(batch, ins, outs)),
                prop::collection::vec(any::<i8>(), batch * ins),
                prop::collection::vec(any::<i8>(), ins * outs),
                prop::collection::vec((-10_000..10_000i32, 1 << 30..=i32::MAX, -14..=1i8), outs),
            )),
            zx in -128..128i32,
            zw in prop_oneof![Just(0), -128..128i32],
            zo in -128..128i32,
        ) {
            let p = FullyConnected { weights_zero_point: zw, output_zero_point: zo, ..p };
            let filters = || weights.chunks(p.in_features);
            let bias: Vec<i32> =
                scales.iter().zip(filters()).map(|(s, w)| fold_bias(s.0, w.iter().copied(), zx, zw)).collect();
            let multipliers: Vec<i32> = scales.iter().map(|s| s.1).collect();
            let shifts: Vec<i8> = scales.iter().map(|s| s.2).collect();
            let mut output = vec![0; p.batch * p.out_features];
            fully_connected_i8(&p, &input, &weights, Some(&bias), &multipliers, &shifts, &mut output).unwrap();
            let expected: Vec<i8> = input
                .chunks(p.in_features)
                .flat_map(|x| filters().zip(&scales).map(move |(w, s)| (x, w, s)))
                .map(|(x, w, &(bias, multiplier, shift))| {
                    let products = x.iter().zip(w).map(|(&x, &w)| (i32::from(x) - zx) * (i32::from(w) - zw));
                    let multiplier = Multiplier { multiplier, shift: shift.into() };
                    (multiplier.apply(products.sum::<i32>() + bias) + zo).clamp(-128, 127) as i8
                })
                .collect();
            prop_assert_eq!(output, expected);
        }
    }
}
