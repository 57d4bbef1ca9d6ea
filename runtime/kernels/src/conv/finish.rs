//! From sums to outputs: bias, scale, zero point, bounds.

use super::{Activation, at, clamp};
use crate::fixed::{ChannelMultipliers, Multiplier};
use crate::window::part;

/// Most channels that any layer finishes together.
pub(crate) const MAX_BLOCK: usize = 8;

/// The last step of a layer.
pub(crate) trait Finish<T: Activation> {
    /// Makes the outputs of up to [`MAX_BLOCK`] channels from `first` on out of their sums.
    fn finish(&self, first: usize, sums: &[T::Sum], outputs: &mut [T]);
}

/// For int8 activations.
pub(crate) struct Finish8<'a> {
    /// `None` for zeros.
    pub(crate) bias: Option<&'a [i32]>,
    pub(crate) scale: ChannelMultipliers<'a>,
    pub(crate) zero_point: i32,
    pub(crate) min: i32,
    pub(crate) max: i32,
}

impl Finish<i8> for Finish8<'_> {
    // Out of line: one copy for all layers, and its parameters stay out of the registers of the loops around it.
    #[inline(never)]
    fn finish(&self, first: usize, sums: &[i32], outputs: &mut [i8]) {
        let zeros = [0; MAX_BLOCK];
        let bias = match self.bias {
            Some(bias) => part(bias, first, outputs.len()),
            None => &zeros,
        };
        let shared = self.scale.shared::<MAX_BLOCK>();
        let (multipliers, shifts) = match &shared {
            Some((multipliers, shifts)) => (&multipliers[..], &shifts[..]),
            None => self.scale.slices(first, outputs.len()),
        };
        let operands = sums.iter().zip(bias).zip(multipliers.iter().zip(shifts));
        for (output, ((sum, bias), (&multiplier, &shift))) in outputs.iter_mut().zip(operands) {
            let multiplier = Multiplier { multiplier, shift: shift.into() };
            let scaled = multiplier.apply(sum.wrapping_add(*bias));
            *output = clamp(scaled.wrapping_add(self.zero_point), self.min, self.max) as i8;
        }
    }
}

/// The bias of a layer with int16 activations. As in TensorFlow Lite Micro its type decides how wide the layer
/// accumulates and how it rounds; a layer without a bias says it by its `quantized_bias_type` option.
#[derive(Clone, Copy, Debug)]
pub enum Bias16<'a> {
    /// 32-bit accumulators that wrap around, two roundings ([`Multiplier::apply`](crate::fixed::Multiplier::apply)).
    Narrow(Option<&'a [i32]>),
    /// 64-bit accumulators, one rounding ([`Multiplier::apply_i64`](crate::fixed::Multiplier::apply_i64)).
    Wide(Option<&'a [i64]>),
}

impl Bias16<'_> {
    /// Output channels that the bias covers, unless there is none.
    pub(crate) fn channels(&self) -> Option<usize> {
        match self {
            Bias16::Narrow(bias) => bias.map(<[i32]>::len),
            Bias16::Wide(bias) => bias.map(<[i64]>::len),
        }
    }
}

/// For int16 activations, which have no zero points.
pub(crate) struct Finish16<'a> {
    pub(crate) bias: Bias16<'a>,
    pub(crate) scale: ChannelMultipliers<'a>,
    pub(crate) min: i32,
    pub(crate) max: i32,
}

impl Finish<i16> for Finish16<'_> {
    #[inline(never)]
    fn finish(&self, first: usize, sums: &[i64], outputs: &mut [i16]) {
        for (channel, (output, &sum)) in (first..).zip(outputs.iter_mut().zip(sums)) {
            let multiplier = self.scale.get(channel);
            let scaled = match self.bias {
                // Summing in 64 bits and dropping the upper half is the same as wrapping around all along.
                Bias16::Narrow(bias) => multiplier.apply((sum as i32).wrapping_add(at(bias, channel))),
                Bias16::Wide(bias) => multiplier.apply_i64(sum.wrapping_add(at(bias, channel))),
            };
            *output = clamp(scaled, self.min, self.max) as i16;
        }
    }
}
