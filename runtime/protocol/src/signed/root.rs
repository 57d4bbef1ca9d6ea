//! Which keys count for what.

use super::Signable;
use crate::limits::{MAX_KEYS, MAX_ROLES, MAX_ROOT};
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List};

/// The list of keys that a device trusts, and what each may sign. Root 1 is given to a device when it is made or
/// enrolled; root N + 1 replaces root N when it is signed as both of them demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Root<'a> {
    /// 1, 2, 3 and so on, without a gap.
    pub number: u32,
    /// When it was written, in seconds since 1970 UTC.
    pub issued_unix_s: u64,
    /// When a newer one must have replaced it, in seconds since 1970 UTC; 0 never.
    pub expires_unix_s: u64,
    /// The roles, at most [`MAX_ROLES`]; each at most once.
    pub roles: List<'a, RoleKeys<'a>>,
}

impl<'a> Root<'a> {
    /// Writes the bytes to be signed; how many.
    ///
    /// # Errors
    /// When `out` is too small or a limit is exceeded.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::message(out, "root.version")?;
        writer.put("root.number", &self.number)?;
        writer.put("root.issued_unix_s", &self.issued_unix_s)?;
        writer.put("root.expires_unix_s", &self.expires_unix_s)?;
        self.roles.write(&mut writer, MAX_ROLES)?;
        Ok(writer.len())
    }
}

impl<'a> Signable<'a> for Root<'a> {
    const CONTEXT: &'static [u8] = b"dunlin root 1\n";
    const FIELD: &'static str = "root";
    const LIMIT: usize = MAX_ROOT;

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            number: reader.take("root.number")?,
            issued_unix_s: reader.take("root.issued_unix_s")?,
            expires_unix_s: reader.take("root.expires_unix_s")?,
            roles: List::read(reader, MAX_ROLES)?,
        })
    }
}

/// What keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Signs the next root.
    Root,
    /// Says which artifacts are valid ([`super::Release`]). Kept offline.
    Release,
    /// Says which device shall run what ([`crate::Desired`]). Kept by the control plane.
    Director,
    /// A role that this version of the protocol does not know yet.
    Other(u8),
}

impl Role {
    /// The role's number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Root => 1,
            Self::Release => 2,
            Self::Director => 3,
            Self::Other(number) => number,
        }
    }

    /// The role with this number; every number has one.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Root,
            2 => Self::Release,
            3 => Self::Director,
            number => Self::Other(number),
        }
    }

    /// The name that people use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Release => "release",
            Self::Director => "director",
            Self::Other(_) => "unknown",
        }
    }
}

/// The keys of a role.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoleKeys<'a> {
    /// The role.
    pub role: Role,
    /// How many different ones of the keys have to sign.
    pub threshold: u8,
    /// The keys, at most [`MAX_KEYS`].
    pub keys: List<'a, PublicKey>,
}

impl<'a> Item<'a> for RoleKeys<'a> {
    const FIELD: &'static str = "root.roles";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            role: Role::from_number(reader.take("role.role")?),
            threshold: reader.take("role.threshold")?,
            keys: List::read(reader, MAX_KEYS)?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.put("role.role", &self.role.number())?;
        writer.put("role.threshold", &self.threshold)?;
        self.keys.write(writer, MAX_KEYS)
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl<'a> Item<'a> for PublicKey {
    const FIELD: &'static str = "role.keys";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.array("key").map(Self)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.raw("key", &self.0)
    }
}
