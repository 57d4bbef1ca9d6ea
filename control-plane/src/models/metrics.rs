//! Artifacts' numbers for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Unit;

use crate::http::Metrics;

/// How an artifact leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transport {
    transport: &'static str,
}

/// Handles to the metrics of one way to leave.
#[derive(Debug)]
pub(super) struct Handles {
    /// Bytes of artifacts that were sent.
    pub(super) sent: Counter,
    /// Requests whose sender was told to wait.
    pub(super) waits: Counter,
}

impl Handles {
    /// Registers the metrics: those of each of these ways.
    pub(super) fn of<const N: usize>(metrics: &Metrics, transports: [&'static str; N]) -> [Self; N] {
        let (sent, waits) =
            (Family::<Transport, Counter>::default(), Family::<Transport, Counter>::default());
        metrics.register(|registry| {
            let doc = "Bytes of artifacts sent, by way";
            registry.register_with_unit("artifact_sent", doc, Unit::Bytes, sent.clone());
            let doc = "Requests for artifacts that were told to wait, by way";
            registry.register("artifact_waits", doc, waits.clone());
        });
        transports.map(|transport| {
            let labels = Transport { transport };
            Handles { sent: sent.get_or_create_owned(&labels), waits: waits.get_or_create_owned(&labels) }
        })
    }
}
