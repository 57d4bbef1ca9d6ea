//! Messages that count because of who signed them.
//!
//! A signed message is the message's own bytes followed by a list of [`Signature`]s. What is signed is a digest of
//! exactly those bytes, with a [`Signable::CONTEXT`] before them, so that a signature on one kind of message is
//! worth nothing on another. Which keys count, and how many of them are needed, is not decided here: see
//! `dunlin-trust`.

mod release;
mod root;

pub use release::{Name, Release};
pub use root::{PublicKey, Role, RoleKeys, Root};

use crate::limits::MAX_SIGNATURES;
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List};

/// A signature and the key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// The Ed25519 signature (RFC 8032).
    pub signature: [u8; 64],
}

impl<'a> Item<'a> for Signature {
    const FIELD: &'static str = "signatures";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { key: reader.array("signature.key")?, signature: reader.array("signature.signature")? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.raw("signature.key", &self.key)?;
        writer.raw("signature.signature", &self.signature)
    }
}

/// A message that can be signed.
pub trait Signable<'a>: Sized {
    /// What goes before the message's bytes when they are hashed for a signature.
    const CONTEXT: &'static [u8];
    #[doc(hidden)]
    const FIELD: &'static str;
    #[doc(hidden)]
    const LIMIT: usize;
    #[doc(hidden)]
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

/// A signed message that was received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signed<'a, T> {
    /// The message. Nothing in it is true before the signatures are checked.
    pub message: T,
    /// The bytes that are signed.
    pub bytes: &'a [u8],
    /// The signatures, at most [`MAX_SIGNATURES`].
    pub signatures: List<'a, Signature>,
}

impl<'a, T: Signable<'a>> Signed<'a, T> {
    /// Reads a signed message. One that ends before its signatures has none.
    ///
    /// # Errors
    /// When the bytes are no such message of this version.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, T::LIMIT, T::FIELD)?;
        let decoded = T::read(&mut reader)?;
        let signed = message.len().saturating_sub(reader.rest().len());
        let bytes = message.get(..signed).ok_or(DecodeError::Truncated { field: T::FIELD })?;
        let signatures = match reader.is_empty() {
            true => List::default(),
            false => List::read(&mut reader, MAX_SIGNATURES)?,
        };
        Ok(Self { message: decoded, bytes, signatures })
    }
}

/// Writes a signed message: the bytes that were signed, then the signatures. The number of bytes written.
///
/// # Errors
/// When `out` is too small or there are more than [`MAX_SIGNATURES`].
pub fn write_signed(
    bytes: &[u8],
    signatures: List<'_, Signature>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let mut writer = Writer::new(out);
    writer.raw("signed", bytes)?;
    signatures.write(&mut writer, MAX_SIGNATURES)?;
    Ok(writer.len())
}
