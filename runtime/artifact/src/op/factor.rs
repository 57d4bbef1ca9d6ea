//! A factor between scales.

use serde::{Deserialize, Serialize};

/// The positive real factor `multiplier * 2^(shift - 31)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    /// The significand in Q0.31.
    pub multiplier: i32,
    /// The exponent, positive to the left; -31 ..= 31.
    pub shift: i8,
}
