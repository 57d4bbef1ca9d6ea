//! Latencies, and quantiles of them with their error.

use dunlin_monitor::Latency as Layout;
use serde::{Deserialize, Serialize};

use super::Counts;

/// Latencies by bucket of `dunlin_monitor::Latency`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many fell into each bucket.
    pub counts: Counts,
    /// Their sum in microseconds.
    pub sum_us: u128,
    /// The longest one in microseconds.
    pub max_us: u32,
}

/// A quantile, with the bounds between which the true one lies: the value of rank `ceil(q n)` among the `n` values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// The middle between the bounds, in microseconds.
    pub us: f64,
    /// The true quantile is not shorter, in microseconds.
    pub low_us: u64,
    /// The true quantile is not longer, in microseconds.
    pub high_us: u64,
}

impl Latency {
    /// Adds other latencies.
    pub fn merge(&mut self, other: &Latency) {
        self.counts.merge(&other.counts);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The quantile `q` (0 to 1); `None` when nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        let n = self.counts.total();
        if n == 0 {
            return None;
        }
        // Beyond 2^53 values the rank is rounded, which is far below a bucket's share.
        let rank = ((q.clamp(0.0, 1.0) * n as f64).ceil() as u64).clamp(1, n);
        let mut below = 0_u64;
        let (bucket, _) = self.counts.iter().find(|(_, count)| {
            below = below.saturating_add(*count);
            below >= rank
        })?;
        let (low_us, end_us) = Layout::bounds(bucket);
        // A bucket ends before the next one begins, and nothing is longer than the longest.
        let high_us = end_us.saturating_sub(1).min(u64::from(self.max_us)).max(low_us);
        Some(Quantile { us: (low_us as f64 + high_us as f64) / 2.0, low_us, high_us })
    }

    /// The mean in microseconds; `None` when nothing was counted.
    pub fn mean_us(&self) -> Option<f64> {
        let n = self.counts.total();
        (n > 0).then(|| self.sum_us as f64 / n as f64)
    }
}
