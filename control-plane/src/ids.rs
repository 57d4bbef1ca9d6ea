//! Identifiers: UUIDv7 as text, so that they sort by the time they were made.

use std::sync::Arc;

use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock::{Clock, SECOND_US};

/// Makes identifiers. Those of one process sort in the order in which they were made.
pub struct Ids {
    clock: Arc<dyn Clock>,
    context: std::sync::Mutex<ContextV7>,
}

impl Ids {
    /// Identifiers with this clock's times.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Ids { clock, context: std::sync::Mutex::new(ContextV7::new()) }
    }

    /// A new identifier: 36 characters, lower case.
    pub fn next(&self) -> String {
        let now_us = self.clock.now_us().max(0).unsigned_abs();
        let second_us = SECOND_US.unsigned_abs();
        let nanos = u32::try_from(now_us % second_us * 1_000).unwrap_or(0);
        // A poisoned lock means a panic elsewhere while this counter was held: the counter itself is sound.
        let context = self.context.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let timestamp = Timestamp::from_unix(&*context, now_us / second_us, nanos);
        Uuid::new_v7(timestamp).to_string()
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
}
