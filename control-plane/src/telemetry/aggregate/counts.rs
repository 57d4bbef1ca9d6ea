//! Counters of which most are zero.

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most counters that encoded counts may have: a damaged row must not ask for all memory.
const MAX_COUNTERS: u64 = dunlin_artifact::limits::MAX_COUNTERS as u64;

/// Counters by index; those beyond the highest that was ever raised are zero and take no memory. Encoded as the
/// (gap, count) pairs of the counters that are not zero.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Counts {
    /// Raises one counter.
    pub fn add(&mut self, index: usize, n: u64) {
        if n == 0 {
            return;
        }
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        if let Some(counter) = self.0.get_mut(index) {
            *counter = counter.saturating_add(n);
        }
    }

    /// Adds all counters of another.
    pub fn merge(&mut self, other: &Counts) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (counter, n) in self.0.iter_mut().zip(&other.0) {
            *counter = counter.saturating_add(*n);
        }
    }

    /// How many counters take memory.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all counters are zero.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One counter.
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The counters that are not zero, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, n)| *n > 0)
    }

    /// The sum of all counters.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The first `len` counters.
    pub fn dense(&self, len: usize) -> Vec<u64> {
        (0..len).map(|index| self.get(index)).collect()
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pairs = serializer.serialize_seq(Some(self.iter().count()))?;
        let mut next = 0;
        for (index, n) in self.iter() {
            pairs.serialize_element(&((index - next) as u64, n))?;
            next = index + 1;
        }
        pairs.end()
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut counts = Counts::default();
        let mut next = 0_u64;
        for (gap, n) in pairs {
            let index = next.checked_add(gap).filter(|index| *index < MAX_COUNTERS);
            let index = index.ok_or_else(|| D::Error::custom("a counter beyond the limit"))?;
            counts.add(index as usize, n);
            next = index + 1;
        }
        Ok(counts)
    }
}
