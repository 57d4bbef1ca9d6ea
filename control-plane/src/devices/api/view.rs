//! Devices as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::device::{Device, Slot};
use super::super::settings::{OwnSettings, Settings};
use crate::time::Timestamp;

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceView {
    /// Its id: MQTT client id, user name and the certificate's common name.
    pub(super) id: String,
    /// The name of its fleet.
    pub(super) fleet: String,
    /// Its hardware class; fleet and hardware class make its cohort.
    pub(super) hardware: String,
    /// The hardware class that the device itself reports, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reported_hardware: Option<String>,
    /// The serial number of its hardware, if it told one at enrolment.
    #[schema(required)]
    pub(super) serial: Option<String>,
    /// The enrolment key it came with; null: an operator created it.
    #[schema(required)]
    pub(super) claim: Option<String>,
    /// When it was enrolled or created.
    pub(super) created: Timestamp,
    /// When the last message came, to 10 seconds.
    #[schema(required)]
    pub(super) last_seen: Option<Timestamp>,
    /// Whether it is connected (with an external broker: whether it was seen in the last 3 minutes).
    pub(super) connected: bool,
    /// That it is blocked, and why.
    #[schema(required)]
    pub(super) blocked: Option<BlockedView>,
    /// How it logs in.
    pub(super) credential: CredentialView,
    /// Tags that operators set.
    pub(super) tags: BTreeMap<String, String>,
    /// Attributes that the device reported, or that were set at enrolment or by operators.
    pub(super) attributes: BTreeMap<String, String>,
    /// The agent's version.
    #[schema(required)]
    pub(super) agent_version: Option<String>,
    /// When it reported its state.
    #[schema(required)]
    pub(super) state: Option<Timestamp>,
    /// What its model slots hold.
    pub(super) slots: Vec<SlotView>,
    /// What it should do.
    pub(super) desired: DesiredView,
}

/// A blocked device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BlockedView {
    /// Since when.
    pub(super) since: Timestamp,
    /// Why.
    pub(super) reason: String,
}

/// How a device logs in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CredentialView {
    /// Whether it has a password.
    pub(super) password: bool,
    /// When its newest certificate expires; null without one.
    #[schema(required)]
    pub(super) certificate_expires: Option<Timestamp>,
}

/// What a model slot holds, as the device reported it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SlotView {
    /// The slot's name.
    pub(super) slot: String,
    /// `empty`, `running`, `trial`, `failed`, or `unknown` for words of newer agents.
    pub(super) status: String,
    /// The artifact's digest in hex.
    #[schema(required)]
    pub(super) digest: Option<String>,
    /// The model's name, if the registry knows the digest.
    #[schema(required)]
    pub(super) model: Option<String>,
    /// The model's version.
    #[schema(required)]
    pub(super) version: Option<i64>,
    /// Why it failed; empty otherwise.
    pub(super) reason: String,
    /// Since when.
    pub(super) since: Timestamp,
}

/// What a device should do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DesiredView {
    /// Grows with every change.
    pub(super) generation: i64,
    /// The generation that the device has taken note of.
    #[schema(required)]
    pub(super) reported_generation: Option<i64>,
    /// When this generation came to be.
    pub(super) issued: Timestamp,
    /// What its slots should hold; a slot that is not listed is left as it is.
    pub(super) slots: Vec<DesiredSlotView>,
}

/// What a model slot should hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DesiredSlotView {
    /// The slot's name.
    pub(super) slot: String,
    /// The model's name; null: the slot should be empty.
    #[schema(required)]
    pub(super) model: Option<String>,
    /// The model's version.
    #[schema(required)]
    pub(super) version: Option<i64>,
    /// The artifact's digest in hex.
    #[schema(required)]
    pub(super) digest: Option<String>,
    /// The artifact's length in bytes.
    #[schema(required)]
    pub(super) size: Option<i64>,
    /// Settings of the model on this device.
    pub(super) settings: BTreeMap<String, String>,
}

/// A device's settings: its own, its fleet's, and what counts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingsView {
    /// The device's own; null: the fleet's.
    pub(super) own: OwnSettings,
    /// The fleet's.
    pub(super) fleet: Settings,
    /// What counts.
    pub(super) effective: Settings,
}

impl From<Device> for DeviceView {
    fn from(device: Device) -> Self {
        let desired_slots = device.desired.into_iter().map(|(slot, model)| {
            let is_empty = model.is_empty();
            DesiredSlotView {
                slot,
                model: (!is_empty).then_some(model.model),
                version: (!is_empty).then_some(model.version),
                digest: (!is_empty).then_some(model.digest),
                size: (!is_empty).then_some(model.size),
                settings: model.settings,
            }
        });
        DeviceView {
            reported_hardware: device.reported_hardware.filter(|reported| *reported != device.hardware),
            blocked: device.blocked_us.map(|us| BlockedView {
                since: Timestamp(us),
                reason: device.blocked_reason.unwrap_or_default(),
            }),
            credential: CredentialView {
                password: device.has_password,
                certificate_expires: device.certificate_expires_us.map(Timestamp),
            },
            desired: DesiredView {
                generation: device.generation,
                reported_generation: device.reported_generation,
                issued: Timestamp(device.generation_us),
                slots: desired_slots.collect(),
            },
            slots: device.slots.into_iter().map(slot_view).collect(),
            id: device.id,
            fleet: device.fleet,
            hardware: device.hardware,
            serial: device.serial,
            claim: device.claim,
            created: Timestamp(device.created_us),
            last_seen: device.last_seen_us.map(Timestamp),
            connected: device.connected,
            tags: device.tags,
            attributes: device.attributes,
            agent_version: device.agent_version,
            state: device.state_us.map(Timestamp),
        }
    }
}

fn slot_view((slot, state): (String, Slot)) -> SlotView {
    SlotView {
        slot,
        status: state.status,
        digest: state.digest,
        model: state.model,
        version: state.version,
        reason: state.reason,
        since: Timestamp(state.changed_us),
    }
}

/// What operators can change about a device, for the audit log.
pub(super) fn to_json(device: &Device) -> serde_json::Value {
    serde_json::json!({
        "fleet": device.fleet, "hardware": device.hardware, "serial": device.serial, "tags": device.tags,
        "attributes": device.attributes, "settings": device.settings,
        "blocked": device.blocked_us.map(|us| serde_json::json!({ "since": Timestamp(us), "reason": device.blocked_reason })),
    })
}

/// What a device's slots should hold, for the audit log.
pub(super) fn desired_json(device: &Device) -> serde_json::Value {
    let slots = device.desired.iter().map(|(slot, model)| {
        let holds = (!model.is_empty()).then(|| {
            serde_json::json!({ "model": model.model, "version": model.version, "settings": model.settings })
        });
        (slot.clone(), holds.unwrap_or_default())
    });
    serde_json::json!({ "generation": device.generation, "slots": slots.collect::<serde_json::Map<_, _>>() })
}
