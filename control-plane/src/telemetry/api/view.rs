//! Statistics as the API shows them.

use dunlin_monitor::{Failure, FeatureKind, GaugeKind, Mark};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::aggregate::{Aggregate, Feature, FeatureKey, Latency};
use crate::telemetry::baseline::{BaselineFeature, OwnedBaseline, moments};
use crate::time::Timestamp;

/// What a model did: exact counts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SumsView {
    /// Report messages.
    reports: u64,
    /// Windows of devices; a large one comes in several messages.
    windows: u64,
    /// Time that the windows were open, in seconds, added up over devices.
    observed_s: f64,
    /// Inferences that gave a result.
    inferences: u64,
    /// Inferences that gave none.
    failures: u64,
    /// Those by kind.
    failures_by_kind: Vec<FailureView>,
    /// Report messages in which a counter had reached its end: with them, counts are lower bounds.
    saturated_reports: u64,
    /// Latencies of inferences that gave a result; null without any.
    #[schema(required)]
    latency: Option<LatencyView>,
    /// Readings of the devices themselves.
    gauges: Vec<GaugeView>,
    /// High-water marks of memory.
    marks: Vec<MarkView>,
}

/// Failed inferences of one kind.
#[derive(Debug, Serialize, ToSchema)]
struct FailureView {
    /// The kind: `input`, `run`, `deadline`, `output`, `memory`, `hardware` or `other`.
    kind: &'static str,
    /// How many.
    count: u64,
}

/// Latencies.
#[derive(Debug, Serialize, ToSchema)]
struct LatencyView {
    /// How many were measured.
    count: u64,
    /// Their mean, in microseconds.
    mean_us: f64,
    /// The longest one, in microseconds.
    max_us: u32,
    /// Quantiles.
    quantiles: Vec<QuantileView>,
}

/// A quantile of latencies. The true one lies between the bounds, which are at most 12.5 % apart.
#[derive(Debug, Serialize, ToSchema)]
struct QuantileView {
    /// Which one, 0 to 1.
    q: f64,
    /// The middle between the bounds, in microseconds.
    us: f64,
    /// The lower bound, in microseconds.
    low_us: u64,
    /// The upper bound, in microseconds.
    high_us: u64,
}

/// Readings of one kind.
#[derive(Debug, Serialize, ToSchema)]
struct GaugeView {
    /// The kind: `battery` (percent) or `temperature` (degrees Celsius).
    kind: &'static str,
    /// How many.
    count: u64,
    /// The smallest.
    min: f64,
    /// The largest.
    max: f64,
    /// The mean.
    mean: f64,
}

/// A high-water mark.
#[derive(Debug, Serialize, ToSchema)]
struct MarkView {
    /// Of what: `arena` or `stack`.
    kind: &'static str,
    /// The most bytes that any device used.
    bytes: u32,
}

impl SumsView {
    pub(super) fn of(sums: &Aggregate) -> Self {
        let mut failures: Vec<FailureView> = Vec::new();
        for (kind, count) in sums.failures.iter() {
            let kind = u8::try_from(kind).map_or(Failure::Other, Failure::from_code).name();
            // Kinds that this version does not know are "other" together.
            match failures.iter_mut().find(|known| known.kind == kind) {
                Some(known) => known.count = known.count.saturating_add(count),
                None => failures.push(FailureView { kind, count }),
            }
        }
        let gauges = sums.gauges.iter().filter(|(_, gauge)| gauge.n > 0).filter_map(|(kind, gauge)| {
            Some(GaugeView {
                kind: GaugeKind::from_code(*kind)?.name(),
                count: gauge.n,
                min: f64::from(gauge.min) / 1e3,
                max: f64::from(gauge.max) / 1e3,
                mean: gauge.sum as f64 / gauge.n as f64 / 1e3,
            })
        });
        let marks = sums.marks.iter().filter_map(|(mark, bytes)| {
            Some(MarkView { kind: Mark::from_code(*mark)?.name(), bytes: *bytes })
        });
        SumsView {
            reports: sums.reports,
            windows: sums.windows,
            observed_s: sums.duration_ms as f64 / 1e3,
            inferences: sums.inferences,
            failures: sums.failed(),
            failures_by_kind: failures,
            saturated_reports: sums.saturated,
            latency: LatencyView::of(&sums.latency),
            gauges: gauges.collect(),
            marks: marks.collect(),
        }
    }
}

impl LatencyView {
    fn of(latency: &Latency) -> Option<Self> {
        let quantiles = [0.5, 0.9, 0.95, 0.99, 0.999].into_iter().filter_map(|q| {
            let quantile = latency.quantile(q)?;
            Some(QuantileView { q, us: quantile.us, low_us: quantile.low_us, high_us: quantile.high_us })
        });
        Some(LatencyView {
            count: latency.counts.total(),
            mean_us: latency.mean_us()?,
            max_us: latency.max_us,
            quantiles: quantiles.collect(),
        })
    }
}

