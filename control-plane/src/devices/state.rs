//! What devices report about themselves.

use dunlin_protocol::{SlotStatus, State};

use super::device::Slot;
use super::names::{is_key, is_name, is_value};
use super::store::devices::{Reported, write_reported};
use crate::app::App;
use crate::bus::DeviceId;
use crate::db::{DbError, Tx};

/// What a device's state means for its desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The device knows its desired state.
    UpToDate,
    /// It does not: the retained message was lost, or is on its way. Send [`super::desired`] again after the commit.
    Behind,
    /// There is no such device any more.
    Unknown,
}

/// Writes a device's actual state, in the transaction of the message that told it. A later state replaces an earlier
/// one as a whole; the caller passes states of one device in the order of their sequence numbers.
///
/// Texts that cannot be stored (control characters) are cleaned; attributes and slots with impossible names are left
/// out.
///
/// # Errors
/// When the database fails.
pub async fn apply_state(
    app: &App,
    tx: &mut Tx,
    device: &DeviceId,
    state: &State<'_>,
    now_us: i64,
) -> Result<Applied, DbError> {
    let mut reported = reported(state, now_us);
    for slot in reported.slots.values_mut() {
        let Some(digest) = &slot.digest else { continue };
        if let Some(known) = crate::models::find_by_digest(app, tx, digest).await? {
            slot.model = Some(known.model);
            slot.version = Some(known.version);
        }
    }
    let generation = write_reported(tx, device.as_str(), &reported, now_us).await?;
    Ok(match generation {
        None => Applied::Unknown,
        Some(generation) if generation > reported.generation => Applied::Behind,
        Some(_) => Applied::UpToDate,
    })
}

/// The state in words that can be stored.
fn reported(state: &State<'_>, now_us: i64) -> Reported {
    let mut reported = Reported {
        agent_version: clean(state.agent_version),
        hardware: clean(state.hardware),
        generation: i64::try_from(state.desired_generation).unwrap_or(i64::MAX),
        ..Reported::default()
    };
    for pair in state.attributes.iter() {
        if is_key(pair.key) && is_value(pair.value) {
            reported.attributes.insert(pair.key.to_owned(), pair.value.to_owned());
        }
    }
    for slot in state.slots.iter() {
        if !is_name(slot.slot) {
            continue;
        }
        let has_model = slot.status != SlotStatus::Empty && slot.model != [0; 32];
        reported.slots.insert(
            slot.slot.to_owned(),
            Slot {
                status: slot.status.as_str().to_owned(),
                digest: has_model.then(|| hex::encode(slot.model)),
                model: None,
                version: None,
                reason: clean(slot.reason),
                changed_us: now_us,
            },
        );
    }
    reported
}

/// A text without control characters: PostgreSQL cannot store U+0000, and people's screens deserve better than the
/// rest.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::{List, Pair, SlotState};

    #[test]
    fn impossible_names_and_characters_do_not_reach_the_database() {
        let attributes = [
            Pair { key: "serial", value: "A1" },
            Pair { key: "a b", value: "x" },
            Pair { key: "nul", value: "\0" },
        ];
        let slots = [
            SlotState { slot: "kws", model: [1; 32], status: SlotStatus::Failed, reason: "no\0arena" },
            SlotState { slot: "", model: [1; 32], status: SlotStatus::Running, reason: "" },
            SlotState { slot: "spare", model: [9; 32], status: SlotStatus::Empty, reason: "" },
            SlotState { slot: "new", model: [2; 32], status: SlotStatus::Other(9), reason: "" },
        ];
        let state = State {
            agent_version: "0.1.0\n",
            hardware: "pi",
            attributes: List::from(attributes.as_slice()),
            slots: List::from(slots.as_slice()),
            desired_generation: u64::MAX,
        };
        let reported = reported(&state, 7);
        assert_eq!(reported.agent_version, "0.1.0\u{fffd}");
        assert_eq!(
            reported.attributes.into_iter().collect::<Vec<_>>(),
            [("serial".to_owned(), "A1".to_owned())]
        );
        assert_eq!(reported.slots.keys().collect::<Vec<_>>(), ["kws", "new", "spare"]);
        assert_eq!(reported.slots["kws"].reason, "no\u{fffd}arena");
        assert_eq!(reported.slots["spare"].digest, None);
        assert_eq!(reported.slots["new"].status, "unknown");
        assert_eq!(reported.generation, i64::MAX);
    }
}
