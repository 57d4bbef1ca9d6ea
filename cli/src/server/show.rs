//! Answers of the API as people read them. With `--json` they are printed as they came.

use serde_json::Value;

use crate::output::{Outcome, printable, table};

/// A column of a table: its header, and the JSON pointer of its value.
pub(crate) type Column = (&'static str, &'static str);

/// A list as a table.
pub(crate) fn list(entries: Vec<Value>, columns: &[Column], nothing: &str) -> Outcome {
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let shown = if entries.is_empty() {
        format!("{nothing}\n")
    } else {
        let rows = entries.iter().map(|entry| {
            columns.iter().map(|(_, pointer)| text(entry.pointer(pointer).unwrap_or(&Value::Null))).collect()
        });
        table(&header, rows, columns.len())
    };
    Outcome::new(&Value::Array(entries), shown)
}

/// One thing, a line per value.
pub(crate) fn details(entry: Value, heading: &str, columns: &[Column]) -> Outcome {
    let width = columns.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut shown = printable(heading) + "\n";
    for (name, pointer) in columns {
        let value = entry.pointer(pointer).unwrap_or(&Value::Null);
        shown += &format!("  {name:width$}  {}\n", printable(&text(value)));
    }
    Outcome::new(&entry, shown)
}

/// A value in a cell: what is absent is a dash, what is nested is written flat.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => short_time(text).unwrap_or(text).to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

/// A point in time to the second, which is what fits a table.
fn short_time(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let fits = bytes.len() >= 20
        && bytes.iter().take(19).enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        });
    if fits { text.get(..19) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_fit_a_cell() {
        let cases = [
            (json!(null), "-"),
            (json!("2026-11-22T20:22:16.123456Z"), "2026-11-22T20:22:16"),
            (json!("cortex-m7"), "cortex-m7"),
            (json!({"region": "eu", "site": 3}), "region=eu site=3"),
            (json!([1, "b"]), "1, b"),
        ];
        for (value, shown) in cases {
            assert_eq!(text(&value), shown);
        }
    }
}
