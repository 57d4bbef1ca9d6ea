//! Things that happened on a device.

use crate::limits::{MAX_DETAIL, MAX_SLOT, MAX_UP_MESSAGE};
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// `up/event`: something happened that people or gates want to know one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When, in seconds since 1970 UTC by the device's clock; 0 when it has none.
    pub unix_s: u64,
    /// The model slot that it concerns, at most [`MAX_SLOT`] bytes; empty when it concerns the device.
    pub slot: &'a str,
    /// What happened.
    pub kind: EventKind,
    /// A number that goes with it; see [`EventKind`].
    pub value: i64,
    /// More for people, at most [`MAX_DETAIL`] bytes.
    pub detail: &'a str,
}

impl<'a> Event<'a> {
    /// Writes the body; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or a field exceeds its limit.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        writer.put("event.unix_s", &self.unix_s)?;
        writer.text("event.slot", self.slot, MAX_SLOT)?;
        writer.put("event.kind", &self.kind.number())?;
        writer.put("event.value", &self.value)?;
        writer.text("event.detail", self.detail, MAX_DETAIL)?;
        Ok(writer.len())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no event.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_UP_MESSAGE {
            return Err(DecodeError::Limit { field: "event" });
        }
        let mut reader = Reader::new(body);
        Ok(Self {
            unix_s: reader.take("event.unix_s")?,
            slot: reader.text("event.slot", MAX_SLOT)?,
            kind: EventKind::from_number(reader.take("event.kind")?),
            value: reader.take("event.value")?,
            detail: reader.text("event.detail", MAX_DETAIL)?,
        })
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An inference failed; `value` is how many since the last such event, `detail` the error of the last one.
    InferenceFailed,
    /// A model on trial was given up and the one before it runs again; `detail` says why.
    Reverted,
    /// A golden vector came out wrong on this device: the model was not started. `value` is its index.
    GoldenMismatch,
    /// The device started; `value` is 0, or the reset reason as the hardware gives it.
    Restarted,
    /// The wall clock was set; `value` is by how many seconds (forward positive).
    ClockJump,
    /// The queue was full and windows were merged, so that time resolution was lost and nothing else. `value` is
    /// how many merges since the last such event.
    QueueMerged,
    /// Messages that had a sequence number could not be read back from storage and are lost; `value` is how many.
    StorageLost,
    /// What the control plane assigned is not believed, and the device runs on as before; `detail` says why. `value` is
    /// the assignment's generation.
    AssignmentRefused,
    /// A kind that this version of the protocol does not know yet.
    Other(u16),
}

impl EventKind {
    /// The kind's number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::InferenceFailed => 1,
            Self::Reverted => 2,
            Self::GoldenMismatch => 3,
            Self::Restarted => 4,
            Self::ClockJump => 5,
            Self::QueueMerged => 6,
            Self::StorageLost => 7,
            Self::AssignmentRefused => 8,
            Self::Other(number) => number,
        }
    }

    /// The kind with this number; every number has one.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::InferenceFailed,
            2 => Self::Reverted,
            3 => Self::GoldenMismatch,
            4 => Self::Restarted,
            5 => Self::ClockJump,
            6 => Self::QueueMerged,
            7 => Self::StorageLost,
            8 => Self::AssignmentRefused,
            number => Self::Other(number),
        }
    }

    /// The name that people and filters use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InferenceFailed => "inference_failed",
            Self::Reverted => "reverted",
            Self::GoldenMismatch => "golden_mismatch",
            Self::Restarted => "restarted",
            Self::ClockJump => "clock_jump",
            Self::QueueMerged => "queue_merged",
            Self::StorageLost => "storage_lost",
            Self::AssignmentRefused => "assignment_refused",
            Self::Other(_) => "unknown",
        }
    }
}
