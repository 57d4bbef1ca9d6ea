//! How a weight is stored.

use half::f16;

/// A stored weight that reads as `f32`.
pub trait Weight: Copy {
    /// The value of the weight.
    fn to_f32(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// The bits of an IEEE half-precision number; every one of them is exact in `f32`.
impl Weight for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::from_bits(self).to_f32()
    }
}
