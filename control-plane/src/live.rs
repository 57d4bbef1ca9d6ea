//! Live events: what happens now, for the status page and for `GET /api/v1/live`.
//!
//! They are hints for people who look: each process tells of its own events only, and a slow reader loses some. What
//! counts is in the database.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::limits;

/// Something that happened now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveEvent {
    /// A batch of reports was committed: the sums per fleet and model version.
    Telemetry {
        /// The fleet.
        fleet: String,
        /// The model's name; absent when the registry does not know the digest.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The model's version.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
        /// Reports in the batch.
        reports: u64,
        /// Inferences that they tell of.
        inferences: u64,
        /// Failed inferences that they tell of.
        failures: u64,
    },
    /// Something about a device changed.
    Device {
        /// The fleet.
        fleet: String,
        /// The device.
        device: String,
        /// What changed.
        change: DeviceChange,
    },
    /// A device told of an event.
    Event {
        /// The fleet.
        fleet: String,
        /// The device.
        device: String,
        /// The model slot, where the event is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        slot: Option<String>,
        /// The kind of event, a word of the device protocol.
        kind: String,
        /// What the device says about it.
        detail: String,
    },
}

/// What changed about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChange {
    /// It was enrolled or created.
    Enrolled,
    /// It connected.
    Connected,
    /// Its connection ended.
    Disconnected,
    /// It reported another state, or its desired state or its record was changed.
    State,
    /// It was blocked.
    Blocked,
    /// It was unblocked.
    Unblocked,
    /// It was deleted.
    Deleted,
}

impl LiveEvent {
    /// The kind of event: the value of `type`.
    pub fn name(&self) -> &'static str {
        match self {
            LiveEvent::Telemetry { .. } => "telemetry",
            LiveEvent::Device { .. } => "device",
            LiveEvent::Event { .. } => "event",
        }
    }

    /// The fleet that the event belongs to.
    pub fn fleet(&self) -> &str {
        match self {
            LiveEvent::Telemetry { fleet, .. }
            | LiveEvent::Device { fleet, .. }
            | LiveEvent::Event { fleet, .. } => fleet,
        }
    }

    /// The model that the event belongs to, if it belongs to one.
    pub fn model(&self) -> Option<&str> {
        match self {
            LiveEvent::Telemetry { model, .. } => model.as_deref(),
            LiveEvent::Device { .. } | LiveEvent::Event { .. } => None,
        }
    }
}

/// Where live events go through.
#[derive(Clone, Debug)]
pub struct Live(broadcast::Sender<Arc<LiveEvent>>);

impl Live {
    /// Without readers yet.
    pub fn new() -> Self {
        Live(broadcast::channel(limits::LIVE_EVENTS).0)
    }

    /// Tells every reader. Never waits.
    pub fn publish(&self, event: LiveEvent) {
        // Without readers there is nobody to tell.
        let _ = self.0.send(Arc::new(event));
    }

    /// A reader that gets every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<LiveEvent>> {
        self.0.subscribe()
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.0.receiver_count()
    }
}

impl Default for Live {
    fn default() -> Self {
        Live::new()
    }
}
