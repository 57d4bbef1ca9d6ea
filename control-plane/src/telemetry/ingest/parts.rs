//! Parts: sums of this process that are still open.

use std::collections::HashMap;
use std::sync::Arc;

use super::Cohort;
use crate::telemetry::aggregate::Aggregate;

/// What a part is the sum of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartKey {
    /// The digest of the model's artifact.
    pub model: [u8; 32],
    /// The model slot.
    pub slot: Box<str>,
    /// The devices.
    pub cohort: Cohort,
    /// The minute in which the windows ended: its beginning, microseconds UTC.
    pub minute_us: i64,
}

/// A sum of reports that this process has received. It is one row in the database, which nobody else writes until the
/// part is sealed; a roll-up then adds it to the statistics of its minute, hour and day.
#[derive(Clone, Debug)]
pub struct Part {
    /// The row's id.
    pub id: Arc<str>,
    /// The sums, everything committed included.
    pub sums: Aggregate,
    /// When a report was added last.
    pub touched_us: i64,
}

/// The open parts of this process, as they are in the database.
#[derive(Debug, Default)]
pub struct Parts {
    open: HashMap<PartKey, Part>,
    /// Counters of all open parts together.
    counters: usize,
}

impl Parts {
    /// Parts that may be open at once; beyond, those that were not used for longest are sealed.
    pub const OPEN: usize = 2_048;
    /// Counters of open parts, of eight bytes each; beyond, as with too many parts.
    pub const COUNTERS: usize = 8 << 20;
    /// Time without a report after which a part is sealed.
    pub const IDLE_US: i64 = 30 * 1_000_000;

    /// The part with this key.
    pub fn get(&self, key: &PartKey) -> Option<&Part> {
        self.open.get(key)
    }

    /// Takes parts over as they were committed.
    pub fn commit(&mut self, parts: impl IntoIterator<Item = (PartKey, Part)>) {
        for (key, part) in parts {
            self.counters += part.sums.counters();
            if let Some(before) = self.open.insert(key, part) {
                self.counters = self.counters.saturating_sub(before.sums.counters());
            }
        }
    }

    /// Whether it is time to seal some without waiting for any to rest.
    pub fn is_full(&self) -> bool {
        self.open.len() > 2 * Self::OPEN || self.counters > 2 * Self::COUNTERS
    }

    /// The parts to seal now: those that rest, and those that are too many. Sorted by id.
    pub fn to_seal(&self, now_us: i64) -> Vec<Arc<str>> {
        let mut parts: Vec<(i64, &Arc<str>, usize)> =
            self.open.values().map(|part| (part.touched_us, &part.id, part.sums.counters())).collect();
        parts.sort_unstable();
        let (mut left, mut counters) = (parts.len(), self.counters);
        let mut ids = Vec::new();
        for (touched_us, id, own) in parts {
            // A clock that went back must not keep a part open for ever.
            let rests = !(0..Self::IDLE_US).contains(&now_us.saturating_sub(touched_us));
            if rests || left > Self::OPEN || counters > Self::COUNTERS {
                ids.push(Arc::clone(id));
                left -= 1;
                counters = counters.saturating_sub(own);
            }
        }
        ids.sort_unstable();
        ids
    }

    /// Forgets parts that are sealed.
    pub fn forget(&mut self, sealed: &[Arc<str>]) {
        let counters = &mut self.counters;
        self.open.retain(|_, part| {
            let stays = sealed.binary_search(&part.id).is_err();
            if !stays {
                *counters = counters.saturating_sub(part.sums.counters());
            }
            stays
        });
    }

    /// Forgets all: another process has sealed them.
    pub fn clear(&mut self) {
        self.open.clear();
        self.counters = 0;
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: usize, touched_us: i64) -> (PartKey, Part) {
        let cohort = Cohort { key: "f/h".into(), fleet: "f".into() };
        let key = PartKey { model: [0; 32], slot: "s".into(), cohort, minute_us: id as i64 };
        let mut sums = Aggregate::default();
        sums.failures.add(1, 1);
        (key, Part { id: format!("{id:06}").into(), sums, touched_us })
    }

    #[test]
    fn what_rests_or_is_too_much_is_sealed() {
        let mut parts = Parts::default();
        parts.commit((0..5).map(|id| part(id, id as i64 * 10_000_000)));
        parts.commit([part(4, 40_000_000)]);
        assert_eq!((parts.len(), parts.counters), (5, 10));
        let ids = parts.to_seal(45_000_000);
        assert_eq!(ids, ["000000".into(), "000001".into()]);
        parts.forget(&ids);
        assert_eq!((parts.len(), parts.counters), (3, 6));
        // The clock went back.
        assert_eq!(parts.to_seal(0).len(), 3);
        let many = 3 * Parts::OPEN;
        parts.commit((10..10 + many).map(|id| part(id, 40_000_000 + id as i64)));
        assert!(parts.is_full());
        let ids = parts.to_seal(45_000_000);
        assert_eq!((ids.len(), &*ids[0]), (many + 3 - Parts::OPEN, "000002"));
        parts.forget(&ids);
        assert_eq!((parts.len(), parts.counters), (Parts::OPEN, 2 * Parts::OPEN));
        assert!(!parts.is_full());
    }
}
