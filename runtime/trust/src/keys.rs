//! Keys, thresholds and what is signed.

use dunlin_protocol::limits::MAX_KEYS;
use dunlin_protocol::{List, PublicKey, Role, RoleKeys, Signable, Signature, Signed};
use heapless::Vec;
use sha2::{Digest as _, Sha256};

use crate::Refused;

/// Checks Ed25519 signatures (RFC 8032): software, or the device's own hardware.
pub trait Verifier {
    /// Whether `signature` was made over `message` with the secret of `key`. Keys and signatures that are not
    /// canonical are refused.
    fn verify(&self, key: &[u8; 32], message: &[u8; 32], signature: &[u8; 64]) -> bool;
}

/// What is signed of a message: SHA-256 over its context and its bytes. Small, so that a signer needs no more.
pub fn digest<'a, T: Signable<'a>>(bytes: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(T::CONTEXT).chain_update(bytes).finalize().into()
}

/// The keys of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) threshold: u8,
    /// All different.
    pub(crate) keys: Vec<[u8; 32], MAX_KEYS>,
}

impl Keys {
    /// The keys of `role` in a root.
    pub(crate) fn of<'a>(role: Role, roles: &List<'a, RoleKeys<'a>>) -> Result<Self, Refused> {
        let wrong = Refused::Roles { role };
        let mut of_role = roles.iter().filter(|entry| entry.role == role);
        let (Some(entry), None) = (of_role.next(), of_role.next()) else { return Err(wrong) };
        let mut keys = Self { threshold: entry.threshold, keys: Vec::new() };
        for PublicKey(key) in entry.keys.iter() {
            if !keys.keys.contains(&key) {
                keys.keys.push(key).map_err(|_| wrong)?;
            }
        }
        if keys.is_usable() { Ok(keys) } else { Err(wrong) }
    }

    /// Whether the threshold can be met and cannot be met by nobody.
    pub(crate) fn is_usable(&self) -> bool {
        self.threshold > 0 && usize::from(self.threshold) <= self.keys.len()
    }

    /// Whether no key is in both.
    pub(crate) fn is_disjoint(&self, other: &Self) -> bool {
        !self.keys.iter().any(|key| other.keys.contains(key))
    }

    /// Whether enough different keys have signed.
    pub(crate) fn check<'a, T: Signable<'a>>(
        &self,
        role: Role,
        signed: &Signed<'a, T>,
        verifier: &impl Verifier,
    ) -> Result<(), Refused> {
        let message = digest::<T>(signed.bytes);
        let mut valid: u8 = 0;
        // By key, so that a key counts once however often it has signed, with whatever signature.
        for key in &self.keys {
            let by_key = |signature: &Signature| signature.key == *key;
            let mut signatures = signed.signatures.iter().filter(by_key);
            if signatures.any(|signature| verifier.verify(key, &message, &signature.signature)) {
                valid = valid.saturating_add(1);
            }
            if valid >= self.threshold {
                return Ok(());
            }
        }
        Err(Refused::Signatures { role, valid, threshold: self.threshold })
    }
}
