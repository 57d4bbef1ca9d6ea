//! Numbers for Prometheus.

use std::sync::{Mutex, PoisonError};

use prometheus_client::registry::Registry;

/// The process' registry of metrics. Domains register theirs with [`Metrics::register`] and keep handles to them.
#[derive(Debug)]
pub struct Metrics(Mutex<Registry>);

impl Metrics {
    /// An empty registry; every name gets the prefix `dunlin_`.
    pub fn new() -> Self {
        Metrics(Mutex::new(Registry::with_prefix("dunlin")))
    }

    /// Adds metrics.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in OpenMetrics' text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
