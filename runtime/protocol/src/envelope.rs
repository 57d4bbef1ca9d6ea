//! What every message from a device begins with.

use crate::limits::{MAX_SEQUENCE, MAX_UP_MESSAGE, WINDOW};
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// The head of every message from a device (but [`crate::CertificateRequest`]); the body follows it.
///
/// A body never changes once it has a sequence number. The envelope is written anew at every sending, as `oldest`
/// and `age_s` change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Random number of the boot that gave the sequence number. A device draws a new one whenever it starts and
    /// whenever it loses its storage, so that (device, boot, seq) never repeats.
    pub boot: u64,
    /// The message's number in its boot, from 0, over all kinds of messages.
    pub seq: u64,
    /// The lowest number of this boot that is not acknowledged yet: `oldest <= seq < oldest + WINDOW`.
    pub oldest: u64,
    /// Seconds since the body was closed, by the device's monotonic clock; [`Self::AGE_UNKNOWN`] when the device
    /// was restarted since and has no clock that runs on.
    pub age_s: u32,
}

impl Envelope {
    /// The age of a message from an earlier boot on a device whose clock stops with it.
    pub const AGE_UNKNOWN: u32 = u32::MAX;

    /// Writes the envelope and then the body; the number of bytes written.
    ///
    /// # Errors
    /// [`EncodeError::Full`] when `out` is too small, [`EncodeError::Limit`] when `seq` lies outside the window that
    /// begins at `oldest` or the message would be longer than [`MAX_UP_MESSAGE`].
    pub fn encode(&self, body: &[u8], out: &mut [u8]) -> Result<usize, EncodeError> {
        let pending = self.seq.checked_sub(self.oldest).filter(|pending| *pending < WINDOW);
        let pending = pending.ok_or(EncodeError::Limit { field: "envelope.oldest" })?;
        if self.seq > MAX_SEQUENCE {
            return Err(EncodeError::Limit { field: "envelope.seq" });
        }
        let mut writer = Writer::message(out, "envelope.version")?;
        writer.nested("envelope", |writer| {
            writer.raw("envelope.boot", &self.boot.to_le_bytes())?;
            writer.put("envelope.seq", &self.seq)?;
            writer.put("envelope.pending", &pending)?;
            writer.put("envelope.age_s", &self.age_s)
        })?;
        writer.raw("body", body)?;
        if writer.len() > MAX_UP_MESSAGE {
            return Err(EncodeError::Limit { field: "body" });
        }
        Ok(writer.len())
    }

    /// Takes a message apart into its envelope and its body.
    ///
    /// # Errors
    /// A message whose envelope cannot be read has no place in any sequence: it can only be counted and kept as a
    /// dead letter.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::message(message, MAX_UP_MESSAGE, "envelope.version")?;
        let mut fields = reader.nested("envelope")?;
        let boot = u64::from_le_bytes(fields.array("envelope.boot")?);
        let seq: u64 = fields.take("envelope.seq")?;
        let pending: u64 = fields.take("envelope.pending")?;
        let age_s = fields.take("envelope.age_s")?;
        if seq > MAX_SEQUENCE {
            return Err(DecodeError::Limit { field: "envelope.seq" });
        }
        if pending >= WINDOW {
            return Err(DecodeError::Limit { field: "envelope.pending" });
        }
        let oldest = seq.checked_sub(pending).ok_or(DecodeError::Invalid { field: "envelope.pending" })?;
        Ok((Self { boot, seq, oldest, age_s }, reader.rest()))
    }
}
