//! The order of version texts.

/// A number that grows with the version: `1.2.3` > `1.2.3-beta` > `1.2.2`. Missing parts count as 0, a leading `v` and
/// what follows `+` do not count. `None` for texts that are not versions, or whose parts exceed 1,048,575.
pub(crate) fn order(text: &str) -> Option<i64> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split('+').next().unwrap_or_default();
    let (numbers, is_release) = match text.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (text, true),
    };
    let mut parts = numbers.split('.');
    let mut order = 0_i64;
    for index in 0..3 {
        let value = match parts.next() {
            Some(part) if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse::<i64>().ok()?,
            None if index > 0 => 0,
            _ => return None,
        };
        if value >= 1 << 20 {
            return None;
        }
        order = order << 20 | value;
    }
    if parts.next().is_some() {
        return None;
    }
    Some(order << 1 | i64::from(is_release))
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn versions_are_ordered() {
        let sorted = ["0.0.1", "0.1.0-rc.1", "0.1.0", "0.2", "0.10.0", "1", "1.0.1", "1048575.0.0"];
        for pair in sorted.windows(2) {
            assert!(order(pair[0]).unwrap() < order(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(order("v1.2.3+build5"), order("1.2.3"));
        for text in ["", "v", "1.", "1.2.3.4", "a.b", "1048576", "-1", "1..2", "99999999999999999999"] {
            assert_eq!(order(text), None, "{text}");
        }
    }
}
