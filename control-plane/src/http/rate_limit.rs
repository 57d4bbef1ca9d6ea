//! Request rates: a token bucket for each access token, and one for each address without a valid token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::clock::SECOND_US;
use crate::limits;

/// Token buckets, one for each key.
///
/// A bucket holds at most `burst` requests and gains `rate` of them a second. Counted in microseconds of waiting
/// time, so that there are no fractions: a request costs `1 s / rate`, and a bucket may owe `burst` requests.
#[derive(Debug)]
pub(crate) struct RateLimit<K> {
    cost_us: i64,
    depth_us: i64,
    /// When each bucket is full again.
    full_us: Mutex<HashMap<K, i64>>,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// `rate` requests a second on average, `burst` of them at once; both at least 1.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let cost_us = (SECOND_US / i64::from(rate.max(1))).max(1);
        RateLimit { cost_us, depth_us: cost_us * i64::from(burst.max(1)), full_us: Mutex::default() }
    }

    /// Takes a request out of the key's bucket.
    ///
    /// # Errors
    /// The seconds to wait, rounded up, when the bucket is empty.
    pub(crate) fn take(&self, key: K, now_us: i64) -> Result<(), u64> {
        let mut buckets = self.full_us.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= limits::RATE_ENTRIES {
            // Full buckets are like no buckets. If none is full, everybody starts anew: memory stays bounded.
            buckets.retain(|_, full_us| *full_us > now_us);
            if buckets.len() >= limits::RATE_ENTRIES {
                buckets.clear();
            }
        }
        let full_us = buckets.entry(key).or_insert(now_us);
        // When the clock went back, nobody waits longer than for a whole bucket.
        *full_us = (*full_us).clamp(now_us, now_us.saturating_add(self.depth_us));
        let owed_us = *full_us - now_us;
        let after_us = owed_us + self.cost_us;
        if after_us > self.depth_us {
            let wait_us = (after_us - self.depth_us).unsigned_abs();
            return Err(wait_us.div_ceil(SECOND_US.unsigned_abs()));
        }
        *full_us = now_us + after_us;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = RateLimit::new(10, 3);
        for _ in 0..3 {
            assert_eq!(limit.take("a", 0), Ok(()));
        }
        assert_eq!(limit.take("a", 0), Err(1));
        assert_eq!(limit.take("b", 0), Ok(()), "another key has its own bucket");
        assert_eq!(limit.take("a", 99_999), Err(1));
        assert_eq!(limit.take("a", 100_000), Ok(()));
        assert_eq!(limit.take("a", 100_000), Err(1));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_lock_out() {
        let limit = RateLimit::new(1, 1);
        assert_eq!(limit.take("a", 3_600 * SECOND_US), Ok(()));
        assert_eq!(limit.take("a", 0), Err(1), "at most the wait of a whole bucket");
        assert_eq!(limit.take("a", SECOND_US), Ok(()), "which has passed, whatever the clock showed before");
    }

    #[test]
    fn memory_is_bounded() {
        let limit = RateLimit::new(1, 1);
        for key in 0..limits::RATE_ENTRIES * 2 {
            let _ = limit.take(key, 0);
        }
        let buckets = limit.full_us.lock().expect("not poisoned").len();
        assert!(buckets <= limits::RATE_ENTRIES, "{buckets}");
    }
}
