//! How a baseline is shown.

use dunlin_artifact::Artifact;
use dunlin_artifact::baseline::{Bins, Feature, Numeric, Part, Source};
use dunlin_monitor::{Scale, Totals, window_bytes};
use serde::Serialize;

use crate::output::{count, grouped, table};

/// The baseline of an artifact.
#[derive(Debug, Serialize)]
pub(crate) struct BaselineReport {
    /// Runs of the model that were counted.
    samples: u32,
    counters: usize,
    /// RAM of one window of a monitor.
    window_bytes: usize,
    features: Vec<FeatureReport>,
}

#[derive(Debug, Serialize)]
struct FeatureReport {
    index: usize,
    name: String,
    /// `input 0`, `output 0` or `application`.
    source: String,
    /// `every element`, `every 5th element`, `element 3`, `largest element` or `position of the largest element`.
    part: String,
    kind: &'static str,
    /// Values that were counted, missing ones left out.
    n: u64,
    missing: u32,
    #[serde(flatten)]
    numeric: Option<NumericReport>,
    counts: Vec<u32>,
    /// Hashes of known categories; the counts behind theirs are buckets for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<Vec<u32>>,
}

#[derive(Debug, Serialize)]
struct NumericReport {
    /// `null` when no value was counted.
    min: Option<f32>,
    max: Option<f32>,
    mean: Option<f64>,
    standard_deviation: Option<f64>,
    /// Step and zero of the fixed-point sums.
    unit: f32,
    zero: f32,
    /// There is one count more than edges.
    edges: Vec<f32>,
}

impl BaselineReport {
    /// The baseline of an artifact, if it was calibrated.
    pub(crate) fn of(artifact: &Artifact<'_>) -> Option<Self> {
        let baseline = artifact.baseline()?;
        Some(BaselineReport {
            samples: baseline.samples(),
            counters: baseline.counter_count(),
            window_bytes: window_bytes(baseline.feature_count(), baseline.counter_count()),
            features: baseline.features().enumerate().map(FeatureReport::of).collect(),
        })
    }

    /// `3 features in 140 counters, from 150 samples; a window takes 1,640 bytes of RAM`.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} in {}, from {}; a window takes {} bytes of RAM",
            count(self.features.len(), "feature"),
            count(self.counters, "counter"),
            count(self.samples as usize, "sample"),
            grouped(self.window_bytes as u64)
        )
    }

    /// The features, one line each.
    pub(crate) fn table(&self) -> String {
        let rows = self.features.iter().map(|feature| {
            let real = |value: Option<f64>| value.map_or_else(String::new, short);
            let numeric = feature.numeric.as_ref();
            vec![
                feature.index.to_string(),
                feature.name.clone(),
                feature.source.clone(),
                feature.part.clone(),
                feature.kind.to_owned(),
                feature.counts.len().to_string(),
                grouped(feature.n),
                grouped(feature.missing),
                real(numeric.and_then(|numeric| numeric.min).map(f64::from)),
                real(numeric.and_then(|numeric| numeric.mean)),
                real(numeric.and_then(|numeric| numeric.max).map(f64::from)),
            ]
        });
        let header = [
            "",
            "feature",
            "source",
            "values",
            "counted as",
            "counters",
            "n",
            "missing",
            "min",
            "mean",
            "max",
        ];
        table(&header, rows, 5)
    }
}

impl FeatureReport {
    fn of((index, feature): (usize, Feature<'_>)) -> Self {
        let counts: Vec<u32> = feature.bins.counts().iter().collect();
        let n = counts.iter().copied().map(u64::from).sum();
        let (kind, numeric, known) = match &feature.bins {
            Bins::Numeric(numeric) => ("numeric", Some(NumericReport::of(numeric, n)), None),
            Bins::Classes(_) => ("classes", None, None),
            Bins::Categories(categories) => ("categories", None, Some(categories.known.iter().collect())),
        };
        FeatureReport {
            index,
            name: feature.name.to_owned(),
            source: match feature.source {
                Source::Input(index) => format!("input {index}"),
                Source::Output(index) => format!("output {index}"),
                Source::Application => "application".into(),
            },
            part: match feature.part {
                _ if feature.source == Source::Application => "each value".into(),
                Part::Elements { stride: 1 } => "every element".into(),
                Part::Elements { stride } => format!("one in {stride} elements"),
                Part::Element(element) => format!("element {element}"),
                Part::Max => "largest element".into(),
                Part::ArgMax => "position of the largest element".into(),
            },
            kind,
            n,
            missing: feature.missing,
            numeric,
            counts,
            known,
        }
    }
}

impl NumericReport {
    fn of(numeric: &Numeric<'_>, n: u64) -> Self {
        let totals = Totals { sum: numeric.sum, squares: numeric.squares, ..Totals::EMPTY };
        let scale = Scale::of(numeric);
        let finite = |value: f32| value.is_finite().then_some(value);
        NumericReport {
            min: finite(numeric.min),
            max: finite(numeric.max),
            mean: scale.mean(n, &totals),
            standard_deviation: scale.variance(n, &totals).map(f64::sqrt),
            unit: numeric.unit,
            zero: numeric.zero,
            edges: numeric.edges.iter().collect(),
        }
    }
}

/// A number with about four significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        size => format!("{value:.*}", (3 - size.log10().floor() as i32).clamp(0, 6) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0"), (0.12345, "0.1235"), (-12.3456, "-12.35"), (12345.6, "12346"), (1e-7, "1.000e-7")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
