//! The examples in PROTOCOL.md are the messages that this crate writes.

mod support;

use support::{from_hex, messages};

#[test]
fn examples_in_the_document_are_true() {
    let document = include_str!("../PROTOCOL.md");
    let mut examples = Vec::new();
    for block in document.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("```").unwrap();
        let digits: Vec<&str> = lines.lines().map(|line| line.split('|').next().unwrap()).collect();
        examples.push((name.to_owned(), from_hex(&digits.join("\n"))));
    }
    for (name, message) in messages() {
        let example = examples.iter().find(|(example, _)| example == name);
        assert_eq!(example.map(|(_, bytes)| bytes), Some(&message), "the example of {name}");
    }
    assert_eq!(examples.len(), messages().len());
}

#[test]
fn limits_in_the_document_are_true() {
    use dunlin_protocol::limits::{MAX_SEQUENCE, REPORT_BUDGET, VERSION, WINDOW};
    assert_eq!((VERSION, WINDOW, REPORT_BUDGET, MAX_SEQUENCE), (1, 64, 1_024, (1 << 63) - 65));
}
