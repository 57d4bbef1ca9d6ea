//! What would have been right.

use crate::limits::{MAX_LABELS, MAX_SLOT, MAX_UP_MESSAGE};
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List};

/// `up/label`: predictions whose right answer became known (a user's correction, a later measurement), counted by
/// what was predicted and what was right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label<'a> {
    /// The slot that predicted, at most [`MAX_SLOT`] bytes.
    pub slot: &'a str,
    /// SHA-256 that stands in the artifact's header.
    pub model: [u8; 32],
    /// The counts, at most [`MAX_LABELS`]. Entries that occur twice add up.
    pub entries: List<'a, LabelCount>,
}

impl<'a> Label<'a> {
    /// Writes the body; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or a field exceeds its limit.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        writer.text("label.slot", self.slot, MAX_SLOT)?;
        writer.raw("label.model", &self.model)?;
        self.entries.write(&mut writer, MAX_LABELS)?;
        Ok(writer.len())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no label message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_UP_MESSAGE {
            return Err(DecodeError::Limit { field: "label" });
        }
        let mut reader = Reader::new(body);
        Ok(Self {
            slot: reader.text("label.slot", MAX_SLOT)?,
            model: reader.array("label.model")?,
            entries: List::read(&mut reader, MAX_LABELS)?,
        })
    }
}

/// How often one answer was given where another, or the same, was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LabelCount {
    /// The class that the model predicted.
    pub predicted: u32,
    /// The class that was right.
    pub label: u32,
    /// Confidence of the prediction in tenths, 0 to 9 ([0.9, 1.0] is 9); [`Self::CONFIDENCE_UNKNOWN`] without one.
    pub confidence_bin: u8,
    /// How often; at most [`crate::limits::MAX_COUNT`].
    pub count: u64,
}

impl LabelCount {
    /// The confidence was not kept.
    pub const CONFIDENCE_UNKNOWN: u8 = 255;

    /// The bin of a confidence between 0 and 1; [`Self::CONFIDENCE_UNKNOWN`] for anything else.
    pub fn bin(confidence: f32) -> u8 {
        match confidence {
            0.0..1.0 => (confidence * 10.0) as u8,
            1.0 => 9,
            _ => Self::CONFIDENCE_UNKNOWN,
        }
    }
}

impl<'a> Item<'a> for LabelCount {
    const FIELD: &'static str = "label.entries";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let predicted = reader.take("label.predicted")?;
        let label = reader.take("label.label")?;
        let confidence_bin = reader.take("label.confidence_bin")?;
        if !matches!(confidence_bin, 0..=9 | Self::CONFIDENCE_UNKNOWN) {
            return Err(DecodeError::Invalid { field: "label.confidence_bin" });
        }
        Ok(Self { predicted, label, confidence_bin, count: reader.count("label.count")? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.put("label.predicted", &self.predicted)?;
        writer.put("label.label", &self.label)?;
        writer.put("label.confidence_bin", &self.confidence_bin)?;
        writer.count("label.count", self.count)
    }
}
