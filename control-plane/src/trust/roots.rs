//! Which roots are taken, and what the newest one says.

use dunlin_protocol::{DecodeError, Role, Root, Signed};
use dunlin_trust::{Dalek, Refused, Trust};

use crate::limits;

/// The newest root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentRoot {
    /// Its number.
    pub number: u32,
    /// The signed message.
    pub message: Vec<u8>,
}

/// Keys of a role, and how many of them must sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet {
    /// How many must sign.
    pub threshold: u8,
    /// The keys.
    pub keys: Vec<[u8; 32]>,
}

impl CurrentRoot {
    /// What the message says; it was checked before it was stored.
    ///
    /// # Errors
    /// When the database was changed by somebody else.
    pub(super) fn read(&self) -> Result<Root<'_>, DecodeError> {
        Signed::<Root<'_>>::decode(&self.message).map(|signed| signed.message)
    }

    /// The keys of a role.
    fn keys(&self, role: Role) -> KeySet {
        self.read().map_or_else(|_| KeySet::default(), |root| keys(&root, role))
    }

    /// The release keys.
    pub(crate) fn release_keys(&self) -> KeySet {
        self.keys(Role::Release)
    }

    /// Whether devices that have this root believe what this director signs.
    pub(super) fn names_director(&self, director: &[u8; 32]) -> bool {
        self.keys(Role::Director).keys.contains(director)
    }
}

fn keys(root: &Root<'_>, role: Role) -> KeySet {
    let Some(entry) = root.roles.iter().find(|entry| entry.role == role) else { return KeySet::default() };
    KeySet { threshold: entry.threshold, keys: entry.keys.iter().map(|key| key.0).collect() }
}

/// Why a root is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RootRefused {
    #[error("{0}")]
    Trust(#[from] Refused),
    #[error("it expired at {0} s since 1970: devices would install nothing")]
    Expired(u64),
    #[error("it was written at {0} s since 1970, which is yet to come: check the clock where it was written")]
    Future(u64),
    #[error(
        "its director role does not name this server's key (GET /api/v1/trust, `director`): devices would refuse \
         what this server assigns"
    )]
    Director,
    #[error("its director role demands {0} signatures; this server can give 1")]
    DirectorThreshold(u8),
}

/// Checks that a root may be the next one: as a device would, and that devices go on to believe this server.
pub(super) fn check(
    message: &[u8],
    current: Option<&CurrentRoot>,
    director: &[u8; 32],
    now_unix_s: u64,
) -> Result<u32, RootRefused> {
    let signed: Signed<'_, Root<'_>> = Signed::decode(message).map_err(Refused::from)?;
    let root = signed.message;
    match current {
        Some(current) => Trust::pin(&current.message, &Dalek)?.rotate(message, &Dalek)?,
        None if root.number != 1 => {
            return Err(Refused::RootNumber { expected: 1, found: root.number }.into());
        }
        None => Trust::pin(message, &Dalek).map(|_| ())?,
    }
    if root.expires_unix_s != 0 && root.expires_unix_s <= now_unix_s {
        return Err(RootRefused::Expired(root.expires_unix_s));
    }
    // A device takes the time of a root for the earliest that it can be.
    if root.issued_unix_s > now_unix_s.saturating_add(limits::OWNERS_CLOCK.as_secs()) {
        return Err(RootRefused::Future(root.issued_unix_s));
    }
    let directors = keys(&root, Role::Director);
    if !directors.keys.contains(director) {
        return Err(RootRefused::Director);
    }
    if directors.threshold != 1 {
        return Err(RootRefused::DirectorThreshold(directors.threshold));
    }
    Ok(root.number)
}
