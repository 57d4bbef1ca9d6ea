//! The histogram of latencies: one layout for all devices, so that histograms add.

/// Latencies in microseconds, counted in a fixed log-linear layout: exact up to 8 us, then 8 buckets per
/// doubling (a bucket is at most 12.5 % wide) up to 2^26 us, about 67 s; everything longer is in the last bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub(crate) counts: [u32; Latency::BUCKETS],
    /// The sum of all latencies, in microseconds.
    pub(crate) sum_us: u64,
    /// The longest latency, in microseconds.
    pub(crate) max_us: u32,
}

/// log2 of the buckets per doubling.
const SUB_BITS: u32 = 3;
/// Buckets per doubling.
const SUB: u64 = 1 << SUB_BITS;
/// log2 of the latency, in microseconds, from which on everything is in the last bucket.
const TOP_BITS: u32 = 26;

impl Latency {
    /// Number of buckets.
    pub const BUCKETS: usize = ((TOP_BITS - SUB_BITS + 1) as usize) * (SUB as usize) + 1;

    /// Nothing counted.
    pub const EMPTY: Latency = Latency { counts: [0; Self::BUCKETS], sum_us: 0, max_us: 0 };

    /// The bucket of a latency in microseconds; below [`Latency::BUCKETS`].
    pub const fn bucket(us: u64) -> usize {
        if us < SUB {
            return us as usize;
        }
        let octave = 63 - us.leading_zeros();
        if octave >= TOP_BITS {
            return Self::BUCKETS - 1;
        }
        let shift = octave - SUB_BITS;
        (SUB as usize) * (shift as usize + 1) + ((us >> shift) & (SUB - 1)) as usize
    }

    /// The first latency of a bucket and the first of the next one, in microseconds: the bucket holds
    /// `low <= us < high`. The last bucket has no end (`u64::MAX`), and so has a bucket that does not exist.
    pub const fn bounds(bucket: usize) -> (u64, u64) {
        (Self::low(bucket), Self::low(bucket.saturating_add(1)))
    }

    const fn low(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < SUB {
            return bucket;
        }
        if bucket >= Self::BUCKETS as u64 {
            return u64::MAX;
        }
        (SUB + bucket % SUB) << (bucket / SUB - 1)
    }

    /// How many latencies fell into each bucket.
    pub const fn counts(&self) -> &[u32; Self::BUCKETS] {
        &self.counts
    }

    /// The sum of all latencies, in microseconds.
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest latency, in microseconds (longer ones than 71 minutes count as 71 minutes); 0 when nothing was
    /// counted.
    pub const fn max_us(&self) -> u32 {
        self.max_us
    }

    pub(crate) fn record(&mut self, us: u64, saturated: &mut bool) {
        if let Some(count) = self.counts.get_mut(Self::bucket(us)) {
            crate::counter::add(count, 1, saturated);
        }
        self.add_sum(us, u32::try_from(us).unwrap_or(u32::MAX));
    }

    pub(crate) fn add_sum(&mut self, sum_us: u64, max_us: u32) {
        self.sum_us = self.sum_us.saturating_add(sum_us);
        self.max_us = self.max_us.max(max_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_everything_without_gaps() {
        let mut next = 0;
        for bucket in 0..Latency::BUCKETS {
            let (low, high) = Latency::bounds(bucket);
            assert_eq!(low, next);
            assert!(low < high);
            assert_eq!((Latency::bucket(low), Latency::bucket(high - 1)), (bucket, bucket));
            let narrow = bucket + 1 == Latency::BUCKETS || high - low == 1 || (high - low) * 8 <= low;
            assert!(narrow, "{bucket}: {low}..{high}");
            next = high;
        }
        assert_eq!(Latency::bounds(Latency::BUCKETS - 1), (1 << 26, u64::MAX));
        assert_eq!(Latency::bucket(u64::MAX), Latency::BUCKETS - 1);
        assert_eq!(Latency::BUCKETS, 193);
    }
}
