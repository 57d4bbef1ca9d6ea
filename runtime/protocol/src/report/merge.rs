//! From reports back to a window.

use dunlin_monitor::{
    Failure, FeatureKind, Gauge, GaugeKind, Latency, Mark, MergeError, Period, Totals, Window,
};

use super::{Bins, Report, Section};

impl Report<'_> {
    /// Adds the report to a window of the same model. Adding all reports of a window to an empty one, in any order,
    /// gives that window again (but for [`Period::closed_ms`], which is not sent).
    ///
    /// Sections and kinds that this version does not know are left out.
    ///
    /// # Errors
    /// When the report counts another model or other features; nothing is changed then.
    pub fn add_to<const FEATURES: usize, const COUNTERS: usize>(
        &self,
        window: &mut Window<FEATURES, COUNTERS>,
    ) -> Result<(), MergeError> {
        let header = self.header();
        if header.model != *window.model() {
            return Err(MergeError::Model);
        }
        if !self.sections().all(|section| matches(&section, window)) {
            return Err(MergeError::Layout);
        }
        if header.part == 0 {
            let mut period = window.period();
            period.merge(&Period {
                start_unix_s: header.start_unix_s,
                duration_ms: header.duration_ms,
                closed_ms: 0,
                windows: header.windows,
            });
            window.set_period(period);
        }
        self.sections().for_each(|section| add(&section, window));
        Ok(())
    }
}

/// The feature of a section, with its kind, number of counters, totals and counts.
fn feature<'a>(section: &Section<'a>) -> Option<(usize, FeatureKind, u32, Totals, Bins<'a>)> {
    let (kind, section) = match section {
        Section::Numeric(section) => {
            let totals = Totals {
                missing: count(section.missing),
                min: section.min,
                max: section.max,
                sum: section.sum,
                squares: section.squares,
            };
            let feature = usize::from(section.feature);
            return Some((feature, FeatureKind::Numeric, section.counters, totals, section.bins));
        }
        Section::Classes(section) => (FeatureKind::Classes, section),
        Section::Categories(section) => (FeatureKind::Categories, section),
        _ => return None,
    };
    let totals = Totals { missing: count(section.missing), ..Totals::EMPTY };
    Some((usize::from(section.feature), kind, section.counters, totals, section.bins))
}

/// Whether the window has a place for everything in the section.
fn matches<const F: usize, const C: usize>(section: &Section, window: &Window<F, C>) -> bool {
    if let Section::Latency(latency) = section {
        return latency.bins.iter().all(|(bucket, _)| bucket < Latency::BUCKETS);
    }
    let Some((index, kind, counters, ..)) = feature(section) else { return true };
    let own = window.feature(index).map(|own| (own.kind, own.counts.len()));
    own == Some((kind, counters as usize))
}

/// Adds a section that [`matches`]: no counter is out of range.
fn add<const F: usize, const C: usize>(section: &Section, window: &mut Window<F, C>) {
    match section {
        Section::Counts(counts) => {
            window.add_inferences(count(counts.inferences));
            for (kind, n) in counts.failures.iter() {
                let kind = u8::try_from(kind).map_or(Failure::Other, Failure::from_code);
                window.add_failures(kind, count(n));
            }
            if counts.saturated {
                window.set_saturated();
            }
        }
        Section::Latency(latency) => {
            window.add_latency_sum(latency.sum_us, latency.max_us);
            for (bucket, n) in latency.bins.iter() {
                let _ = window.add_latencies(bucket, count(n));
            }
        }
        Section::Gauges(gauges) => {
            for gauge in gauges.iter() {
                if let Some(kind) = GaugeKind::from_code(gauge.kind) {
                    let (min, max, sum) = (gauge.min, gauge.max, gauge.sum);
                    window.add_gauge(kind, Gauge { n: count(gauge.n), min, max, sum });
                }
            }
        }
        Section::Marks(marks) => {
            for mark in marks.iter() {
                if let Some(kind) = Mark::from_code(mark.mark) {
                    window.raise_mark(kind, mark.bytes);
                }
            }
        }
        section => {
            if let Some((index, _, _, totals, bins)) = feature(section) {
                let _ = window.add_totals(index, &totals);
                for (counter, n) in bins.iter() {
                    let _ = window.add_count(index, counter, count(n));
                }
            }
        }
    }
}

/// Counts in messages are bounded by [`crate::limits::MAX_COUNT`], which fits.
fn count(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
