//! Which device is connected by which connection.

use crate::{
    CloseReason,
    link::{Link, Request},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// The connections that are logged in, by device.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Devices>);

#[derive(Debug, Default)]
struct Devices {
    links: HashMap<Arc<str>, Arc<Link>>,
    /// How many kicks there have been.
    kicks: u64,
}

/// When a login began, counted in kicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun(u64);

impl Registry {
    /// To be called before a login is checked.
    pub(crate) fn begin(&self) -> Begun {
        Begun(self.lock().kicks)
    }

    /// Makes `link` the device's connection; an older one is asked to leave. `announce` runs if there was none, in
    /// the order of the registry's changes. False, and nothing happens, if any device was kicked since the login
    /// began: it may have been this one, after it was found to be welcome.
    pub(crate) fn insert(
        &self,
        device: &Arc<str>,
        link: &Arc<Link>,
        begun: Begun,
        announce: impl FnOnce(),
    ) -> bool {
        let mut devices = self.lock();
        if devices.kicks != begun.0 {
            return false;
        }
        match devices.links.insert(device.clone(), link.clone()) {
            Some(old) => old.request(Request::Close(CloseReason::TakenOver)),
            None => announce(),
        }
        true
    }

    /// Forgets the device's connection if it still is `link`; `announce` runs if so.
    pub(crate) fn remove(&self, device: &Arc<str>, link: &Arc<Link>, announce: impl FnOnce()) {
        let mut devices = self.lock();
        if devices.links.get(device).is_some_and(|current| Arc::ptr_eq(current, link)) {
            devices.links.remove(device);
            announce();
        }
    }

    /// Asks the device's connection to leave, and a login of it that is being checked not to come.
    pub(crate) fn kick(&self, device: &str) {
        let mut devices = self.lock();
        devices.kicks += 1;
        if let Some(link) = devices.links.get(device) {
            link.request(Request::Close(CloseReason::Kicked));
        }
    }

    pub(crate) fn get(&self, device: &str) -> Option<Arc<Link>> {
        self.lock().links.get(device).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().links.len()
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.0.lock().expect("not poisoned")
    }
}