/// The distribution of a monitored feature, beside that of the calibration data. Both are counted in the same bins.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeatureView {
    /// Its name; null when the registry does not have the model or its baseline.
    #[schema(required)]
    name: Option<String>,
    /// Its place in the baseline.
    index: u16,
    /// How it is counted: `numeric`, `classes` or `categories`.
    kind: &'static str,
    /// Edges of the bins of real values: bin *i* holds what lies above edge *i - 1*, up to and including edge *i*.
    edges: Vec<f32>,
    /// Counts by bin, class or category: of the devices.
    counts: Vec<u64>,
    /// The sum of these counts.
    count: u64,
    /// Values that were missing.
    missing: u64,
    /// Real values up to and including the first edge.
    #[schema(required)]
    underflow: Option<u64>,
    /// Real values above the last edge.
    #[schema(required)]
    overflow: Option<u64>,
    /// The smallest value.
    #[schema(required)]
    min: Option<f32>,
    /// The largest value.
    #[schema(required)]
    max: Option<f32>,
    /// The mean, from exact sums.
    #[schema(required)]
    mean: Option<f64>,
    /// The standard deviation, from exact sums.
    #[schema(required)]
    std: Option<f64>,
    /// The same of the calibration data; null when the registry does not have the model or its baseline.
    #[schema(required)]
    baseline: Option<BaselineView>,
}

/// A feature in the calibration data.
#[derive(Debug, Serialize, ToSchema)]
struct BaselineView {
    /// Counts by bin, class or category.
    counts: Vec<u32>,
    /// The sum of these counts.
    count: u64,
    /// Values that were missing.
    missing: u32,
    /// The mean.
    #[schema(required)]
    mean: Option<f64>,
    /// The standard deviation.
    #[schema(required)]
    std: Option<f64>,
}

/// Every feature of the baseline, whether devices told of it or not; without a baseline, what devices told of. And how
/// many features devices told of that contradict the baseline.
pub(super) fn features(sums: &Aggregate, baseline: Option<&OwnedBaseline>) -> (Vec<FeatureView>, usize) {
    let empty = Feature::empty();
    match baseline {
        Some(baseline) => {
            let known = |key| baseline.features.iter().any(|feature| feature.key == key);
            let contradicting = sums.features.keys().filter(|key| !known(**key)).count();
            let view = |feature: &BaselineFeature| {
                let counted = sums.features.get(&feature.key).unwrap_or(&empty);
                FeatureView::of(feature.key, counted, Some(feature))
            };
            (baseline.features.iter().map(view).collect(), contradicting)
        }
        None => {
            let mut room = dunlin_artifact::limits::MAX_COUNTERS;
            let views = sums.features.iter().take_while(|(key, _)| {
                let fits = room.checked_sub(key.counters as usize);
                room = fits.unwrap_or(room);
                fits.is_some()
            });
            (views.map(|(key, feature)| FeatureView::of(*key, feature, None)).collect(), 0)
        }
    }
}

impl FeatureView {
    fn of(key: FeatureKey, counted: &Feature, baseline: Option<&BaselineFeature>) -> Self {
        let counts = counted.counts.dense(key.counters as usize);
        let kind = FeatureKind::from_code(key.kind);
        let is_numeric = kind == Some(FeatureKind::Numeric);
        let count = counted.counts.total();
        let scale = baseline.and_then(|baseline| baseline.scale);
        let of_devices = scale.and_then(|scale| moments(&scale, count, counted.sum, counted.squares));
        let baseline_view = baseline.map(|baseline| {
            let count = baseline.counts.iter().map(|count| u64::from(*count)).sum();
            let moments =
                baseline.scale.and_then(|scale| moments(&scale, count, scale.sum.into(), scale.squares));
            BaselineView {
                counts: baseline.counts.clone(),
                count,
                missing: baseline.missing,
                mean: moments.map(|moments| moments.0),
                std: moments.map(|moments| moments.1),
            }
        });
        FeatureView {
            name: baseline.map(|baseline| baseline.name.clone()),
            index: key.index,
            kind: kind.map_or("unknown", FeatureKind::name),
            edges: baseline.map(|baseline| baseline.edges.clone()).unwrap_or_default(),
            count,
            missing: counted.missing,
            underflow: counts.first().copied().filter(|_| is_numeric),
            overflow: counts.last().copied().filter(|_| is_numeric),
            counts,
            // JSON has no infinity, which stands for "none".
            min: Some(counted.min).filter(|min| min.is_finite()),
            max: Some(counted.max).filter(|max| max.is_finite()),
            mean: of_devices.map(|moments| moments.0),
            std: of_devices.map(|moments| moments.1),
            baseline: baseline_view,
        }
    }
}

/// The sums of one interval.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IntervalView {
    /// Its beginning.
    pub(super) start: Timestamp,
    /// What the model did in it.
    #[serde(flatten)]
    pub(super) sums: SumsView,
}
