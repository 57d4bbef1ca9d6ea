//! Renewal of a device's certificate.

use crate::limits::{MAX_CERTIFICATE, MAX_DOWN_MESSAGE, MAX_UP_MESSAGE};
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// `up/csr`: asks for a new certificate. It has no envelope: a lost or doubled request does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateRequest<'a> {
    /// The PKCS #10 request in DER, at most [`MAX_CERTIFICATE`] bytes.
    pub der: &'a [u8],
}

impl<'a> CertificateRequest<'a> {
    /// Writes the message; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or the request too long.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "csr.version")?;
        writer.bytes("csr.der", self.der, MAX_CERTIFICATE)?;
        Ok(writer.len())
    }

    /// Reads the message. The DER itself is not looked at.
    ///
    /// # Errors
    /// When the bytes are no request of this version.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, MAX_UP_MESSAGE, "csr.version")?;
        Ok(Self { der: reader.bytes("csr.der", MAX_CERTIFICATE)? })
    }
}

/// `down/cert`: the answer to a [`CertificateRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The device's certificate in DER, at most [`MAX_CERTIFICATE`] bytes.
    pub device: &'a [u8],
    /// The authority's certificate in DER, at most [`MAX_CERTIFICATE`] bytes.
    pub authority: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Writes the message; the number of bytes written.
    ///
    /// # Errors
    /// When `out` is too small or a certificate too long.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "cert.version")?;
        writer.bytes("cert.device", self.device, MAX_CERTIFICATE)?;
        writer.bytes("cert.authority", self.authority, MAX_CERTIFICATE)?;
        Ok(writer.len())
    }

    /// Reads the message. The DER itself is not looked at.
    ///
    /// # Errors
    /// When the bytes are no certificate message of this version.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::message(message, MAX_DOWN_MESSAGE, "cert.version")?;
        Ok(Self {
            device: reader.bytes("cert.device", MAX_CERTIFICATE)?,
            authority: reader.bytes("cert.authority", MAX_CERTIFICATE)?,
        })
    }
}
