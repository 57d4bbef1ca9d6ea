//! What a window keeps of one monitored feature.

use dunlin_artifact::baseline::{self, Bins, Numeric};

/// How a feature is counted. The numbers are part of the protocol and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FeatureKind {
    /// Real values, counted between the baseline's edges; the first counter is the underflow, the last the
    /// overflow.
    Numeric = 0,
    /// Classes: one counter each.
    Classes = 1,
    /// Categories: one counter for each that the baseline knows, then hashed buckets for all others.
    Categories = 2,
}

impl FeatureKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [FeatureKind; 3] = [FeatureKind::Numeric, FeatureKind::Classes, FeatureKind::Categories];

    /// The kind's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }

    /// The name used in tables and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            FeatureKind::Numeric => "numeric",
            FeatureKind::Classes => "classes",
            FeatureKind::Categories => "categories",
        }
    }
}

/// How a feature is counted and how many counters it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How it is counted.
    pub kind: FeatureKind,
    /// Number of counters.
    pub counters: u16,
}

impl Shape {
    /// The shape of a feature of a baseline.
    pub fn of(feature: &baseline::Feature<'_>) -> Self {
        let kind = match feature.bins {
            Bins::Numeric(_) => FeatureKind::Numeric,
            Bins::Classes(_) => FeatureKind::Classes,
            Bins::Categories(_) => FeatureKind::Categories,
        };
        // A baseline has no more counters than 16 bits can count.
        Shape { kind, counters: u16::try_from(feature.bins.counters()).unwrap_or(u16::MAX) }
    }
}

/// What is kept of a feature besides its counters.
///
/// Sums are kept in fixed point, as multiples of the feature's unit counted from its zero ([`Scale`]), because
/// integers add exactly in any order and floating-point numbers do not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Values that were not there: not a number, or said to be missing by the application.
    pub missing: u32,
    /// The smallest value; positive infinity when there is none.
    pub min: f32,
    /// The largest value; negative infinity when there is none.
    pub max: f32,
    /// The sum of all values in fixed point.
    pub sum: i64,
    /// The sum of the squares of all values in fixed point.
    pub squares: u128,
}

impl Totals {
    /// Nothing counted.
    pub const EMPTY: Totals =
        Totals { missing: 0, min: f32::INFINITY, max: f32::NEG_INFINITY, sum: 0, squares: 0 };

    pub(crate) fn add(&mut self, other: &Totals, saturated: &mut bool) {
        crate::counter::add(&mut self.missing, other.missing, saturated);
        // `min` and `max` skip what is not a number. Adding zero makes -0 into +0, which would otherwise depend on
        // the order.
        self.min = self.min.min(other.min) + 0.0;
        self.max = self.max.max(other.max) + 0.0;
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }
}

/// The fixed-point scale of a feature's sums: a value stands for `(value - zero) / unit`, rounded to an integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The size of one step; positive and finite.
    pub unit: f32,
    /// The value that stands for 0.
    pub zero: f32,
}

impl Scale {
    /// Values further than this many steps from the zero count as that far in the sums. With 24 bits no sum can
    /// overflow before its counters do.
    pub const LIMIT: i32 = (1 << 23) - 1;

    /// The scale of a numeric feature of a baseline.
    pub fn of(numeric: &Numeric<'_>) -> Self {
        Scale { unit: numeric.unit, zero: numeric.zero }
    }

    /// The value in fixed point; 0 for what is not a number.
    pub fn fixed(&self, value: f32) -> i32 {
        // The conversion saturates.
        (libm::roundf((value - self.zero) / self.unit) as i32).clamp(-Self::LIMIT, Self::LIMIT)
    }

    /// The mean of `n` values with these totals; `None` when there are none.
    pub fn mean(&self, n: u64, totals: &Totals) -> Option<f64> {
        let mean = (n > 0).then(|| totals.sum as f64 / n as f64)?;
        Some(f64::from(self.zero) + f64::from(self.unit) * mean)
    }

    /// The variance (of the population) of `n` values with these totals; `None` when there are none.
    pub fn variance(&self, n: u64, totals: &Totals) -> Option<f64> {
        let mean = (n > 0).then(|| totals.sum as f64 / n as f64)?;
        let unit = f64::from(self.unit);
        Some((totals.squares as f64 / n as f64 - mean * mean).max(0.0) * unit * unit)
    }
}

/// One feature of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature<'w> {
    /// How it is counted.
    pub kind: FeatureKind,
    /// Its counters.
    pub counts: &'w [u32],
    /// The rest. Classes and categories only use [`Totals::missing`].
    pub totals: Totals,
}

impl Feature<'_> {
    /// How many values were counted, missing ones left out.
    pub fn n(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_is_rounded_and_bounded() {
        let scale = Scale { unit: 0.5, zero: 1.0 };
        let cases = [(1.0, 0), (1.24, 0), (1.25, 1), (0.0, -2), (f32::NAN, 0)];
        for (value, fixed) in cases {
            assert_eq!(scale.fixed(value), fixed, "{value}");
        }
        for value in [f32::INFINITY, f32::MAX] {
            assert_eq!((scale.fixed(value), scale.fixed(-value)), (Scale::LIMIT, -Scale::LIMIT));
        }
    }

    #[test]
    fn mean_and_variance_come_from_the_sums() {
        let scale = Scale { unit: 0.25, zero: 10.0 };
        let values = [10.0, 10.5, 9.25, 12.0];
        let fixed = values.map(|value| i64::from(scale.fixed(value)));
        let squares = fixed.iter().map(|v| (v * v) as u128).sum();
        let totals = Totals { sum: fixed.iter().sum(), squares, ..Totals::EMPTY };
        let mean = scale.mean(4, &totals).unwrap();
        assert_eq!(mean, 10.4375);
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 4.0;
        assert_eq!(scale.variance(4, &totals), Some(variance));
        assert_eq!((scale.mean(0, &totals), scale.variance(0, &totals)), (None, None));
    }
}
