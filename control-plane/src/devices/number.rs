//! Tags and attributes that are numbers.

/// The number that a tag's or attribute's text stands for: decimal, finite, without spaces or words like `inf`.
pub(crate) fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let looks_decimal = unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !looks_decimal {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn only_decimal_numbers_count() {
        for (text, value) in [("0", 0.0), ("-1.5", -1.5), ("1e3", 1000.0), ("007", 7.0), ("2.", 2.0)] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for text in ["", "-", "inf", "NaN", " 1", "1 ", "+1", "0x10", "1_000", "1e999", ".5", "1-2"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
