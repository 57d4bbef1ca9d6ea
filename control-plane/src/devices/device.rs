//! A device, as the control plane knows it.

use std::collections::BTreeMap;

use super::filter::{Facts, SlotFacts};
use super::settings::OwnSettings;

/// A device with everything about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// The name of its fleet.
    pub fleet: String,
    /// Its hardware class; the fleet and this make its cohort.
    pub hardware: String,
    /// The serial number of its hardware, if it told one at enrolment.
    pub serial: Option<String>,
    /// The enrolment key it came with; `None`: an operator created it.
    pub claim: Option<String>,
    /// When it was enrolled or created.
    pub created_us: i64,
    /// When it was blocked.
    pub blocked_us: Option<i64>,
    /// Why.
    pub blocked_reason: Option<String>,
    /// Whether it has a password.
    pub has_password: bool,
    /// When its newest certificate expires.
    pub certificate_expires_us: Option<i64>,
    /// Its own settings.
    pub settings: OwnSettings,
    /// The generation of its desired state.
    pub generation: i64,
    /// When that came to be.
    pub generation_us: i64,
    /// The agent's version, as the device reported it.
    pub agent_version: Option<String>,
    /// The hardware class that the device reports.
    pub reported_hardware: Option<String>,
    /// The generation that the device has taken note of.
    pub reported_generation: Option<i64>,
    /// When it reported its state.
    pub state_us: Option<i64>,
    /// When the last message came, to [`crate::limits::SEEN_RESOLUTION`].
    pub last_seen_us: Option<i64>,
    /// Whether it is connected.
    pub connected: bool,
    /// Grows with every change by operators.
    pub revision: i64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// What the slots hold, by slot.
    pub slots: BTreeMap<String, Slot>,
    /// What the slots should hold, by slot.
    pub desired: BTreeMap<String, DesiredModel>,
}

/// What a slot holds, as the device reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// `empty`, `running`, `trial`, `failed` or `unknown`.
    pub status: String,
    /// The artifact's digest in hex.
    pub digest: Option<String>,
    /// The model's name, if the registry knows the digest.
    pub model: Option<String>,
    /// The model's version.
    pub version: Option<i64>,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// Since when.
    pub changed_us: i64,
}

/// What a slot should hold; nothing, if the model's name is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredModel {
    /// The model's name.
    pub model: String,
    /// The model's version.
    pub version: i64,
    /// The artifact's digest in hex.
    pub digest: String,
    /// The artifact's length in bytes.
    pub size: i64,
    /// Settings of the model on this device.
    pub settings: BTreeMap<String, String>,
}

impl DesiredModel {
    /// Nothing: the slot should be empty.
    pub fn nothing() -> Self {
        DesiredModel {
            model: String::new(),
            version: 0,
            digest: hex::encode([0; 32]),
            size: 0,
            settings: BTreeMap::new(),
        }
    }

    /// Whether the slot should be empty.
    pub fn is_empty(&self) -> bool {
        self.model.is_empty()
    }
}

impl Device {
    /// What filters can know of it.
    pub fn facts(&self) -> Facts {
        let slots = self.slots.iter().map(|(slot, state)| {
            let facts = SlotFacts {
                status: state.status.clone(),
                digest: state.digest.clone(),
                version: state.version,
            };
            (slot.clone(), facts)
        });
        let desired = self.desired.iter().filter(|(_, model)| !model.is_empty()).map(|(slot, model)| {
            let facts = SlotFacts {
                status: String::new(),
                digest: Some(model.digest.clone()),
                version: Some(model.version),
            };
            (slot.clone(), facts)
        });
        Facts {
            id: self.id.clone(),
            fleet: self.fleet.clone(),
            hardware: self.hardware.clone(),
            agent_version: self.agent_version.clone(),
            last_seen_us: self.last_seen_us,
            created_us: self.created_us,
            blocked: self.blocked_us.is_some(),
            connected: self.connected,
            tags: self.tags.clone(),
            attributes: self.attributes.clone(),
            slots: slots.collect(),
            desired: desired.collect(),
        }
    }
}
