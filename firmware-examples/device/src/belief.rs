//! Whom the device believes, and what it takes from what it is told.

use core::fmt::Write as _;

use dunlin_agent::update::{self, Target};
use dunlin_agent::uplink::Event;
use dunlin_monitor::Schedule;
use dunlin_protocol::{Desired, EventKind};
use dunlin_trust::{Refused, Time, Trust, Verifier};
use embedded_storage::nor_flash::NorFlash;

use crate::device::{Device, Now, Text};

/// Whom the device believes.
#[allow(clippy::large_enum_variant, reason = "there is no memory to put it elsewhere")]
pub(crate) enum Belief {
    /// Nobody: no root is built in.
    Rootless,
    /// It cannot be read any more. Beginning anew would forget which assignments and keys count no more.
    Damaged,
    /// What stands there.
    Rooted(Trust),
}

/// What becomes of a desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts, or it does not.
    Settled,
    /// This root is needed before it can be judged.
    RootNeeded(u32),
    /// It is to be looked at again later.
    Later,
}

impl<F: NorFlash, V: Verifier> Device<'_, F, V> {
    /// Decides about a desired state for the device with this id, and brings about what is believed of it. Nothing is
    /// acted upon before what it changes in the device's trust is stored.
    pub(crate) fn believe(&mut self, message: &[u8], id: &str, now: Now) -> Verdict {
        let Ok(desired) = Desired::decode(message) else { return Verdict::Settled };
        let time = match now.unix_s {
            0 => Time::Unknown,
            seconds => Time::UnixS(seconds),
        };
        let known = match &self.belief {
            Belief::Rooted(trust) => trust,
            Belief::Rootless => {
                self.without_root(&desired, now);
                return Verdict::Settled;
            }
            Belief::Damaged => {
                self.refuse(desired.generation, now, |text| {
                    let _ = text.write_str("what the device knows of keys is damaged: nothing is installed");
                });
                return Verdict::Settled;
            }
        };
        let mut trust = known.clone();
        let assigned = match trust.assignment(message, id, time, &self.verifier) {
            Ok(assigned) => assigned,
            Err(Refused::RootMissing { known, .. }) => return Verdict::RootNeeded(known.saturating_add(1)),
            Err(refused) => {
                self.refuse(desired.generation, now, |text| {
                    let _ = write!(text, "the assignment is not believed: {refused}");
                });
                return Verdict::Settled;
            }
        };
        trust.keep(&assigned);
        let slot = assigned.desired.slots.iter().find(|slot| slot.slot == self.slot);
        let target = slot.map(|slot| {
            (slot.version, update::target(&mut trust, &slot, self.hardware, time, &self.verifier))
        });
        if trust != *known && self.store.save_trust(&trust).is_err() {
            self.refuse(desired.generation, now, |text| {
                let _ = text.write_str("what the device believes cannot be stored: nothing is installed");
            });
            return Verdict::Later;
        }
        self.belief = Belief::Rooted(trust);
        match target {
            Some((version, Err(refused))) => self.refuse(desired.generation, now, |text| {
                let _ = write!(text, "version {version} is not believed: {refused}");
            }),
            Some((_, Ok(target))) => self.assigned(desired.generation, target, now),
            None => self.refused.clear(),
        }
        self.take(&desired, now);
        Verdict::Settled
    }

    /// A device without a root takes everything but models.
    fn without_root(&mut self, desired: &Desired<'_>, now: Now) {
        if desired.expires_unix_s != 0 && now.unix_s > desired.expires_unix_s {
            return;
        }
        if desired.slots.iter().any(|slot| slot.slot == self.slot && slot.model != [0; 32]) {
            self.refuse(desired.generation, now, |text| {
                let _ = text.write_str("no root is built in: dunlin keys export");
            });
        }
        self.take(desired, now);
    }

    fn assigned(&mut self, generation: u64, target: Target, now: Now) {
        self.refused.clear();
        self.update(update::Event::Assigned { generation, target }, now);
    }

    /// Takes note of why an assignment does not count; tells it once.
    fn refuse(&mut self, generation: u64, now: Now, why: impl FnOnce(&mut Text)) {
        let mut text = Text::new();
        why(&mut text);
        if text == self.refused {
            return;
        }
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.note(EventKind::AssignmentRefused, generation, &text, now);
        self.refused = text;
        self.tell(now);
    }

    /// What it says about reporting.
    fn take(&mut self, desired: &Desired<'_>, now: Now) {
        let Desired { generation, report_period_s, window_period_s, window_count, .. } = *desired;
        if generation > self.uplink.desired_generation() {
            self.schedule = Schedule {
                period_ms: match window_period_s {
                    0 => self.own_schedule.period_ms,
                    seconds => seconds.saturating_mul(1000),
                },
                runs: if window_count == 0 { self.own_schedule.runs } else { window_count },
            };
        }
        self.step(Event::Desired { generation, report_period_s }, now);
    }

    /// Takes the root that follows; it counts once it is stored. Otherwise nothing has changed.
    pub(crate) fn take_root(&mut self, number: u32, root: &[u8], now: Now) -> bool {
        let Belief::Rooted(trust) = &self.belief else { return false };
        let mut trust = trust.clone();
        if let Err(refused) = trust.rotate(root, &self.verifier) {
            self.no_root(number, &refused, now);
            return false;
        }
        if self.store.save_trust(&trust).is_err() {
            self.no_root(number, &"it cannot be stored", now);
            return false;
        }
        self.belief = Belief::Rooted(trust);
        true
    }

    /// A root that is needed is not to be had.
    pub(crate) fn no_root(&mut self, number: u32, why: &dyn core::fmt::Display, now: Now) {
        self.refuse(0, now, |text| {
            let _ = write!(text, "root {number} is needed, but {why}");
        });
    }
}
