//! Which artifacts are valid.

use super::Signable;
use crate::limits::{MAX_HARDWARE, MAX_NAME, MAX_RELEASE};
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List};

/// What the owner of a model says about one version of it: these bytes are it, and these devices may run it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Release<'a> {
    /// The model's name, at most [`MAX_NAME`] bytes.
    pub model: &'a str,
    /// The version of the model.
    pub version: u32,
    /// SHA-256 that stands in the artifact's header.
    pub digest: [u8; 32],
    /// Length of the artifact in bytes.
    pub size: u32,
    /// When it was written, in seconds since 1970 UTC.
    pub issued_unix_s: u64,
    /// After which it must not be installed any more, in seconds since 1970 UTC; 0 never. A device that runs it
    /// goes on.
    pub expires_unix_s: u64,
    /// Versions of the model below this one must not be installed any more, whoever assigns them: raised when an
    /// older version turns out to be harmful.
    pub floor: u32,
    /// The hardware classes that it is for, at most [`MAX_HARDWARE`]; empty for all.
    pub hardware: List<'a, Name<'a>>,
}

impl<'a> Release<'a> {
    /// Writes the bytes to be signed; how many.
    ///
    /// # Errors
    /// When `out` is too small or a limit is exceeded.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "release.version")?;
        writer.text("release.model", self.model, MAX_NAME)?;
        writer.put("release.version", &self.version)?;
        writer.raw("release.digest", &self.digest)?;
        writer.put("release.size", &self.size)?;
        writer.put("release.issued_unix_s", &self.issued_unix_s)?;
        writer.put("release.expires_unix_s", &self.expires_unix_s)?;
        writer.put("release.floor", &self.floor)?;
        self.hardware.write(&mut writer, MAX_HARDWARE)?;
        Ok(writer.len())
    }
}

impl<'a> Signable<'a> for Release<'a> {
    const CONTEXT: &'static [u8] = b"dunlin release 1\n";
    const FIELD: &'static str = "release";
    const LIMIT: usize = MAX_RELEASE;

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            model: reader.text("release.model", MAX_NAME)?,
            version: reader.take("release.version")?,
            digest: reader.array("release.digest")?,
            size: reader.take("release.size")?,
            issued_unix_s: reader.take("release.issued_unix_s")?,
            expires_unix_s: reader.take("release.expires_unix_s")?,
            floor: reader.take("release.floor")?,
            hardware: List::read(reader, MAX_HARDWARE)?,
        })
    }
}

/// A hardware class, at most [`MAX_NAME`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(pub &'a str);

impl<'a> Item<'a> for Name<'a> {
    const FIELD: &'static str = "release.hardware";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.text("hardware", MAX_NAME).map(Self)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.text("hardware", self.0, MAX_NAME)
    }
}
