//! Why something is not believed.

use core::fmt;

use dunlin_protocol::{DecodeError, Role};

/// Why a root, a release or an assignment was refused. Nothing changes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The bytes are no such message.
    Malformed(DecodeError),
    /// Fewer keys of the role have signed than must.
    Signatures {
        /// Whose signatures are missing.
        role: Role,
        /// How many different keys of it have signed.
        valid: u8,
        /// How many must.
        threshold: u8,
    },
    /// A root that makes no sense: a role without keys, a threshold of 0 or above the number of different keys, a
    /// role that is listed twice or is missing.
    Roles {
        /// The role.
        role: Role,
    },
    /// A root that does not follow the one that the device has.
    RootNumber {
        /// The number that would follow.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// It was valid until then.
    Expired {
        /// What has expired: `"root"`, `"assignment"` or `"release"`.
        what: &'static str,
        /// Seconds since 1970 UTC.
        at_unix_s: u64,
    },
    /// The assignment is for another device.
    Device,
    /// The assignment is older than one that the device has seen.
    Older {
        /// The generation that the device knows.
        known: u64,
        /// The generation that came.
        found: u64,
    },
    /// The assignment needs a root that the device does not have yet.
    RootMissing {
        /// The number of the root that the device has.
        known: u32,
        /// The number that the assignment names.
        needed: u32,
    },
    /// Nobody with release keys has said anything about the version that was assigned.
    NoRelease,
    /// The release says something else than the assignment.
    Mismatch {
        /// In which field.
        field: &'static str,
    },
    /// The owner has withdrawn versions below a floor.
    Withdrawn {
        /// The lowest version that may still be installed.
        floor: u32,
        /// The version that was assigned.
        version: u32,
    },
    /// The release is not for this hardware class.
    Hardware,
    /// There is no room to remember another model's floor.
    Full,
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Signatures { role, valid, threshold } => {
                write!(f, "signed by {valid} {} keys, needs {threshold}", role.as_str())
            }
            Self::Roles { role } => write!(f, "the root's {} role cannot be used", role.as_str()),
            Self::RootNumber { expected, found } => {
                write!(f, "root {found} does not follow: {expected} is next")
            }
            Self::Expired { what, at_unix_s } => write!(f, "the {what} expired at {at_unix_s} s since 1970"),
            Self::Device => f.write_str("the assignment is for another device"),
            Self::Older { known, found } => write!(f, "assignment {found} is older than {known}"),
            Self::RootMissing { known, needed } => {
                write!(f, "root {needed} is needed, root {known} is known")
            }
            Self::NoRelease => f.write_str("the version has no signed release"),
            Self::Mismatch { field } => write!(f, "release and assignment differ in {field}"),
            Self::Withdrawn { floor, version } => {
                write!(f, "version {version} was withdrawn: {floor} is the lowest")
            }
            Self::Hardware => f.write_str("the release is not for this hardware"),
            Self::Full => f.write_str("too many models were seen"),
        }
    }
}

impl core::error::Error for Refused {}
