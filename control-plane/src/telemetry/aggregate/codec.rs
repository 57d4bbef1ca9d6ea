//! Aggregates as bytes in the database: a version byte, then postcard.

use super::Aggregate;

/// The version of the encoding. A later one reads this one for ever: rows are kept for years.
const VERSION: u8 = 1;

/// Bytes that are no aggregate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A newer program wrote them.
    #[error(
        "statistics are stored in version {0}, this program reads version {VERSION}; start the newer program"
    )]
    Version(u8),
    /// They are damaged.
    #[error("stored statistics are damaged ({0}); restore the database from a backup")]
    Damaged(postcard::Error),
}

impl Aggregate {
    /// The bytes of this aggregate.
    pub fn encode(&self) -> Vec<u8> {
        // Writing into memory only fails for types that postcard cannot write, and there are none in here.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// The aggregate of these bytes.
    ///
    /// # Errors
    /// When they were written by a newer program, or are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(CodecError::Damaged),
            Some((&version, _)) => Err(CodecError::Version(version)),
            None => Err(CodecError::Damaged(postcard::Error::DeserializeUnexpectedEnd)),
        }
    }
}
