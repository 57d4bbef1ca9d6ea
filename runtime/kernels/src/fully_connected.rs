//! Integer fully connected layers.

use crate::KernelError;
use crate::conv::{Activation, BLOCK, Bias16, at, check_i8_range, check_i16_range, clamp, filter_block};
use crate::fixed::ChannelMultipliers;
use crate::window::product;

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
    p.check_lengths(input, weights, bias.map(<[i32]>::len), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.out_features)?;
    layer(p, input, weights, output, |channel, sum| {
        let scaled = scale.get(channel).apply(sum.wrapping_add(at(bias, channel)));
        clamp(scaled.wrapping_add(p.output_zero_point), p.activation_min, p.activation_max) as i8
    });
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
    p.check_lengths(input, weights, bias.channels(), output)?;
    let scale = ChannelMultipliers::new(multipliers, shifts, p.out_features)?;
    layer(p, input, weights, output, |channel, sum| {
        let scaled = bias.add_and_scale(channel, sum, scale.get(channel));
        clamp(scaled, p.activation_min, p.activation_max) as i16
    });
    Ok(())
}

impl FullyConnected {
    fn check_lengths<T>(
        &self,
        input: &[T],
        weights: &[i8],
        bias: Option<usize>,
        output: &[T],
    ) -> Result<(), KernelError> {
        if self.batch == 0 || self.in_features == 0 || self.out_features == 0 {
            return Err(KernelError::Parameter);
        }
        let fits = product(&[self.batch, self.in_features]) == Some(input.len())
            && product(&[self.out_features, self.in_features]) == Some(weights.len())
            && product(&[self.batch, self.out_features]) == Some(output.len())
            && bias.is_none_or(|outputs| outputs == self.out_features);
        if fits { Ok(()) } else { Err(KernelError::Shape) }
    }
}

/// The loop over vectors and blocks of outputs. `finish` turns an output's sum into its value.
#[inline(always)]
fn layer<T: Activation>(
    p: &FullyConnected,
    input: &[T],
    weights: &[i8],
    output: &mut [T],
    finish: impl Fn(usize, T::Sum) -> T,
) {
    let vectors = input.chunks_exact(p.in_features.max(1));
    for (vector, outputs) in vectors.zip(output.chunks_exact_mut(p.out_features.max(1))) {
        let shared = match p.weights_zero_point {
            0 => 0,
            zero_point => {
                let sum = vector.iter().fold(0i32, |sum, &x| sum.wrapping_add(x.into()));
                sum.wrapping_mul(zero_point).wrapping_neg()
            }
        };
        for (block, values) in outputs.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            let filters = filter_block(weights, p.in_features, first, values.len());
            let sums = T::dot([T::Sum::default(); BLOCK], vector, 0, filters);
            for (j, (value, sum)) in values.iter_mut().zip(sums).enumerate() {
                *value = finish(first + j, T::add(sum, T::Sum::from(shared)));
            }
        }
    }
}
