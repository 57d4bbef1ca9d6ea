//! A bounded map that forgets what was not used for long.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A map of two generations. New and used entries are in the young one; when it is half of the capacity, it becomes
/// the old one and what was the old one is forgotten. So an entry stays for at least `capacity / 2` uses of others.
#[derive(Debug)]
pub struct Generations<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Generations<K, V> {
    /// A map that never has more than `capacity` (>= 2) entries.
    pub fn new(capacity: usize) -> Self {
        Generations { half: (capacity / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of a key. It counts as used when it is inserted again, not here.
    pub fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Sets a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.young.insert(key, value);
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
    }

    /// Forgets a key.
    pub fn remove<Q: ?Sized + Eq + Hash>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut map = Generations::new(10);
        for n in 0..1_000 {
            map.insert(n, n);
            map.insert(-1, n);
            assert!(map.len() <= 10, "{}", map.len());
        }
        assert_eq!(map.get(&-1), Some(&999));
        assert_eq!((map.get(&0), map.get(&999)), (None, Some(&999)));
        map.remove(&999);
        assert_eq!(map.get(&999), None);
        map.clear();
        assert!(map.is_empty());
    }
}
