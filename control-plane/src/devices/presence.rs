//! Devices that connect and disconnect, collected until they are written down together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::bus::DeviceId;

/// What is not written down yet: the latest about each device, so that memory is bounded by their number.
#[derive(Debug, Default)]
pub(super) struct Presence {
    waiting: Mutex<HashMap<DeviceId, bool>>,
    pub(super) came: Notify,
}

impl Presence {
    /// Notes that a connection came up or went down.
    pub(super) fn note(&self, device: &DeviceId, connected: bool) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(device.clone(), connected);
        self.came.notify_one();
    }

    /// Takes what is to be written, in the order of ids.
    pub(super) fn take(&self) -> Vec<(DeviceId, bool)> {
        let mut taken: Vec<_> =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
                .into_iter()
                .collect();
        taken.sort_unstable();
        taken
    }

    /// Puts back what could not be written, unless something newer is known.
    pub(super) fn put_back(&self, taken: Vec<(DeviceId, bool)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, connected) in taken {
            waiting.entry(device).or_insert(connected);
        }
    }
}
