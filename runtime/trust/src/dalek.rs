//! Signatures by `ed25519-dalek`.

use dunlin_protocol::{Signable, Signature};
use ed25519_dalek::Signer as _;

use crate::keys::{Verifier, digest};

/// Checks signatures with `ed25519-dalek`, strictly: keys of small order and signatures that are not canonical are
/// refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dalek;

impl Verifier for Dalek {
    fn verify(&self, key: &[u8; 32], message: &[u8; 32], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        ed25519_dalek::VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// A secret key.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key with this secret: 32 random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message's bytes, as its `encode` wrote them.
    pub fn sign<'a, T: Signable<'a>>(&self, bytes: &[u8]) -> Signature {
        let signature = self.0.sign(&digest::<T>(bytes)).to_bytes();
        Signature { key: self.public(), signature }
    }
}

impl core::fmt::Debug for SigningKey {
    /// Without the secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public()).finish_non_exhaustive()
    }
}
