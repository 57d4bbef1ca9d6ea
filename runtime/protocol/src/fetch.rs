//! Artifacts and roots over MQTT, for devices that speak nothing else.

use crate::limits::{MAX_CHUNK, MAX_DOWN_MESSAGE, MAX_UP_MESSAGE};
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// What a device can fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The artifact with this SHA-256 in its header; only one that the device's desired state names.
    Artifact([u8; 32]),
    /// The signed [`crate::Root`] with this number.
    Root(u32),
}

impl Object {
    const ARTIFACT: u8 = 1;
    const ROOT: u8 = 2;

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.nested("object", |writer| match self {
            Self::Artifact(digest) => {
                writer.put("object.kind", &Self::ARTIFACT)?;
                writer.raw("object.digest", digest)
            }
            Self::Root(number) => {
                writer.put("object.kind", &Self::ROOT)?;
                writer.put("object.number", number)
            }
        })
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut part = reader.nested("object")?;
        match part.take("object.kind")? {
            Self::ARTIFACT => part.array("object.digest").map(Self::Artifact),
            Self::ROOT => part.take("object.number").map(Self::Root),
            _ => Err(DecodeError::Invalid { field: "object.kind" }),
        }
    }
}

/// `up/fetch`: asks for a piece of an object. It has no envelope: what is lost is asked for again. A device has at
/// most a few of these open at a time, and sets the pace by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Of what.
    pub object: Object,
    /// The first byte that is wanted.
    pub offset: u32,
    /// How many bytes at most; the answer has at most [`MAX_CHUNK`].
    pub len: u32,
}

impl Fetch {
    /// Writes the message; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "fetch.version")?;
        self.object.write(&mut writer)?;
        writer.put("fetch.offset", &self.offset)?;
        writer.put("fetch.len", &self.len)?;
        Ok(writer.len())
    }

    /// Reads the message.
    ///
    /// # Errors
    /// When the bytes are no request of this version.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, MAX_UP_MESSAGE, "fetch.version")?;
        Ok(Self {
            object: Object::read(&mut reader)?,
            offset: reader.take("fetch.offset")?,
            len: reader.take("fetch.len")?,
        })
    }
}

/// `down/chunk`: the answer to a [`Fetch`]. Never retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Of what.
    pub object: Object,
    /// Where the bytes belong.
    pub offset: u32,
    /// Length of the whole object; 0 when the device may not have it, or there is no such object.
    pub total: u32,
    /// Ask again after so many seconds; 0 when this is the answer.
    pub retry_after_s: u32,
    /// At most [`MAX_CHUNK`] bytes; none from the end of the object on.
    pub bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Writes the message; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or there are too many bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "chunk.version")?;
        self.object.write(&mut writer)?;
        writer.put("chunk.offset", &self.offset)?;
        writer.put("chunk.total", &self.total)?;
        writer.put("chunk.retry_after_s", &self.retry_after_s)?;
        writer.bytes("chunk.bytes", self.bytes, MAX_CHUNK)?;
        Ok(writer.len())
    }

    /// Reads the message.
    ///
    /// # Errors
    /// When the bytes are no chunk of this version.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, MAX_DOWN_MESSAGE, "chunk.version")?;
        Ok(Self {
            object: Object::read(&mut reader)?,
            offset: reader.take("chunk.offset")?,
            total: reader.take("chunk.total")?,
            retry_after_s: reader.take("chunk.retry_after_s")?,
            bytes: reader.bytes("chunk.bytes", MAX_CHUNK)?,
        })
    }
}
