//! Arithmetic of the FFT for its types of numbers.

/// The type of samples and spectrum: int16 or int32 as fractions of 1, or float32.
pub(super) trait FftScalar: Copy + Default {
    /// `a + b`; integers wrap.
    fn add(a: Self, b: Self) -> Self;
    /// `a - b`; integers wrap.
    fn sub(a: Self, b: Self) -> Self;
    /// `-a`; integers wrap.
    fn neg(a: Self) -> Self;
    /// `a * b`; fractions are rounded to nearest, ties up.
    fn mul(a: Self, b: Self) -> Self;
    /// `a * b + c * d`; fractions are rounded once.
    fn mul_add(a: Self, b: Self, c: Self, d: Self) -> Self;
    /// `a * b - c * d`; fractions are rounded once.
    fn mul_sub(a: Self, b: Self, c: Self, d: Self) -> Self;
    /// `a / radix` of a fraction, by a product with the reciprocal; `a` itself in floating point.
    fn scale_down(a: Self, radix: u8) -> Self;
    /// `a / 2`; integers round down.
    fn half(a: Self) -> Self;
    /// `(a + b) / 2`; the sum of two int16 does not wrap, that of two int32 does.
    fn half_sum(a: Self, b: Self) -> Self;
    /// `(a - b) / 2`, likewise.
    fn half_difference(a: Self, b: Self) -> Self;
}

/// Implements a fraction; `$product` holds the product of two.
macro_rules! fraction {
    ($scalar:ty, $product:ty) => {
        impl FftScalar for $scalar {
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self {
                a.wrapping_add(b)
            }
            #[inline(always)]
            fn sub(a: Self, b: Self) -> Self {
                a.wrapping_sub(b)
            }
            #[inline(always)]
            fn neg(a: Self) -> Self {
                a.wrapping_neg()
            }
            #[inline(always)]
            fn mul(a: Self, b: Self) -> Self {
                Self::mul_add(a, b, 0, 0)
            }
            #[inline(always)]
            fn mul_add(a: Self, b: Self, c: Self, d: Self) -> Self {
                let (ab, cd) =
                    (<$product>::from(a) * <$product>::from(b), <$product>::from(c) * <$product>::from(d));
                let half = 1 << (Self::BITS - 2);
                (ab.wrapping_add(cd).wrapping_add(half) >> (Self::BITS - 1)) as Self
            }
            #[inline(always)]
            fn mul_sub(a: Self, b: Self, c: Self, d: Self) -> Self {
                let (ab, cd) =
                    (<$product>::from(a) * <$product>::from(b), <$product>::from(c) * <$product>::from(d));
                let half = 1 << (Self::BITS - 2);
                (ab.wrapping_sub(cd).wrapping_add(half) >> (Self::BITS - 1)) as Self
            }
            #[inline(always)]
            fn scale_down(a: Self, radix: u8) -> Self {
                Self::mul(a, Self::MAX.checked_div(Self::from(radix)).unwrap_or(0))
            }
            #[inline(always)]
            fn half(a: Self) -> Self {
                a >> 1
            }
            #[inline(always)]
            fn half_sum(a: Self, b: Self) -> Self {
                (i32::from(a).wrapping_add(i32::from(b)) >> 1) as Self
            }
            #[inline(always)]
            fn half_difference(a: Self, b: Self) -> Self {
                (i32::from(a).wrapping_sub(i32::from(b)) >> 1) as Self
            }
        }
    };
}

fraction!(i16, i32);
fraction!(i32, i64);

impl FftScalar for f32 {
    #[inline(always)]
    fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn neg(a: f32) -> f32 {
        -a
    }
    #[inline(always)]
    fn mul(a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32, d: f32) -> f32 {
        a * b + c * d
    }
    #[inline(always)]
    fn mul_sub(a: f32, b: f32, c: f32, d: f32) -> f32 {
        a * b - c * d
    }
    #[inline(always)]
    fn scale_down(a: f32, _radix: u8) -> f32 {
        a
    }
    #[inline(always)]
    fn half(a: f32) -> f32 {
        a * 0.5
    }
    #[inline(always)]
    fn half_sum(a: f32, b: f32) -> f32 {
        (a + b) * 0.5
    }
    #[inline(always)]
    fn half_difference(a: f32, b: f32) -> f32 {
        (a - b) * 0.5
    }
}
