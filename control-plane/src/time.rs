//! Points in time as the API writes them: RFC 3339 in UTC with microseconds. The database holds the same as integer
//! microseconds since 1970.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// 9999-12-31T23:59:59.999999Z, the last point in time that RFC 3339 can write.
const LAST_US: i64 = 253_402_300_800 * SECOND_US - 1;
/// 0000-01-01T00:00:00Z.
const FIRST_US: i64 = -62_167_219_200 * SECOND_US;

/// A point in time: microseconds since 1970-01-01 00:00:00 UTC, in JSON a text like `2026-01-01T12:00:00.000000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-01T12:00:00.000000Z")]
pub struct Timestamp(pub i64);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_us(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse_us(&text).map(Timestamp).ok_or_else(|| {
            serde::de::Error::custom("a point in time must be written like 2026-01-01T12:00:00Z (RFC 3339)")
        })
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_us(self.0))
    }
}

/// Writes microseconds since 1970 UTC as RFC 3339. Times outside of the years 0 to 9999 become the nearest one inside.
pub fn format_us(us: i64) -> String {
    let us = us.clamp(FIRST_US, LAST_US);
    let (year, month, day) = civil_from_days(us.div_euclid(DAY_US));
    let in_day = us.rem_euclid(DAY_US);
    let seconds = in_day / SECOND_US;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        in_day % SECOND_US
    )
}

/// Reads RFC 3339 with any offset; digits after the microsecond are dropped. A leap second counts as the second after
/// it. `None` if the text is not a point in time.
pub fn parse_us(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        Some(digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    };
    let sign =
        |index: usize, expected: &[u8]| bytes.get(index).filter(|byte| expected.contains(byte)).map(|_| ());
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    for (index, expected) in [(4, b"-".as_slice()), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        sign(index, expected)?;
    }
    let mut at = 19;
    let mut micros = 0;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes.get(at + 1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..6 {
            let digit =
                bytes.get(at + 1 + place).filter(|_| place < digits).map_or(0, |byte| i64::from(byte - b'0'));
            micros = micros * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        direction @ (b'+' | b'-') if bytes.len() == at + 6 => {
            sign(at + 3, b":")?;
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            (hours < 24 && minutes < 60).then_some(())?;
            let offset = hours * 60 + minutes;
            if *direction == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    // Only real dates survive the way there and back.
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * SECOND_US + micros)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day (same source, `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_points() {
        for (text, us) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2026-01-01T00:00:00.000000Z", 1_767_225_600_000_000),
            ("2000-02-29T23:59:59.999999Z", 951_868_799_999_999),
            ("1969-12-31T23:59:59.000001Z", -999_999),
            ("9999-12-31T23:59:59.999999Z", LAST_US),
            ("0000-01-01T00:00:00.000000Z", FIRST_US),
        ] {
            assert_eq!(format_us(us), text);
            assert_eq!(parse_us(text), Some(us));
        }
        assert_eq!(parse_us("2026-01-01T02:30:00+02:30"), Some(1_767_225_600_000_000));
        assert_eq!(parse_us("2025-12-31t19:00:00.5-05:00"), Some(1_767_225_600_500_000));
        assert_eq!(parse_us("2016-12-31T23:59:60Z"), parse_us("2017-01-01T00:00:00Z"));
        assert_eq!(format_us(i64::MAX), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2026",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00Zx",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00ä",
        ] {
            assert_eq!(parse_us(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(us in FIRST_US..=LAST_US) {
            prop_assert_eq!(parse_us(&format_us(us)), Some(us));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse_us(&text);
        }
    }
}
