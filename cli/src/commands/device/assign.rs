//! `dunlin device assign` and `unassign`.

use serde_json::{Map, Value, json};

use super::watch::holding;
use crate::error::Failure;
use crate::output::{Outcome, printable};
use crate::server::Api;

/// What a slot should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    slot: String,
    model: String,
    version: Which,
}

/// Which version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Number(u32),
    Alias(String),
}

/// Reads `SLOT=7`, `SLOT=MODEL:7`, `SLOT=@champion`, `SLOT=MODEL:@champion`.
pub(super) fn parse(word: &str) -> Result<Assignment, String> {
    let wrong =
        || format!("{word:?} is no assignment; expected is for example kws=7, slot=kws:7 or kws=@champion");
    let (slot, target) = word.split_once('=').ok_or_else(wrong)?;
    let (model, version) = target.split_once(':').unwrap_or((slot, target));
    let version = match version.strip_prefix('@') {
        Some(alias) if !alias.is_empty() => Which::Alias(alias.to_owned()),
        Some(_) => return Err(wrong()),
        None => Which::Number(version.parse().ok().filter(|version| *version > 0).ok_or_else(wrong)?),
    };
    if slot.is_empty() || model.is_empty() {
        return Err(wrong());
    }
    Ok(Assignment { slot: slot.to_owned(), model: model.to_owned(), version })
}

/// Assigns one slot after the other; nobody else's change in between is lost.
pub(super) fn assign(
    api: &Api,
    id: &str,
    slots: &[Assignment],
    settings: &Map<String, Value>,
) -> Result<Outcome, Failure> {
    // Before anything is changed.
    let versions = slots.iter().map(|wanted| number(api, wanted)).collect::<Result<Vec<_>, _>>()?;
    let (mut device, mut etag) = api.get_tagged(&["devices", id])?;
    for (wanted, version) in slots.iter().zip(versions) {
        let there = slot(&device, &wanted.slot);
        let settings = merged(there.filter(|there| there["model"] == wanted.model.as_str()), settings);
        let body = json!({ "model": wanted.model, "version": version, "settings": settings });
        (device, etag) = api.put_tagged(&["devices", id, "slots", &wanted.slot], &body, etag.as_deref())?;
    }
    Ok(outcome(id, device))
}

/// Empties slots.
pub(super) fn unassign(api: &Api, id: &str, slots: &[String]) -> Result<Outcome, Failure> {
    let mut device = api.get(&["devices", id], &[])?;
    if let Some(missing) = slots.iter().find(|name| slot(&device, name).is_none()) {
        let failure =
            Failure::of_status(404, format!("nothing was assigned to the slot {missing:?} of {id}"));
        return Err(failure.way_out(format!("`dunlin device show {id}` lists its slots")));
    }
    for slot in slots {
        device = api.delete(&["devices", id, "slots", slot])?;
    }
    Ok(outcome(id, device))
}

/// The version that an assignment means now.
fn number(api: &Api, wanted: &Assignment) -> Result<u64, Failure> {
    match &wanted.version {
        Which::Number(version) => Ok((*version).into()),
        Which::Alias(alias) => {
            let found = api.get(&["models", &wanted.model, "aliases", alias], &[])?;
            found["version"]
                .as_u64()
                .ok_or_else(|| Failure::new(format!("the alias {alias} names no version")))
        }
    }
}

/// What a slot of a device should hold.
fn slot<'a>(device: &'a Value, name: &str) -> Option<&'a Value> {
    let slots = device.pointer("/desired/slots").and_then(Value::as_array);
    slots.into_iter().flatten().find(|slot| slot["slot"] == name)
}

/// The settings of what is there, changed.
fn merged(there: Option<&Value>, changes: &Map<String, Value>) -> Map<String, Value> {
    let mut settings = there.and_then(|there| there["settings"].as_object().cloned()).unwrap_or_default();
    for (key, value) in changes {
        match value {
            Value::Null => settings.remove(key),
            value => settings.insert(key.clone(), value.clone()),
        };
    }
    settings
}

fn outcome(id: &str, device: Value) -> Outcome {
    let slots = device.pointer("/desired/slots").and_then(Value::as_array);
    let slots: Vec<String> = slots
        .into_iter()
        .flatten()
        .map(|slot| format!("{}={}", slot["slot"].as_str().unwrap_or_default(), holding(slot)))
        .collect();
    let generation = &device["desired"]["generation"];
    let shown = format!("{}\n", printable(&format!("{id}, generation {generation}: {}", slots.join(" "))));
    Outcome::new(&device, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read() {
        let assignment = |slot: &str, model: &str, version| {
            Ok(Assignment { slot: slot.to_owned(), model: model.to_owned(), version })
        };
        let alias = |name: &str| Which::Alias(name.to_owned());
        assert_eq!(parse("kws=7"), assignment("kws", "kws", Which::Number(7)));
        assert_eq!(parse("a=kws:7"), assignment("a", "kws", Which::Number(7)));
        assert_eq!(parse("kws=@champion"), assignment("kws", "kws", alias("champion")));
        assert_eq!(parse("a=kws:@champion"), assignment("a", "kws", alias("champion")));
        for wrong in ["kws", "kws=", "kws=0", "kws=x", "=7", "a=:7", "a=kws:", "a=@", "a=kws:7:8", "a=-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_stay_unless_they_are_changed() {
        let there = json!({ "settings": { "a": "1", "b": "2" } });
        let changes = json!({ "b": null, "c": "3" });
        let settings = merged(Some(&there), changes.as_object().expect("an object"));
        assert_eq!(Value::Object(settings), json!({ "a": "1", "c": "3" }));
        assert!(merged(None, &Map::new()).is_empty());
    }
}
