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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_bits_read_as_numbers() {
        // One, the largest number, the smallest subnormal one, minus two.
        let read = [0x3C00u16, 0x7BFF, 0x0001, 0xC000].map(Weight::to_f32);
        assert_eq!(read, [1.0, 65504.0, 5.9604645e-8, -2.0]);
        assert!(0x7E00u16.to_f32().is_nan());
        assert_eq!(0x7C00u16.to_f32(), f32::INFINITY);
    }
}
