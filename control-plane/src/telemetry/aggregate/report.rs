//! From a device's report into the sums.

use dunlin_artifact::limits::{MAX_COUNTERS, MAX_FEATURES};
use dunlin_monitor::{FeatureKind, Latency};
use dunlin_protocol::{CountedSection, Report, Section};

use super::{Aggregate, Feature, FeatureKey, Gauge};

/// Why a report that can be read is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It has a latency bucket that does not exist.
    #[error("a latency bucket beyond the last one")]
    Latency,
    /// No artifact has as many features or counters.
    #[error("more features or counters than an artifact can have")]
    Features,
}

impl Aggregate {
    /// Checks whether [`Aggregate::add`] may take the report.
    ///
    /// # Errors
    /// When it contradicts limits that every artifact keeps. A report is taken as a whole or not at all.
    pub fn check(report: &Report<'_>) -> Result<(), ReportError> {
        let mut counters = 0_usize;
        for section in report.sections() {
            let (feature, own) = match &section {
                Section::Latency(latency) => {
                    if latency.bins.iter().any(|(bucket, _)| bucket >= Latency::BUCKETS) {
                        return Err(ReportError::Latency);
                    }
                    continue;
                }
                Section::Numeric(section) => (section.feature, section.counters),
                Section::Classes(section) | Section::Categories(section) => {
                    (section.feature, section.counters)
                }
                _ => continue,
            };
            // A feature that is split over two sections counts twice, hence the factor.
            counters = counters.saturating_add(own as usize);
            if usize::from(feature) >= MAX_FEATURES
                || own as usize > MAX_COUNTERS
                || counters > 2 * MAX_COUNTERS
            {
                return Err(ReportError::Features);
            }
        }
        Ok(())
    }

    /// Adds a report that was [checked](Aggregate::check). Sections that this version does not know are left out.
    pub fn add(&mut self, report: &Report<'_>) {
        self.reports += 1;
        if report.header().part == 0 {
            self.windows = self.windows.saturating_add(u64::from(report.header().windows));
            self.duration_ms = self.duration_ms.saturating_add(u64::from(report.header().duration_ms));
        }
        for section in report.sections() {
            match section {
                Section::Counts(counts) => {
                    self.inferences = self.inferences.saturating_add(counts.inferences);
                    self.saturated += u64::from(counts.saturated);
                    counts.failures.iter().for_each(|(kind, n)| self.failures.add(kind, n));
                }
                Section::Latency(latency) => {
                    latency.bins.iter().for_each(|(bucket, n)| self.latency.counts.add(bucket, n));
                    self.latency.sum_us = self.latency.sum_us.saturating_add(u128::from(latency.sum_us));
                    self.latency.max_us = self.latency.max_us.max(latency.max_us);
                }
                Section::Numeric(section) => {
                    let feature = self.feature(section.feature, FeatureKind::Numeric, section.counters);
                    section.bins.iter().for_each(|(bin, n)| feature.counts.add(bin, n));
                    feature.missing = feature.missing.saturating_add(section.missing);
                    feature.stretch(section.min, section.max);
                    feature.sum = feature.sum.saturating_add(i128::from(section.sum));
                    feature.squares = feature.squares.saturating_add(section.squares);
                }
                Section::Classes(section) => self.count(FeatureKind::Classes, &section),
                Section::Categories(section) => self.count(FeatureKind::Categories, &section),
                Section::Gauges(gauges) => {
                    for reading in gauges.iter() {
                        let gauge = Gauge {
                            n: reading.n,
                            min: reading.min,
                            max: reading.max,
                            sum: reading.sum.into(),
                        };
                        self.gauges.entry(reading.kind).or_insert(Gauge::EMPTY).merge(&gauge);
                    }
                }
                Section::Marks(marks) => {
                    for reading in marks.iter() {
                        let highest = self.marks.entry(reading.mark).or_insert(0);
                        *highest = (*highest).max(reading.bytes);
                    }
                }
                _ => {}
            }
        }
        self.limit_features();
    }

    fn count(&mut self, kind: FeatureKind, section: &CountedSection<'_>) {
        let feature = self.feature(section.feature, kind, section.counters);
        section.bins.iter().for_each(|(counter, n)| feature.counts.add(counter, n));
        feature.missing = feature.missing.saturating_add(section.missing);
    }

    /// The place for a feature.
    fn feature(&mut self, index: u16, kind: FeatureKind, counters: u32) -> &mut Feature {
        let key = FeatureKey { index, kind: kind.code(), counters };
        self.features.entry(key).or_insert_with(Feature::empty)
    }
}
