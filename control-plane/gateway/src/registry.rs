//! Which device is connected by which connection.

use crate::{
    CloseReason,
    link::{Link, Request},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// The connections that are logged in, by device.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Arc<str>, Arc<Link>>>);

impl Registry {
    /// Makes `link` the device's connection; an older one is asked to leave. `announce` runs if there was none, in
    /// the order of the registry's changes.
    pub(crate) fn insert(&self, device: &Arc<str>, link: &Arc<Link>, announce: impl FnOnce()) {
        let mut devices = self.0.lock().expect("not poisoned");
        match devices.insert(device.clone(), link.clone()) {
            Some(old) => old.request(Request::Close(CloseReason::TakenOver)),
            None => announce(),
        }
    }

    /// Forgets the device's connection if it still is `link`; `announce` runs if so.
    pub(crate) fn remove(&self, device: &Arc<str>, link: &Arc<Link>, announce: impl FnOnce()) {
        let mut devices = self.0.lock().expect("not poisoned");
        if devices.get(device).is_some_and(|current| Arc::ptr_eq(current, link)) {
            devices.remove(device);
            announce();
        }
    }

    pub(crate) fn get(&self, device: &str) -> Option<Arc<Link>> {
        self.0.lock().expect("not poisoned").get(device).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }
}
