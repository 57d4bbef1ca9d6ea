//! Confidence sequences: intervals that hold at all times together.

use serde::Serialize;

use crate::bets::{Bets, Side};

/// Steps of a bisection: more than a double tells apart.
const STEPS: u32 = 60;

/// From `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Where the rate of failing devices lies, with a probability of at least 1 - alpha at all times together: those rates
/// against which the even mixture of all rates has less than 1 / alpha of evidence (Robbins' method of mixtures).
pub fn rate_interval(failures: u64, devices: u64, alpha: f64) -> Interval {
    let failures = failures.min(devices);
    let (k, n) = (failures as f64, devices as f64);
    // The likelihood under a uniform prior over all rates.
    let mixture = libm::lgamma(k + 1.0) + libm::lgamma(n - k + 1.0) - libm::lgamma(n + 2.0);
    let log_e = |rate: f64| {
        let term = |count: f64, rate: f64| if count > 0.0 { count * libm::log(rate) } else { 0.0 };
        mixture - term(k, rate) - term(n - k, 1.0 - rate)
    };
    let refuted = |rate: f64| log_e(rate) >= libm::log(1.0 / alpha);
    let rate = if devices > 0 { k / n } else { 0.5 };
    let low = if refuted(0.0) { bisect(0.0, rate, &refuted) } else { 0.0 };
    let high = if refuted(1.0) { bisect(1.0, rate, &refuted) } else { 1.0 };
    Interval { low, high }
}

/// Where the mean of values from `low` to `high` lies, with a probability of at least 1 - alpha at all times together.
/// `values` are values and how often they were seen.
pub fn mean_interval(values: &[(f64, u64)], (low, high): (f64, f64), alpha: f64) -> Interval {
    let width = (high - low).max(f64::MIN_POSITIVE);
    let total: u64 = values.iter().map(|(_, times)| times).sum();
    if total == 0 {
        return Interval { low, high };
    }
    let sum: f64 = values.iter().map(|(value, times)| (value - low) / width * *times as f64).sum();
    let mean = (sum / total as f64).clamp(0.0, 1.0);
    let refuted = |side: Side| {
        move |mean: f64| {
            let mut bets = Bets::new(side, mean);
            values.iter().for_each(|(value, times)| bets.observe((value - low) / width, *times));
            // Each side has half of alpha.
            bets.log_e() >= libm::log(2.0 / alpha)
        }
    };
    let (above, below) = (refuted(Side::Above), refuted(Side::Below));
    let lowest = if above(0.0) { bisect(0.0, mean, &above) } else { 0.0 };
    let highest = if below(1.0) { bisect(1.0, mean, &below) } else { 1.0 };
    Interval { low: low + width * lowest, high: low + width * highest }
}

/// Where refuted values end, between one that is refuted and one that is not.
fn bisect(mut refuted: f64, mut possible: f64, is_refuted: &dyn Fn(f64) -> bool) -> f64 {
    for _ in 0..STEPS {
        let middle = (refuted + possible) / 2.0;
        if is_refuted(middle) { refuted = middle } else { possible = middle }
    }
    possible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_of_nothing() {
        assert_eq!(rate_interval(0, 0, 0.05), Interval { low: 0.0, high: 1.0 });
        assert_eq!(mean_interval(&[], (-1.0, 1.0), 0.05), Interval { low: -1.0, high: 1.0 });
    }

    #[test]
    fn intervals_shrink_around_the_rate() {
        let mut before = 1.0;
        for n in [10, 100, 1_000, 10_000, 100_000] {
            let Interval { low, high } = rate_interval(n / 10, n, 0.05);
            assert!(low < 0.1 && high > 0.1 && high - low < before, "{low} {high}");
            before = high - low;
        }
        assert!(before < 0.01);
        let none = rate_interval(0, 100, 0.05);
        assert!(none.low == 0.0 && none.high < 0.08, "{none:?}");
        let all = rate_interval(100, 100, 0.05);
        assert!(all.high == 1.0 && all.low > 0.92, "{all:?}");
    }

    #[test]
    fn means_of_any_bounded_values_have_intervals() {
        let differences = [(1.0, 40), (0.0, 900), (-1.0, 10)];
        let Interval { low, high } = mean_interval(&differences, (-1.0, 1.0), 0.05);
        assert!(low > 0.0 && low < 0.0316 && high > 0.0316 && high < 0.1, "{low} {high}");
    }
}
