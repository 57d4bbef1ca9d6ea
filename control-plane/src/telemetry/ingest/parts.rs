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
}

impl Parts {
    /// Parts that may be open at once; beyond, those that were not used for longest are sealed.
    pub const OPEN: usize = 2_048;
    /// Time without a report after which a part is sealed.
    pub const IDLE_US: i64 = 30 * 1_000_000;

    /// The part with this key.
    pub fn get(&self, key: &PartKey) -> Option<&Part> {
        self.open.get(key)
    }

    /// Takes parts over as they were committed.
    pub fn commit(&mut self, parts: impl IntoIterator<Item = (PartKey, Part)>) {
        self.open.extend(parts);
    }

    /// The parts to seal now: those that rest, and those that are too many. Sorted by id.
    pub fn to_seal(&self, now_us: i64) -> Vec<Arc<str>> {
        let mut parts: Vec<(i64, &Arc<str>)> =
            self.open.values().map(|part| (part.touched_us, &part.id)).collect();
        parts.sort_unstable();
        let too_many = parts.len().saturating_sub(Self::OPEN);
        let rests = |touched_us: i64| {
            // A clock that went back must not keep a part open for ever.
            !(0..Self::IDLE_US).contains(&now_us.saturating_sub(touched_us))
        };
        let mut ids: Vec<Arc<str>> = parts
            .iter()
            .enumerate()
            .filter(|(place, (touched_us, _))| *place < too_many || rests(*touched_us))
            .map(|(_, (_, id))| Arc::clone(id))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Forgets parts that are sealed.
    pub fn forget(&mut self, sealed: &[Arc<str>]) {
        self.open.retain(|_, part| sealed.binary_search(&part.id).is_err());
    }

    /// Forgets all: another process has sealed them.
    pub fn clear(&mut self) {
        self.open.clear();
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
