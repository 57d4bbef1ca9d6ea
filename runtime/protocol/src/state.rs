//! What a device runs.

use crate::limits::{MAX_DETAIL, MAX_NAME, MAX_PAIRS, MAX_SLOT, MAX_SLOTS, MAX_UP_MESSAGE};
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List, Pair};

/// `up/state`: the device's actual state, as a whole. Sent after every connect and whenever something in it changes.
///
/// Messages may be reordered, and those of an earlier boot may come after those of a later one. So a server takes
/// the time of arrival minus [`crate::Envelope::age_s`] as the time of a state, and keeps the state it has when that
/// is later, or when the age of the new one is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State<'a> {
    /// Version of the agent or firmware, at most [`MAX_NAME`] bytes.
    pub agent_version: &'a str,
    /// Hardware class, for example `cortex-m7`, at most [`MAX_NAME`] bytes.
    pub hardware: &'a str,
    /// What else the device says about itself, at most [`MAX_PAIRS`].
    pub attributes: List<'a, Pair<'a>>,
    /// The model slots, at most [`MAX_SLOTS`].
    pub slots: List<'a, SlotState<'a>>,
    /// Generation of the last desired state that the device has taken note of; 0 when it has seen none.
    pub desired_generation: u64,
}

impl<'a> State<'a> {
    /// Writes the body; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or a field exceeds its limit.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        writer.text("state.agent_version", self.agent_version, MAX_NAME)?;
        writer.text("state.hardware", self.hardware, MAX_NAME)?;
        self.attributes.write(&mut writer, MAX_PAIRS)?;
        self.slots.write(&mut writer, MAX_SLOTS)?;
        writer.put("state.desired_generation", &self.desired_generation)?;
        Ok(writer.len())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no state.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_UP_MESSAGE {
            return Err(DecodeError::Limit { field: "state" });
        }
        let mut reader = Reader::new(body);
        Ok(Self {
            agent_version: reader.text("state.agent_version", MAX_NAME)?,
            hardware: reader.text("state.hardware", MAX_NAME)?,
            attributes: List::read(&mut reader, MAX_PAIRS)?,
            slots: List::read(&mut reader, MAX_SLOTS)?,
            desired_generation: reader.take("state.desired_generation")?,
        })
    }
}

/// What one model slot holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotState<'a> {
    /// The slot's name, at most [`MAX_SLOT`] bytes.
    pub slot: &'a str,
    /// SHA-256 that stands in the artifact's header; zeros when the slot is empty.
    pub model: [u8; 32],
    /// What the slot does.
    pub status: SlotStatus,
    /// For people: why it failed; in a slot that runs, why it runs this model and not the one that was assigned. Empty
    /// otherwise. At most [`MAX_DETAIL`] bytes.
    pub reason: &'a str,
}

impl<'a> Item<'a> for SlotState<'a> {
    const FIELD: &'static str = "state.slots";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            slot: reader.text("slot.slot", MAX_SLOT)?,
            model: reader.array("slot.model")?,
            status: SlotStatus::from_number(reader.take("slot.status")?),
            reason: reader.text("slot.reason", MAX_DETAIL)?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.text("slot.slot", self.slot, MAX_SLOT)?;
        writer.raw("slot.model", &self.model)?;
        writer.put("slot.status", &self.status.number())?;
        writer.text("slot.reason", self.reason, MAX_DETAIL)
    }
}

/// What a model slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotStatus {
    /// No model.
    Empty,
    /// The model runs.
    Running,
    /// The model runs on trial; the one before it is kept.
    Trial,
    /// The model cannot run.
    Failed,
    /// Another model is fetched and checked; the one that is named runs meanwhile, or none. A reason says what holds it up.
    Updating,
    /// A status that this version of the protocol does not know yet.
    Other(u8),
}

impl SlotStatus {
    /// The status' number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Running => 1,
            Self::Trial => 2,
            Self::Failed => 3,
            Self::Updating => 4,
            Self::Other(number) => number,
        }
    }

    /// The status with this number; every number has one.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Empty,
            1 => Self::Running,
            2 => Self::Trial,
            3 => Self::Failed,
            4 => Self::Updating,
            number => Self::Other(number),
        }
    }

    /// The name that people and filters use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Running => "running",
            Self::Trial => "trial",
            Self::Failed => "failed",
            Self::Updating => "updating",
            Self::Other(_) => "unknown",
        }
    }
}
