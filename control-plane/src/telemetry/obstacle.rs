//! What keeps telemetry from being committed, for those who ask how the process is.

use std::sync::{Arc, Mutex, PoisonError};

/// Why the ingest cannot commit, as long as it cannot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Obstacle(Arc<Mutex<Option<&'static str>>>);

impl Obstacle {
    /// The reason; `None` when all is well.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is one now, or none any more.
    pub(super) fn set(&self, reason: Option<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}
