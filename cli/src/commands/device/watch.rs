//! `dunlin device watch`: what happens, as it happens.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::{self, Outcome, printable};
use crate::server::{Api, text};

/// Devices whose slots are remembered, so that changes can be told.
const REMEMBERED: usize = 10_000;

/// Prints events as they come: a line each, or a JSON object on a line.
pub(super) fn run(
    api: &Api,
    id: Option<&str>,
    mut count: Option<usize>,
    json: bool,
) -> Result<Outcome, Failure> {
    let mut live = api.live()?;
    // Only now, so that no change falls in between.
    let mut known = match id {
        Some(id) => match api.get(&["devices", id], &[]) {
            Ok(device) => vec![device],
            // It may come yet.
            Err(failure) if failure.is_not_found() => Vec::new(),
            Err(failure) => return Err(failure),
        },
        None => api.list(&["devices"], &[], Some(REMEMBERED))?,
    }
    .iter()
    .filter_map(|device| Some((device["id"].as_str()?.to_owned(), Slots::of(device))))
    .collect();
    while count != Some(0) {
        let mut event = live.next()?;
        let Some(device) = event["device"].as_str().map(str::to_owned) else { continue };
        if id.is_some_and(|id| id != device) {
            continue;
        }
        let changes = match event["change"].as_str() {
            Some("state") => changes(api, &mut known, &device)?,
            _ => Vec::new(),
        };
        let line = if json {
            if !changes.is_empty() {
                event["slots"] = changes.iter().map(Change::json).collect();
            }
            event.to_string()
        } else {
            let word = |name: &str| event.get(name).map(text);
            let words = [word("device"), word("change").or(word("kind")), word("slot"), word("detail")];
            let words = words.into_iter().flatten().chain(changes.iter().map(Change::text));
            printable(&words.collect::<Vec<_>>().join("  "))
        };
        if !output::print_on(&(line + "\n"))? {
            break;
        }
        count = count.map(|count| count - 1);
    }
    Ok(Outcome::printed())
}

/// What has changed in a device's slots since they were seen last; of a new device, everything.
fn changes(api: &Api, known: &mut BTreeMap<String, Slots>, device: &str) -> Result<Vec<Change>, Failure> {
    let now = match api.get(&["devices", device], &[]) {
        Ok(shown) => Slots::of(&shown),
        // It was deleted meanwhile, or the server is gone for now: the next change tells what this one would have.
        Err(failure) if failure.is_not_found() || failure.is_unavailable() => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    if known.len() >= REMEMBERED && !known.contains_key(device) {
        known.clear();
    }
    let before = known.insert(device.to_owned(), now.clone()).unwrap_or_default();
    Ok(now.since(&before))
}

/// A device's slots, as they should be and as the device says that they are.
#[derive(Clone, Debug, Default, PartialEq)]
struct Slots {
    assigned: BTreeMap<String, String>,
    actual: BTreeMap<String, Actual>,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
struct Actual {
    holds: String,
    status: String,
    reason: String,
}

/// A change of a slot.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    slot: String,
    /// `assigned`, `trial`, `committed`, `reverted`, or the status that the device tells.
    change: String,
    holds: String,
    reason: String,
}

impl Slots {
    fn of(device: &Value) -> Self {
        let list = |pointer| device.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let word = |slot: &Value, key: &str| slot[key].as_str().unwrap_or_default().to_owned();
        let assigned = list("/desired/slots").map(|slot| (word(slot, "slot"), holding(slot)));
        let actual = list("/slots").map(|slot| {
            let (status, reason) = (word(slot, "status"), word(slot, "reason"));
            (word(slot, "slot"), Actual { holds: holding(slot), status, reason })
        });
        Slots { assigned: assigned.collect(), actual: actual.collect() }
    }

    fn since(&self, before: &Slots) -> Vec<Change> {
        let assigned = self.assigned.iter().filter(|(slot, holds)| before.assigned.get(*slot) != Some(holds));
        let assigned = assigned.map(|(slot, holds)| Change {
            slot: slot.clone(),
            change: "assigned".to_owned(),
            holds: holds.clone(),
            reason: String::new(),
        });
        let actual = self.actual.iter().filter(|(slot, now)| before.actual.get(*slot) != Some(now));
        let actual = actual.map(|(slot, now)| {
            let then = before.actual.get(slot);
            let was_trial = then.is_some_and(|then| then.status == "trial");
            let is_same = then.is_some_and(|then| then.holds == now.holds);
            let change = match now.status.as_str() {
                "running" if was_trial && is_same => "committed",
                "running" if was_trial => "reverted",
                status => status,
            };
            Change {
                slot: slot.clone(),
                change: change.to_owned(),
                holds: now.holds.clone(),
                reason: now.reason.clone(),
            }
        });
        assigned.chain(actual).collect()
    }
}

impl Change {
    fn text(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("{} {} {}{reason}", self.slot, self.change, self.holds)
    }

    fn json(&self) -> Value {
        json!({ "slot": self.slot, "change": self.change, "holds": self.holds, "reason": self.reason })
    }
}

/// What a slot holds, or should: MODEL:VERSION, the beginning of a digest that the registry does not know, or nothing.
pub(super) fn holding(slot: &Value) -> String {
    match (slot["model"].as_str(), slot["version"].as_i64(), slot["digest"].as_str()) {
        (Some(model), Some(version), _) => format!("{model}:{version}"),
        (_, _, Some(digest)) if digest.bytes().any(|byte| byte != b'0') => {
            digest.get(..12).unwrap_or(digest).to_owned()
        }
        _ => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(assigned: Option<i64>, actual: Option<(i64, &str, &str)>) -> Slots {
        let model = |version: Option<i64>| version.map(|_| "kws");
        let version = actual.map(|(version, _, _)| version);
        let (_, status, reason) = actual.unwrap_or((0, "empty", ""));
        Slots::of(&json!({
            "desired": { "slots": [{ "slot": "a", "model": model(assigned), "version": assigned, "digest": null }] },
            "slots": [{
                "slot": "a", "model": model(version), "version": version, "digest": "0".repeat(64),
                "status": status, "reason": reason,
            }],
        }))
    }

    #[test]
    fn the_way_of_a_model_onto_a_device_is_told_step_by_step() {
        let steps = [
            (device(None, None), ""),
            (device(Some(1), None), "a assigned kws:1"),
            (device(Some(1), Some((1, "running", ""))), "a running kws:1"),
            (device(Some(2), Some((1, "running", ""))), "a assigned kws:2"),
            (device(Some(2), Some((2, "trial", ""))), "a trial kws:2"),
            (device(Some(2), Some((2, "running", ""))), "a committed kws:2"),
            (device(Some(3), Some((3, "trial", ""))), "a assigned kws:3, a trial kws:3"),
            (device(Some(3), Some((2, "running", "3 of 3 failed"))), "a reverted kws:2: 3 of 3 failed"),
            (device(Some(3), Some((2, "failed", "no memory"))), "a failed kws:2: no memory"),
            (device(None, Some((2, "failed", "no memory"))), "a assigned nothing"),
        ];
        for [(before, _), (now, told)] in steps.array_windows() {
            let changes: Vec<String> = now.since(before).iter().map(Change::text).collect();
            assert_eq!(changes.join(", "), *told);
        }
    }

    #[test]
    fn artifacts_without_a_name_are_shown_by_their_digest() {
        let slot = json!({ "model": null, "version": null, "digest": "0123456789abcdef" });
        assert_eq!(holding(&slot), "0123456789ab");
    }
}
