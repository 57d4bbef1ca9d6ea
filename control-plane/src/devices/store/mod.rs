//! Devices, fleets and enrolment keys in the database.

pub(super) mod certificates;
pub(super) mod claims;
pub(super) mod devices;
pub(super) mod fleets;
pub(super) mod pairs;

/// Values of one statement's `in (…)`; longer lists are split.
const CHUNK: usize = 500;

/// `$1, $2, …`: `count` placeholders after the first `bound`.
fn placeholders(bound: usize, count: usize) -> String {
    let numbers: Vec<String> = (bound + 1..=bound + count).map(|number| format!("${number}")).collect();
    numbers.join(", ")
}
