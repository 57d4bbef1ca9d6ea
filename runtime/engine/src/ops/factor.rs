//! Factors between scales.

use dunlin_artifact::op;
use dunlin_kernels::fixed::Multiplier;

/// A factor of the artifact as the kernels take it.
#[inline(always)]
pub(crate) fn factor(factor: op::Factor) -> Multiplier {
    Multiplier { multiplier: factor.multiplier, shift: factor.shift.into() }
}
