//! Telemetry's numbers for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::ingest::Counters;
use crate::http::Metrics;

/// What a message is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Handles to the metrics. Counts since the process began; the exact ones are in the database.
#[derive(Clone, Debug)]
pub(super) struct Handles {
    messages: Family<Outcome, Counter>,
    batch: Histogram,
    seconds: Histogram,
    retries: Counter,
    parts: Gauge,
}

impl Handles {
    /// Registers the metrics.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let handles = Handles {
            messages: Family::default(),
            batch: Histogram::new([1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0]),
            seconds: Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]),
            retries: Counter::default(),
            parts: Gauge::default(),
        };
        metrics.register(|registry| {
            let doc = "Messages of devices by what became of them";
            registry.register("telemetry_messages", doc, handles.messages.clone());
            registry.register("telemetry_batch_messages", "Messages in a transaction", handles.batch.clone());
            let doc = "Time from a batch's decoding to its commit";
            registry.register_with_unit("telemetry_commit", doc, Unit::Seconds, handles.seconds.clone());
            let doc = "Transactions that had to be repeated";
            registry.register("telemetry_retries", doc, handles.retries.clone());
            let doc = "Sums of reports that this process holds open";
            registry.register("telemetry_open_parts", doc, handles.parts.clone());
        });
        handles
    }

    /// A batch was committed.
    pub(super) fn committed(&self, counters: &Counters, took: Duration, open_parts: usize) {
        for (outcome, n) in Counters::NAMES.into_iter().zip(counters.values()) {
            if n > 0 {
                self.messages.get_or_create(&Outcome { outcome }).inc_by(n);
            }
        }
        // A batch is never so large that this rounds.
        self.batch.observe(counters.received as f64);
        self.seconds.observe(took.as_secs_f64());
        self.parts.set(i64::try_from(open_parts).unwrap_or(i64::MAX));
    }

    /// A batch has to be repeated.
    pub(super) fn repeated(&self) {
        self.retries.inc();
    }
}
