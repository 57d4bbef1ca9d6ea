//! The time that a window's counts belong to.

/// How far a device's clock is believed.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// How far a window's end may lie in the future, in microseconds.
    pub future_us: i64,
    /// How far it may lie in the past, in microseconds.
    pub past_us: i64,
}

const SECOND_US: i64 = 1_000_000;

/// When a window ended, microseconds UTC, and whether the device's clock was not believed.
///
/// A device that knows the time says when the window began (`start_unix_s`, 0 when it does not) and how long it was
/// open. Its clock is believed unless that lies after the message was written (`received_us` less the envelope's age)
/// by more than [`Horizon::future_us`], or too far in the past: a message may have waited at a broker for long, so the
/// device's time can be much earlier than the age tells, but never later. Otherwise the age counts, and without an age
/// the time of arrival.
pub fn window_end(
    start_unix_s: u64,
    duration_ms: u32,
    age_s: Option<u32>,
    received_us: i64,
    horizon: Horizon,
) -> (i64, bool) {
    let age_us = i64::from(age_s.unwrap_or(0)).saturating_mul(SECOND_US);
    // An age before the horizon is no better than a clock before it.
    let written_us = received_us.saturating_sub(age_us).max(received_us.saturating_sub(horizon.past_us));
    if start_unix_s == 0 {
        return (written_us, false);
    }
    let told_us = i64::try_from(start_unix_s)
        .unwrap_or(i64::MAX)
        .saturating_mul(SECOND_US)
        .saturating_add(i64::from(duration_ms) * 1_000);
    let earliest_us = received_us.saturating_sub(horizon.past_us);
    if (earliest_us..=written_us.saturating_add(horizon.future_us)).contains(&told_us) {
        (told_us, false)
    } else {
        (written_us, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_767_225_600;
    const NOW_US: i64 = 1_767_225_600_000_000;
    const HORIZON: Horizon = Horizon { future_us: 300 * SECOND_US, past_us: 86_400 * SECOND_US };

    #[test]
    fn clocks_are_believed_within_reason() {
        let end = |start, age| window_end(start, 60_000, age, NOW_US, HORIZON);
        let second = SECOND_US;
        // A good clock.
        assert_eq!(end(NOW_S - 100, Some(40)), (NOW_US - 40 * second, false));
        // A message that waited at a broker for an hour.
        assert_eq!(end(NOW_S - 3_700, Some(40)), (NOW_US - 3_640 * second, false));
        // A clock that is fast by a little, and by too much.
        assert_eq!(end(NOW_S + 100, Some(0)), (NOW_US + 160 * second, false));
        assert_eq!(end(NOW_S + 100, Some(200)), (NOW_US - 200 * second, true));
        // A clock that begins in 1970 or 2106.
        assert_eq!(end(5, Some(7)), (NOW_US - 7 * second, true));
        assert_eq!(end(u64::MAX, None), (NOW_US, true));
        // No clock; no age; neither.
        assert_eq!(end(0, Some(7)), (NOW_US - 7 * second, false));
        assert_eq!(end(NOW_S - 100, None), (NOW_US - 40 * second, false));
        assert_eq!(end(0, None), (NOW_US, false));
        // An age of a century.
        assert_eq!(end(0, Some(u32::MAX - 1)), (NOW_US - HORIZON.past_us, false));
    }

    proptest! {
        #[test]
        fn never_outside_of_the_horizon(
            start in any::<u64>(), near in -1_000_000_i64..1_000_000, is_near in any::<bool>(),
            duration in any::<u32>(), age in any::<Option<u32>>(),
        ) {
            let start = if is_near { NOW_S.saturating_add_signed(near) } else { start };
            let (end, _) = window_end(start, duration, age, NOW_US, HORIZON);
            prop_assert!((NOW_US - HORIZON.past_us..=NOW_US + HORIZON.future_us).contains(&end));
        }
    }
}
