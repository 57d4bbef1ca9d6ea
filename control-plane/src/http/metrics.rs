//! Numbers for Prometheus.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::app::App;

/// What a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HttpLabels {
    /// The method.
    pub(super) method: &'static str,
    /// The route, with its parameters' names.
    pub(super) route: String,
    /// The answer's status.
    pub(super) status: u16,
}

/// What a request's time is measured under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// The process' metrics. Domains register theirs with [`Metrics::register`] and keep handles to them.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<HttpLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    connected: Gauge,
    live_readers: Gauge,
}

impl Metrics {
    /// The metrics that every process has; every name gets the prefix `dunlin_`.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("dunlin");
        let requests = Family::default();
        registry.register("http_requests", "HTTP requests by method, route and status", requests.clone());
        let seconds: Family<RouteLabels, Histogram> = Family::new_with_constructor(|| {
            Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0])
        });
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer's head, by route",
            Unit::Seconds,
            seconds.clone(),
        );
        let connected = Gauge::default();
        registry.register(
            "devices_connected",
            "Devices connected to this process' embedded endpoint",
            connected.clone(),
        );
        let live_readers = Gauge::default();
        registry.register("live_readers", "Readers of live events in this process", live_readers.clone());
        Metrics { registry: Mutex::new(registry), requests, seconds, connected, live_readers }
    }

    /// Adds metrics of a domain.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request.
    pub(super) fn http(&self, labels: HttpLabels, elapsed: Duration) {
        self.seconds
            .get_or_create(&RouteLabels { route: labels.route.clone() })
            .observe(elapsed.as_secs_f64());
        self.requests.get_or_create(&labels).inc();
    }

    /// All metrics in OpenMetrics' text format.
    pub fn encode(&self, app: &App) -> String {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connected.set(app.bus().map_or(0, |bus| gauge(bus.connected())));
        self.live_readers.set(gauge(app.live.readers()));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
