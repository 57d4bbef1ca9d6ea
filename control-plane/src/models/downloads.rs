//! How many artifacts leave at once, and how often each device asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::Handles;
use crate::http::{Problem, RateLimit};

/// How much may be under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Downloads at once.
    pub(super) all: usize,
    /// Downloads of a device at once.
    pub(super) device: usize,
    /// Requests of a device per second, on average.
    pub(super) rate: u32,
    /// The same, at once.
    pub(super) burst: u32,
}

/// Downloads under way in this process, by one transport.
#[derive(Debug)]
pub(super) struct Downloads {
    bounds: Bounds,
    metrics: Handles,
    all: Arc<Semaphore>,
    by_device: Arc<Mutex<HashMap<String, usize>>>,
    rates: RateLimit<String>,
}

/// The right to one download; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_device: Option<DevicePermit>,
}

#[derive(Debug)]
struct DevicePermit {
    by_device: Arc<Mutex<HashMap<String, usize>>>,
    device: String,
}

impl Downloads {
    pub(super) fn new(bounds: Bounds, metrics: Handles) -> Self {
        Downloads {
            bounds,
            metrics,
            all: Arc::new(Semaphore::new(bounds.all)),
            by_device: Arc::default(),
            rates: RateLimit::new(bounds.rate, bounds.burst),
        }
    }

    /// Counts bytes that were sent.
    pub(super) fn sent(&self) -> Counter {
        self.metrics.sent.clone()
    }

    /// A download by somebody with a token, whose rate was checked before.
    ///
    /// # Errors
    /// 503 when too many are under way.
    pub(super) fn begin(&self) -> Result<Permit, Problem> {
        Ok(Permit { _one_of_all: self.one_of_all()?, _one_of_device: None })
    }

    /// A download by a device.
    ///
    /// # Errors
    /// 503 when too many are under way, 429 when too many of them are the device's or it asks too often.
    pub(super) fn begin_by(&self, device: &str, now_us: i64) -> Result<Permit, Problem> {
        let one_of_all = self.one_of_all()?;
        let mut by_device = self.by_device.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_device.get(device).copied().unwrap_or(0);
        let wait = match count < self.bounds.device {
            true => self.rates.take(device.to_owned(), now_us),
            false => Err(1),
        };
        wait.map_err(|seconds| self.refuse(Problem::too_many_requests(seconds)))?;
        by_device.insert(device.to_owned(), count + 1);
        let one = DevicePermit { by_device: Arc::clone(&self.by_device), device: device.to_owned() };
        Ok(Permit { _one_of_all: one_of_all, _one_of_device: Some(one) })
    }

    fn one_of_all(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = Arc::clone(&self.all).try_acquire_owned();
        permit.map_err(|_| self.refuse(Problem::unavailable("too many artifacts are being downloaded")))
    }

    /// Counts a refusal.
    pub(super) fn refuse(&self, problem: Problem) -> Problem {
        self.metrics.waits.inc();
        problem
    }
}

impl Drop for DevicePermit {
    fn drop(&mut self) {
        let mut by_device = self.by_device.lock().unwrap_or_else(PoisonError::into_inner);
        match by_device.get_mut(&self.device) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_device.remove(&self.device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Metrics;

    #[test]
    fn devices_and_all_together_have_limits() {
        let bounds = Bounds { all: 5, device: 2, rate: 1, burst: 4 };
        let [metrics] = Handles::of(&Metrics::new(), ["http"]);
        let (waits, downloads) = (metrics.waits.clone(), Downloads::new(bounds, metrics));
        let status = |result: Result<Permit, Problem>| result.map(drop).map_err(|problem| problem.status);
        let two = [downloads.begin_by("a", 0).unwrap(), downloads.begin_by("a", 0).unwrap()];
        assert_eq!(status(downloads.begin_by("a", 0)), Err(429));
        assert_eq!(status(downloads.begin_by("b", 0)), Ok(()), "another device");
        drop(two);
        for _ in 2..4 {
            assert_eq!(status(downloads.begin_by("a", 0)), Ok(()));
        }
        assert_eq!(status(downloads.begin_by("a", 0)), Err(429), "too often");
        assert!(downloads.by_device.lock().unwrap().is_empty(), "devices that are done take no memory");
        let all: Vec<_> = (0..5).map(|_| downloads.begin().unwrap()).collect();
        assert_eq!(status(downloads.begin()), Err(503));
        assert_eq!(status(downloads.begin_by("c", 0)), Err(503));
        drop(all);
        assert_eq!(status(downloads.begin_by("c", 0)), Ok(()));
        assert_eq!(waits.get(), 4);
    }
}
