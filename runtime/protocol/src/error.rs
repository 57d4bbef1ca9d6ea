//! Why a message was refused.

use core::fmt;

/// The reason for which a message could not be read. It names the message and the field, for example
/// `state.slots`; a server keeps the text beside the message in its dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends within this field.
    Truncated {
        /// `message.field`.
        field: &'static str,
    },
    /// The message was written for protocol version `found`; this crate reads version
    /// [`crate::limits::VERSION`]. Update the reading side.
    Version {
        /// The version that the message states.
        found: u8,
    },
    /// The field's bytes are not what the protocol allows there.
    Invalid {
        /// `message.field`.
        field: &'static str,
    },
    /// The field exceeds a limit of [`crate::limits`].
    Limit {
        /// `message.field`.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { field } => write!(f, "the message ends within {field}"),
            Self::Version { found } => {
                write!(f, "protocol version {found} is not understood; this side speaks version 1")
            }
            Self::Invalid { field } => write!(f, "{field} is malformed"),
            Self::Limit { field } => write!(f, "{field} exceeds the protocol's limit"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The reason for which a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The buffer ends within this field. Give a larger buffer; [`crate::limits::MAX_UP_MESSAGE`] and
    /// [`crate::limits::MAX_DOWN_MESSAGE`] always suffice.
    Full {
        /// `message.field`.
        field: &'static str,
    },
    /// The field exceeds a limit of [`crate::limits`]. Shorten it.
    Limit {
        /// `message.field`.
        field: &'static str,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { field } => write!(f, "the buffer is too small: it ends within {field}"),
            Self::Limit { field } => write!(f, "{field} exceeds the protocol's limit"),
        }
    }
}

impl core::error::Error for EncodeError {}
