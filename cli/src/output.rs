//! What a command prints: text for people, or one JSON object.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::Failure;

/// The result of a command in both forms.
pub(crate) struct Outcome {
    json: String,
    text: String,
    failure: Option<Failure>,
}

impl Outcome {
    /// A result: `report` is what `--json` prints, `text` what people see.
    pub(crate) fn new(report: &impl Serialize, text: String) -> Self {
        let json = serde_json::to_string_pretty(report).unwrap_or_else(|_| "{}".into()) + "\n";
        Outcome { json, text, failure: None }
    }

    /// The same text for people, with another object for programs.
    pub(crate) fn with_json(self, report: &impl Serialize) -> Self {
        Outcome { json: Outcome::new(report, String::new()).json, ..self }
    }

    /// The same with more text for people at its end.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.text += more;
        self
    }

    /// The end of a command that printed its results as they came.
    pub(crate) fn printed() -> Self {
        Outcome { json: String::new(), text: String::new(), failure: None }
    }

    /// A result that is there and yet means failure, such as golden vectors that differ.
    pub(crate) fn failed(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }

    /// Prints the result and returns the failure in it.
    pub(crate) fn print(self, json: bool) -> Option<Failure> {
        let printed = print(if json { &self.json } else { &self.text });
        self.failure.or(printed.err())
    }
}

/// Writes to standard output. A reader that went away (`dunlin inspect … | head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// The same for commands that go on and on; whether somebody still reads.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("standard output: {error}"))),
    }
}

/// Replaces control characters, so that a name in a file cannot play tricks on the terminal, and makes one line.
pub(crate) fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 step`, `2 steps`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}

/// A table without borders, indented by two blanks; columns from `right` on are aligned to the right.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, right: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| format!("  {}\n", line.trim_end()));
    lines.collect()
}

/// A progress bar on standard error; invisible when that is not a terminal.
pub(crate) fn progress(len: usize, unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{eta}} left"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style)
}

/// A progress bar of steps with a word about the one under way; invisible like [`progress`].
pub(crate) fn steps(len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let cases =
            [(0u64, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb c");
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["conv".to_owned(), "7".to_owned()], vec!["copy".to_owned(), "123".to_owned()]];
        assert_eq!(table(&["kernel", "n"], rows, 1), "  kernel    n\n  conv      7\n  copy    123\n");
    }
}
