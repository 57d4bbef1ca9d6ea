//! Exactly once: which messages of one boot of one device have been applied.

use crate::limits::{MAX_DOWN_MESSAGE, MAX_SEQUENCE, WINDOW};
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// What a server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Seen for the first time: apply it, in the same transaction that stores the new window.
    Fresh,
    /// Applied before, or released by the device: acknowledge it, do not apply it.
    Duplicate,
    /// The sequence number contradicts the device's own window. Count it, keep it as a dead letter, acknowledge
    /// the delivery; the window is unchanged.
    Malformed,
}

/// The applied messages of one boot of one device: everything below `base`, and `base + 1 + i` for every set bit
/// `i` of `bitmap`. The message `base` itself is the lowest that is missing. 16 bytes, whatever is lost, doubled or
/// reordered on the way.
///
/// The server keeps one per (device, boot) and stores it in the same transaction as the effects of the messages. If
/// the transaction fails, the copy in memory must be dropped as well.
///
/// ```
/// use dunlin_protocol::{SequenceWindow, Verdict};
///
/// let mut window = SequenceWindow::default();
/// assert_eq!(window.apply(1, 0), Verdict::Fresh); // 0 is late
/// assert_eq!(window.apply(1, 0), Verdict::Duplicate);
/// assert_eq!((window.base(), window.bitmap()), (0, 0b1));
/// assert_eq!(window.apply(0, 0), Verdict::Fresh);
/// assert_eq!((window.base(), window.bitmap()), (2, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SequenceWindow {
    base: u64,
    /// Bit `i` is message `base + 1 + i`. As a device has at most 64 messages outstanding and `base` is one of
    /// them, bits 0 to 62 are used: the bitmap fits a signed 64-bit integer.
    bitmap: u64,
}

const USED_BITS: u64 = (1 << (WINDOW - 1)) - 1;

impl SequenceWindow {
    /// A window as it was stored: [`Self::base`] and [`Self::bitmap`]. Values that this type never gives away are
    /// brought into range, so that no stored bytes can make a later call panic.
    pub const fn from_parts(base: u64, bitmap: u64) -> Self {
        let base = if base > MAX_SEQUENCE { MAX_SEQUENCE } else { base };
        Self { base, bitmap: bitmap & USED_BITS }
    }

    /// The lowest message that has not been applied; at most `i64::MAX`.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Bit `i` stands for message `base + 1 + i`; at most `i64::MAX`.
    pub const fn bitmap(&self) -> u64 {
        self.bitmap
    }

    /// Whether a message counts as applied.
    pub const fn contains(&self, seq: u64) -> bool {
        is_set(self.base, self.bitmap, seq)
    }

    /// Takes note of a message with the `seq` and `oldest` of its [`crate::Envelope`].
    ///
    /// `oldest` beyond `base` moves the window: the device has released everything below, so it was told before
    /// that those messages are committed (or gave them up).
    pub fn apply(&mut self, seq: u64, oldest: u64) -> Verdict {
        if seq > MAX_SEQUENCE || seq < oldest || seq - oldest >= WINDOW {
            return Verdict::Malformed;
        }
        if oldest > self.base {
            self.advance_to(oldest);
        }
        // Now seq < oldest + 64 <= base + 64.
        match seq.checked_sub(self.base) {
            None => Verdict::Duplicate,
            Some(0) => {
                self.advance_to(seq + 1);
                Verdict::Fresh
            }
            Some(distance) => {
                let bit = 1_u64.checked_shl((distance - 1) as u32).unwrap_or(0);
                if self.bitmap & bit != 0 {
                    return Verdict::Duplicate;
                }
                self.bitmap |= bit;
                Verdict::Fresh
            }
        }
    }

    /// What the server tells the device after the commit.
    pub const fn ack(&self, boot: u64) -> Ack {
        Ack { boot, base: self.base, bitmap: self.bitmap }
    }

    /// Makes `base` at least `least`, and the lowest that is missing.
    fn advance_to(&mut self, least: u64) {
        // The bitmap with message `base` as bit 0.
        let shifted = u128::from(self.bitmap) << 1;
        let shifted =
            u32::try_from(least - self.base).ok().and_then(|by| shifted.checked_shr(by)).unwrap_or(0);
        let run = shifted.trailing_ones();
        self.base = least + u64::from(run);
        self.bitmap = (shifted >> run >> 1) as u64;
    }
}

/// `down/ack`: what the server has committed of one boot. Everything below `base` and `base + 1 + i` for every set
/// bit `i` of `bitmap`; the same numbers as in the [`SequenceWindow`] it was made from. Acks may come late, twice
/// or in any order: each is true for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The boot that the numbers belong to.
    pub boot: u64,
    /// Everything below is committed.
    pub base: u64,
    /// Bit `i` set: `base + 1 + i` is committed.
    pub bitmap: u64,
}

impl Ack {
    /// Most bytes that an ack of this version takes.
    pub const MAX_LEN: usize = 1 + 8 + 10 + 10;

    /// Whether the message is committed, so that the device may forget it.
    pub const fn covers(&self, seq: u64) -> bool {
        is_set(self.base, self.bitmap, seq)
    }

    /// Writes the message; the number of bytes written, at most [`Self::MAX_LEN`].
    ///
    /// # Errors
    /// [`EncodeError::Full`] when `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "ack.version")?;
        writer.raw("ack.boot", &self.boot.to_le_bytes())?;
        writer.put("ack.base", &self.base)?;
        writer.put("ack.bitmap", &self.bitmap)?;
        Ok(writer.len())
    }

    /// Reads the message.
    ///
    /// # Errors
    /// When the bytes are no ack of this version.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, MAX_DOWN_MESSAGE, "ack.version")?;
        Ok(Self {
            boot: u64::from_le_bytes(reader.array("ack.boot")?),
            base: reader.take("ack.base")?,
            bitmap: reader.take("ack.bitmap")?,
        })
    }
}

const fn is_set(base: u64, bitmap: u64, seq: u64) -> bool {
    if seq < base {
        return true;
    }
    match seq - base {
        distance @ 1..=64 => bitmap >> (distance - 1) & 1 == 1,
        _ => false,
    }
}
