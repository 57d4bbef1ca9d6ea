//! What a device should run.

use crate::limits::{
    MAX_DEVICE_ID, MAX_DOWN_MESSAGE, MAX_NAME, MAX_PAIRS, MAX_RELEASE, MAX_SLOT, MAX_SLOTS, MAX_URL,
};
use crate::list::Item;
use crate::signed::Signable;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List, Pair};

/// `down/desired`: what the device should run, retained by the broker. A device takes the highest generation that
/// it has seen and reports that generation in its [`crate::State`].
///
/// It is a [`crate::Signed`] message: a device that has a [`crate::Root`] changes what it runs only as told by a
/// director's signature. [`Desired::decode`] reads it without its signatures, for everything else in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Desired<'a> {
    /// Grows with every change; a device ignores a generation lower than the one it knows.
    pub generation: u64,
    /// When it was written, in seconds since 1970 UTC.
    pub issued_unix_s: u64,
    /// When it ceases to be valid, in seconds since 1970 UTC; 0 never. A device that knows the time ignores an
    /// expired one.
    pub expires_unix_s: u64,
    /// How often the device sends what it has, in seconds; 0 leaves it to the device.
    pub report_period_s: u32,
    /// When a window closes, in seconds; 0 leaves it to the device.
    pub window_period_s: u32,
    /// After how many inferences a window closes; 0 leaves it to the device.
    pub window_count: u32,
    /// The model slots, at most [`MAX_SLOTS`]. A slot that is not listed is left as it is.
    pub slots: List<'a, DesiredSlot<'a>>,
    /// The device that it is for; empty when the writer does not know of signatures.
    pub device: &'a str,
    /// The newest root there is: a device that has an older one asks for those that follow it. 0 when there is none.
    pub root: u32,
}

impl<'a> Desired<'a> {
    /// Writes the message; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small, a field exceeds its limit, or the whole exceeds [`MAX_DOWN_MESSAGE`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "desired.version")?;
        writer.put("desired.generation", &self.generation)?;
        writer.put("desired.issued_unix_s", &self.issued_unix_s)?;
        writer.put("desired.expires_unix_s", &self.expires_unix_s)?;
        writer.put("desired.report_period_s", &self.report_period_s)?;
        writer.put("desired.window_period_s", &self.window_period_s)?;
        writer.put("desired.window_count", &self.window_count)?;
        self.slots.write(&mut writer, MAX_SLOTS)?;
        writer.nested("desired.authority", |writer| {
            writer.text("desired.device", self.device, MAX_DEVICE_ID)?;
            writer.put("desired.root", &self.root)
        })?;
        if writer.len() > MAX_DOWN_MESSAGE {
            return Err(EncodeError::Limit { field: "desired" });
        }
        Ok(writer.len())
    }

    /// Reads the message.
    ///
    /// # Errors
    /// When the bytes are no desired state of this version.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::message(message, MAX_DOWN_MESSAGE, "desired.version")?)
    }
}

impl<'a> Signable<'a> for Desired<'a> {
    const CONTEXT: &'static [u8] = b"dunlin desired 1\n";
    const FIELD: &'static str = "desired";
    const LIMIT: usize = MAX_DOWN_MESSAGE;

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut desired = Self {
            generation: reader.take("desired.generation")?,
            issued_unix_s: reader.take("desired.issued_unix_s")?,
            expires_unix_s: reader.take("desired.expires_unix_s")?,
            report_period_s: reader.take("desired.report_period_s")?,
            window_period_s: reader.take("desired.window_period_s")?,
            window_count: reader.take("desired.window_count")?,
            slots: List::read(reader, MAX_SLOTS)?,
            device: "",
            root: 0,
        };
        if !reader.is_empty() {
            let mut authority = reader.nested("desired.authority")?;
            desired.device = authority.text("desired.device", MAX_DEVICE_ID)?;
            desired.root = authority.take("desired.root")?;
        }
        Ok(desired)
    }
}

/// What one model slot should hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DesiredSlot<'a> {
    /// The slot's name, at most [`MAX_SLOT`] bytes.
    pub slot: &'a str,
    /// The model version, for people; the digest decides.
    pub version: u32,
    /// SHA-256 that stands in the artifact's header; zeros to empty the slot.
    pub model: [u8; 32],
    /// Length of the artifact in bytes.
    pub size: u32,
    /// Where to fetch it, at most [`MAX_URL`] bytes.
    pub url: &'a str,
    /// Settings of the model, at most [`MAX_PAIRS`].
    pub settings: List<'a, Pair<'a>>,
    /// The model's name, at most [`MAX_NAME`] bytes; empty when the writer does not know of releases.
    pub name: &'a str,
    /// The signed [`crate::Release`] of the version, at most [`MAX_RELEASE`] bytes; empty when there is none.
    pub release: &'a [u8],
}

impl<'a> Item<'a> for DesiredSlot<'a> {
    const FIELD: &'static str = "desired.slots";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            slot: reader.text("desired.slot", MAX_SLOT)?,
            version: reader.take("desired.version")?,
            model: reader.array("desired.model")?,
            size: reader.take("desired.size")?,
            url: reader.text("desired.url", MAX_URL)?,
            settings: List::read(reader, MAX_PAIRS)?,
            name: if reader.is_empty() { "" } else { reader.text("desired.name", MAX_NAME)? },
            release: if reader.is_empty() { &[] } else { reader.bytes("desired.release", MAX_RELEASE)? },
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.text("desired.slot", self.slot, MAX_SLOT)?;
        writer.put("desired.version", &self.version)?;
        writer.raw("desired.model", &self.model)?;
        writer.put("desired.size", &self.size)?;
        writer.text("desired.url", self.url, MAX_URL)?;
        self.settings.write(writer, MAX_PAIRS)?;
        writer.text("desired.name", self.name, MAX_NAME)?;
        writer.bytes("desired.release", self.release, MAX_RELEASE)
    }
}
