//! Secrets that the control plane gives out: enrolment keys and device passwords.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Random bytes of a secret.
const RANDOM_BYTES: usize = 32;
/// What every enrolment key begins with.
pub(crate) const CLAIM_PREFIX: &str = "dunlin_key_";
/// What every device password begins with.
const PASSWORD_PREFIX: &str = "dunlin_pw_";

/// A secret as its owner has it: 256 random bits as text. It is shown once and never stored or logged.
pub(crate) struct Secret(String);

/// What is stored of a secret: its SHA-256. A plain hash is enough for 256 random bits: there is nothing to guess.
pub(crate) type Digest = [u8; 32];

impl Secret {
    /// A new enrolment key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn claim() -> Result<Self, getrandom::Error> {
        Secret::generate(CLAIM_PREFIX)
    }

    /// A new device password.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn password() -> Result<Self, getrandom::Error> {
        Secret::generate(PASSWORD_PREFIX)
    }

    fn generate(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The secret's text, to show it to its owner.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored.
    pub(crate) fn digest(&self) -> String {
        hex::encode(digest(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(********)")
    }
}

/// The digest of what somebody presents.
pub(crate) fn digest(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

/// Whether the presented secret has this digest; takes the same time either way.
pub(crate) fn fits(expected: &Digest, presented: &[u8]) -> bool {
    digest(presented).ct_eq(expected).into()
}

/// A stored digest.
pub(crate) fn from_hex(text: &str) -> Option<Digest> {
    hex::decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_fits_its_digest_only() {
        let secret = Secret::password().unwrap();
        let stored = from_hex(&secret.digest()).unwrap();
        assert!(fits(&stored, secret.reveal().as_bytes()));
        assert!(!fits(&stored, Secret::password().unwrap().reveal().as_bytes()));
        assert!(!fits(&stored, b""));
        assert_eq!(format!("{secret:?}"), "Secret(********)");
        assert!(from_hex("00").is_none());
    }
}
