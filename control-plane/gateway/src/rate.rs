//! Token buckets. Pure: the caller brings the time.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// A token bucket that may be overdrawn once: work that has arrived is done, and the debt is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Tokens there are; negative is debt.
    tokens: f64,
    per_second: f64,
    burst: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket. `per_second` > 0, `burst` >= 1.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Bucket {
        Bucket { tokens: burst, per_second, burst, filled: now }
    }

    /// Adds what has dripped in since the last call.
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.filled = now;
    }

    /// Takes `amount`, into debt if need be.
    pub(crate) fn take(&mut self, amount: f64) {
        self.tokens -= amount;
    }

    /// Takes one if there is one.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// How long until the debt is paid; `None` if there is none.
    pub(crate) fn debt(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / self.per_second))
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }
}

/// Limits new connections per address; an IPv6 host is its /64 network, which one host owns.
#[derive(Debug)]
pub(crate) struct PerAddress {
    buckets: HashMap<IpAddr, Bucket>,
    per_second: f64,
    burst: f64,
}

/// Most addresses that are remembered. Beyond it, those with a full bucket are forgotten (nothing is lost by that),
/// and if none is full a new address is refused until some are.
const MAX_ADDRESSES: usize = 65_536;

impl PerAddress {
    pub(crate) fn new(per_second: f64, burst: f64) -> PerAddress {
        PerAddress { buckets: HashMap::new(), per_second, burst }
    }

    /// Whether a connection from `address` is within its rate.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let key = network(address);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= MAX_ADDRESSES {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.buckets.shrink_to(MAX_ADDRESSES / 4);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let new = Bucket::new(self.per_second, self.burst, now);
        self.buckets.entry(key).or_insert(new).try_take(now)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debt_is_waited_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10.0, 5.0, start);
        bucket.take(15.0);
        assert_eq!(bucket.debt(start), Some(Duration::from_secs(1)));
        assert_eq!(bucket.debt(start + Duration::from_secs(1)), None);
        // An hour later there is no more than the burst.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.try_take(later)).count(), 5);
    }

    #[test]
    fn addresses_do_not_share_a_bucket_but_a_network_does() {
        let now = Instant::now();
        let mut limiter = PerAddress::new(1.0, 2.0);
        let [one, two]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert!(limiter.admit(one, now) && limiter.admit(one, now) && !limiter.admit(one, now));
        assert!(limiter.admit(two, now));
        assert!(limiter.admit(one, now + Duration::from_secs(1)));
        let [near, far]: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap()];
        assert!(limiter.admit(near, now) && limiter.admit(far, now) && !limiter.admit(near, now));
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let now = Instant::now();
        let mut limiter = PerAddress::new(1.0, 1.0);
        for host in 0..MAX_ADDRESSES as u32 {
            assert!(limiter.admit(IpAddr::from(host.to_be_bytes()), now));
        }
        let stranger: IpAddr = "250.0.0.1".parse().unwrap();
        assert!(!limiter.admit(stranger, now));
        assert!(limiter.admit(stranger, now + Duration::from_secs(2)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
