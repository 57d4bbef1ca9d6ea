//! What names and texts of devices, fleets, tags and attributes may look like.

use crate::http::Problem;
use crate::limits;

/// Whether a text can be a name that stands in paths, topics and filters: of fleets, devices, hardware classes, models,
/// slots. `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && fits(text)
}

/// Whether a text can be the key of a tag or an attribute: `^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`
pub(crate) fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && fits(text)
}

/// Whether a text can be a tag's or an attribute's value: short, and without control characters.
pub(crate) fn is_value(text: &str) -> bool {
    text.chars().count() <= limits::VALUE_CHARS && !text.chars().any(char::is_control)
}

fn fits(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=limits::NAME_CHARS).contains(&text.len()) && text.bytes().all(allowed)
}

/// Checks a name from a request; `field` is what to blame.
///
/// # Errors
/// 422 when it is no name.
pub(crate) fn check_name(field: &str, text: &str) -> Result<(), Problem> {
    if is_name(text) {
        return Ok(());
    }
    let detail = format!(
        "a name has 1 to {} characters of A-Z a-z 0-9 . _ - and begins with a letter or a digit",
        limits::NAME_CHARS
    );
    Err(Problem::unprocessable(field, detail))
}

/// Checks the key of a tag or an attribute.
///
/// # Errors
/// 422 when it is no key.
pub(crate) fn check_key(field: &str, key: &str) -> Result<(), Problem> {
    if is_key(key) {
        return Ok(());
    }
    let detail = format!(
        "the key {:?} is not possible: 1 to {} characters of A-Z a-z 0-9 . _ -, not beginning with . or -",
        key.chars().take(80).collect::<String>(),
        limits::NAME_CHARS
    );
    Err(Problem::unprocessable(field, detail))
}

/// Checks a value of a tag or an attribute, or another short text on one line.
///
/// # Errors
/// 422 when it is too long or holds control characters.
pub(crate) fn check_value(field: &str, value: &str) -> Result<(), Problem> {
    if is_value(value) {
        return Ok(());
    }
    let detail =
        format!("at most {} characters are expected, without control characters", limits::VALUE_CHARS);
    Err(Problem::unprocessable(field, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_level_of_a_topic_and_of_a_path() {
        for good in ["a", "0", "cortex-m7", "EU.north_1", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "é", "a\0", "+", "#", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
            assert!(check_name("/name", bad).is_err());
        }
        assert!(is_key("_a") && !is_key("-a"));
        assert!(is_value("") && is_value("zwölf Affen") && !is_value("a\nb") && !is_value(&"x".repeat(257)));
    }
}
