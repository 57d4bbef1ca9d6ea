//! What statistics are compared with: the baselines of artifacts, kept in memory.

use std::sync::{Arc, Mutex, PoisonError};

use dunlin_artifact::Artifact;
use dunlin_artifact::baseline::Bins;
use dunlin_monitor::FeatureKind;

use super::aggregate::FeatureKey;
use super::ingest::Generations;
use super::limits;

/// A baseline apart from its artifact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedBaseline {
    /// Runs of the model that were counted.
    pub samples: u32,
    /// The features in order.
    pub features: Vec<BaselineFeature>,
}

/// One feature of a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineFeature {
    /// Its name.
    pub name: String,
    /// Where devices' counts of it are found.
    pub key: FeatureKey,
    /// The edges between the bins of real values; empty for classes and categories.
    pub edges: Vec<f32>,
    /// What the calibration data counted to.
    pub counts: Vec<u32>,
    /// Values of the calibration data that were missing.
    pub missing: u32,
    /// For real values: the fixed point, and the calibration data's sums in it.
    pub scale: Option<Scale>,
}

/// The fixed point of a feature's sums: a value stands for `(value - zero) / unit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The size of a step.
    pub unit: f32,
    /// The value that stands for 0.
    pub zero: f32,
    /// The sum over the calibration data.
    pub sum: i64,
    /// The sum of squares over the calibration data.
    pub squares: u128,
}

impl OwnedBaseline {
    /// The baseline of an artifact, if it has one.
    pub fn of(artifact: &Artifact<'_>) -> Option<Self> {
        let baseline = artifact.baseline()?;
        let features = baseline.features().enumerate().map(|(index, feature)| {
            let (kind, edges, scale) = match feature.bins {
                Bins::Numeric(numeric) => {
                    let scale = Scale {
                        unit: numeric.unit,
                        zero: numeric.zero,
                        sum: numeric.sum,
                        squares: numeric.squares,
                    };
                    (FeatureKind::Numeric, numeric.edges.iter().collect(), Some(scale))
                }
                Bins::Classes(_) => (FeatureKind::Classes, Vec::new(), None),
                Bins::Categories(_) => (FeatureKind::Categories, Vec::new(), None),
            };
            let counts: Vec<u32> = feature.bins.counts().iter().collect();
            BaselineFeature {
                name: feature.name.to_owned(),
                key: FeatureKey {
                    // An artifact has far fewer features and counters.
                    index: u16::try_from(index).unwrap_or(u16::MAX),
                    kind: kind.code(),
                    counters: u32::try_from(counts.len()).unwrap_or(u32::MAX),
                },
                edges,
                counts,
                missing: feature.missing,
                scale,
            }
        });
        Some(OwnedBaseline { samples: baseline.samples(), features: features.collect() })
    }
}

/// Mean and standard deviation (of the population) of `n` values with these sums; `None` when there are none.
pub(super) fn moments(scale: &Scale, n: u64, sum: i128, squares: u128) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let mean = sum as f64 / n as f64;
    // n * squares - sum^2 is exact as long as it fits; far beyond that, the rounding is relatively small.
    let exact = || {
        let squares = u128::from(n).checked_mul(squares)?;
        let square = sum.unsigned_abs().checked_mul(sum.unsigned_abs())?;
        Some(squares.saturating_sub(square) as f64 / (n as f64 * n as f64))
    };
    let variance = exact().unwrap_or_else(|| (squares as f64 / n as f64 - mean * mean).max(0.0));
    Some((f64::from(scale.zero) + f64::from(scale.unit) * mean, f64::from(scale.unit) * variance.sqrt()))
}

/// Baselines of late, by digest. What a digest names never changes.
#[derive(Debug)]
pub struct Baselines(Mutex<Generations<String, Arc<OwnedBaseline>>>);

impl Baselines {
    pub(super) fn get(&self, digest: &str) -> Option<Arc<OwnedBaseline>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(super) fn put(&self, digest: &str, baseline: Arc<OwnedBaseline>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.to_owned(), baseline);
    }
}

impl Default for Baselines {
    fn default() -> Self {
        Baselines(Mutex::new(Generations::new(limits::BASELINES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_exact_far_from_zero() {
        let scale = Scale { unit: 0.5, zero: 10.0, sum: 0, squares: 0 };
        // 2^40 values, half of them 2^20, half of them 2^20 + 2.
        let (n, a) = (1_u64 << 40, 1_i128 << 20);
        let sum = (i128::from(n) / 2) * (2 * a + 2);
        let squares = u128::from(n / 2) * ((a * a) as u128 + ((a + 2) * (a + 2)) as u128);
        let (mean, deviation) = moments(&scale, n, sum, squares).expect("values");
        assert_eq!((mean, deviation), (10.0 + 0.5 * ((1 << 20) as f64 + 1.0), 0.5));
        assert_eq!(moments(&scale, 0, 0, 0), None);
    }
}
