//! Samples of messages that were not applied.

use super::{Decoded, Generations, Reason};
use crate::bus::DeviceId;

/// A message that was not applied, kept as a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Who sent it.
    pub device: DeviceId,
    /// The fleet of the sender, if it is known.
    pub fleet: Option<String>,
    /// What it was, the last level of its topic.
    pub kind: &'static str,
    /// Why it was not applied.
    pub reason: Reason,
    /// The beginning of its bytes.
    pub payload: Vec<u8>,
    /// How long it was, in bytes.
    pub size: usize,
}

/// Decides which are kept: a few for each device and reason, so that one broken device does not push all others out.
/// Counters count every one of them.
#[derive(Debug)]
pub struct Letters {
    kept: Generations<(DeviceId, &'static str), (i64, u32)>,
}

impl Letters {
    /// Samples of one device with one reason in one [`Letters::PERIOD_US`].
    pub const PER_PERIOD: u32 = 3;
    /// The time in which that many samples are kept.
    pub const PERIOD_US: i64 = 3_600 * 1_000_000;
    /// Samples in one batch.
    pub const PER_BATCH: usize = 100;
    /// Bytes of a message that are kept.
    pub const PAYLOAD: usize = 1024;

    /// Nothing kept yet; remembers what was kept of `capacity` devices and reasons.
    pub fn new(capacity: usize) -> Self {
        Letters { kept: Generations::new(capacity) }
    }

    /// The samples of a batch. They count as kept even if the transaction fails and they are taken again: that only
    /// means fewer samples.
    pub fn sample<'a>(
        &mut self,
        rejected: impl Iterator<Item = (&'a Decoded<'a>, Reason)>,
        now_us: i64,
    ) -> Vec<DeadLetter> {
        let mut samples = Vec::new();
        for (decoded, reason) in rejected {
            if samples.len() == Self::PER_BATCH {
                break;
            }
            let key = (decoded.received.device.clone(), reason.name());
            let (since_us, n) = match self.kept.get(&key) {
                // A clock that went back begins a new period too.
                Some((since_us, n)) if (0..Self::PERIOD_US).contains(&now_us.saturating_sub(*since_us)) => {
                    (*since_us, *n)
                }
                _ => (now_us, 0),
            };
            if n >= Self::PER_PERIOD {
                continue;
            }
            self.kept.insert(key, (since_us, n + 1));
            let payload = &decoded.received.payload;
            samples.push(DeadLetter {
                device: decoded.received.device.clone(),
                fleet: decoded.received.cohort.as_ref().map(|cohort| cohort.fleet.to_string()),
                kind: decoded.received.kind.as_str(),
                reason,
                payload: payload.get(..Self::PAYLOAD).unwrap_or(payload).to_vec(),
                size: payload.len(),
            });
        }
        samples
    }
}
