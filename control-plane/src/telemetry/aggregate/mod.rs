//! What reports add up to: counts of any number of devices over any time.
//!
//! The same numbers as a device's window (`dunlin_monitor::Window`), in 64 bits and more, on the heap, and for
//! whatever features the reports tell of. Everything is an integer or a minimum or maximum, so that merging is exact,
//! associative and commutative: it does not matter in which order, by which process or through which roll-up a report
//! got into a sum.

mod codec;
mod counts;
mod latency;
mod report;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use codec::CodecError;
pub use counts::Counts;
pub use latency::{Latency, Quantile};
pub use report::ReportError;

/// Sums over reports of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Messages that were added. A window that did not fit one message counts each of its parts.
    pub reports: u64,
    /// Windows of devices that were added.
    pub windows: u64,
    /// How long the windows were open, in milliseconds, added up.
    pub duration_ms: u64,
    /// Messages in which a counter had reached its end: with them, counts are lower bounds.
    pub saturated: u64,
    /// Inferences that gave a result.
    pub inferences: u64,
    /// Inferences that gave none, by the number of the kind (`dunlin_monitor::Failure`).
    pub failures: Counts,
    /// Latencies of inferences that gave a result.
    pub latency: Latency,
    /// Monitored features. Devices with one model count the same features; a device that contradicts the others is
    /// kept apart instead of spoiling their sums.
    pub features: BTreeMap<FeatureKey, Feature>,
    /// Readings of the devices themselves, by the number of the kind (`dunlin_monitor::GaugeKind`).
    pub gauges: BTreeMap<u8, Gauge>,
    /// High-water marks in bytes, by the number of the mark (`dunlin_monitor::Mark`).
    pub marks: BTreeMap<u8, u32>,
}

/// Which feature: its place in the artifact's baseline, and how it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureKey {
    /// Its index in the baseline.
    pub index: u16,
    /// The number of its `dunlin_monitor::FeatureKind`.
    pub kind: u8,
    /// How many counters it has.
    pub counters: u32,
}

/// The sums of one feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Values by bin, class or category.
    pub counts: Counts,
    /// Values that were missing.
    pub missing: u64,
    /// The smallest value; positive infinity when there was none.
    pub min: f32,
    /// The largest value; negative infinity when there was none.
    pub max: f32,
    /// The sum of the values in the fixed point of the baseline.
    pub sum: i128,
    /// The sum of the squares of the values in the fixed point of the baseline.
    pub squares: u128,
}

/// The readings of one gauge, in thousandths of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauge {
    /// How many.
    pub n: u64,
    /// The smallest; `i32::MAX` when there is none.
    pub min: i32,
    /// The largest; `i32::MIN` when there is none.
    pub max: i32,
    /// Their sum.
    pub sum: i128,
}

impl Feature {
    /// Nothing counted.
    pub fn empty() -> Self {
        Feature {
            counts: Counts::default(),
            missing: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0,
            squares: 0,
        }
    }

    fn merge(&mut self, other: &Feature) {
        self.counts.merge(&other.counts);
        self.missing = self.missing.saturating_add(other.missing);
        self.stretch(other.min, other.max);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }

    fn stretch(&mut self, min: f32, max: f32) {
        // Adding zero makes -0 into +0, which would otherwise depend on the order.
        self.min = self.min.min(min) + 0.0;
        self.max = self.max.max(max) + 0.0;
    }
}

impl Gauge {
    /// No reading.
    pub const EMPTY: Gauge = Gauge { n: 0, min: i32::MAX, max: i32::MIN, sum: 0 };

    fn merge(&mut self, other: &Gauge) {
        self.n = self.n.saturating_add(other.n);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

impl Aggregate {
    /// Most features that one aggregate keeps apart: twice what a baseline can have, so that a device with a wrong
    /// baseline finds room beside the right one, and no number of wrong ones takes all memory. Of more, those with the
    /// lowest keys are kept: they are the same in whatever order reports and sums are added.
    pub const MAX_FEATURES: usize = 2 * dunlin_artifact::limits::MAX_FEATURES;

    /// Adds another aggregate.
    pub fn merge(&mut self, other: &Aggregate) {
        let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
        add(&mut self.reports, other.reports);
        add(&mut self.windows, other.windows);
        add(&mut self.duration_ms, other.duration_ms);
        add(&mut self.saturated, other.saturated);
        add(&mut self.inferences, other.inferences);
        self.failures.merge(&other.failures);
        self.latency.merge(&other.latency);
        for (key, feature) in &other.features {
            self.features.entry(*key).or_insert_with(Feature::empty).merge(feature);
        }
        self.limit_features();
        for (kind, gauge) in &other.gauges {
            self.gauges.entry(*kind).or_insert(Gauge::EMPTY).merge(gauge);
        }
        for (mark, bytes) in &other.marks {
            let highest = self.marks.entry(*mark).or_insert(0);
            *highest = (*highest).max(*bytes);
        }
    }

    fn limit_features(&mut self) {
        while self.features.len() > Self::MAX_FEATURES {
            self.features.pop_last();
        }
    }

    /// How many counters take memory, eight bytes each.
    pub fn counters(&self) -> usize {
        let features = self.features.values().map(|feature| feature.counts.len());
        self.failures.len() + self.latency.counts.len() + features.sum::<usize>()
    }

    /// Inferences that gave no result, of all kinds.
    pub fn failed(&self) -> u64 {
        self.failures.total()
    }
}
