//! How long to wait before connecting again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// The wait after `failures` (>= 1) connections in a row that came to nothing: doubling, and from a half of that to
/// all of it by `random`, so that processes do not come back at the same moment.
pub(super) fn wait(failures: u32, random: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    doubled.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit() {
        assert_eq!(wait(1, u32::MAX), FIRST);
        assert_eq!(wait(1, 0), FIRST / 2);
        assert_eq!(wait(3, u32::MAX), FIRST * 4);
        assert_eq!(wait(u32::MAX, u32::MAX), LONGEST);
        assert_eq!(wait(u32::MAX, 0), LONGEST / 2);
    }
}
