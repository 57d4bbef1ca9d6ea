//! Counters that stop at their end instead of wrapping, and say so.

/// Adds `n` to a counter. At its end the counter stays there and `saturated` is set: the count is then a lower
/// bound. A minimum of a sum and a constant is associative and commutative, so merging stays both.
pub(crate) fn add(counter: &mut u32, n: u32, saturated: &mut bool) {
    let (sum, overflow) = counter.overflowing_add(n);
    *counter = if overflow { u32::MAX } else { sum };
    *saturated |= overflow;
}

/// Whether the sum of two counters can be counted.
pub(crate) fn fits(a: u32, b: u32) -> bool {
    a.checked_add(b).is_some()
}
