//! Order statistics of durations.

use std::time::Duration;

use serde::Serialize;

/// How long runs took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) min_us: f64,
    pub(crate) median_us: f64,
    pub(crate) p95_us: f64,
}

impl Latency {
    /// The statistics of at least one duration.
    pub(crate) fn of(durations: &mut [Duration]) -> Option<Self> {
        durations.sort_unstable();
        let at = |quantile: f64| {
            // Nearest rank.
            let rank = (quantile * durations.len() as f64).ceil().max(1.0) as usize;
            durations.get(rank - 1).map(|duration| duration.as_secs_f64() * 1e6)
        };
        Some(Latency { min_us: at(0.0)?, median_us: at(0.5)?, p95_us: at(0.95)? })
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:.1} µs, p95 {:.1} µs, min {:.1} µs", self.median_us, self.p95_us, self.min_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut durations: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(&mut durations).unwrap();
        assert_eq!(latency, Latency { min_us: 1.0, median_us: 50.0, p95_us: 95.0 });
        let one = Latency::of(&mut [Duration::from_micros(7)]).unwrap();
        assert_eq!(one, Latency { min_us: 7.0, median_us: 7.0, p95_us: 7.0 });
        assert_eq!(Latency::of(&mut []), None);
    }
}
