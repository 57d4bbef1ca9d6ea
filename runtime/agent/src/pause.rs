//! Pauses between attempts.

/// The pause before the next attempt, in milliseconds, after `attempts` in a row that led to nothing: the least one
/// doubled each time up to the longest, then shortened by up to a half, as `random` says, so that a fleet does not come
/// back all at once.
pub(crate) fn pause_ms(least_ms: u32, longest_ms: u32, attempts: u32, random: u32) -> u64 {
    let least = u64::from(least_ms);
    let longest = u64::from(longest_ms).max(least);
    let factor = 1_u64.checked_shl(attempts).unwrap_or(u64::MAX);
    let pause = least.saturating_mul(factor).min(longest);
    pause - ((pause / 2).saturating_mul(u64::from(random)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_by_up_to_a_half() {
        let pauses = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
        for (attempts, pause) in (0..).zip(pauses) {
            assert_eq!(pause_ms(1_000, 60_000, attempts, 0), pause);
            assert_eq!(pause_ms(1_000, 60_000, attempts, 1 << 31), pause * 3 / 4);
            assert!(pause_ms(1_000, 60_000, attempts, u32::MAX) >= pause / 2);
        }
        assert_eq!(pause_ms(1_000, 60_000, u32::MAX, 0), 60_000);
    }

    #[test]
    fn nonsense_does_no_harm() {
        assert_eq!(pause_ms(0, 0, 40, u32::MAX), 0);
        assert!(pause_ms(u32::MAX, 0, 63, 1) > 0);
    }
}
