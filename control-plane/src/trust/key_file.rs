//! Files with secret keys: Ed25519 in PKCS #8 (RFC 8410), PEM, as `openssl genpkey -algorithm ed25519` writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const LABEL: &str = "PRIVATE KEY";
/// What stands before the 32 bytes of the secret: a sequence of 46 bytes, version 0, the algorithm 1.3.101.112, and two
/// octet strings around the secret.
const HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why a file holds no secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is something else.
    #[error("no private key in PEM (PKCS #8) is in it")]
    Pem,
    /// It is encrypted, or of another kind.
    #[error("it is no unencrypted Ed25519 key; make one with: openssl genpkey -algorithm ed25519")]
    Kind,
}

/// The secret in a file.
///
/// # Errors
/// See [`KeyFileError`].
pub fn from_pem(pem: &str) -> Result<[u8; 32], KeyFileError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| KeyFileError::Pem)?;
    if block.label != LABEL {
        return Err(if block.label.ends_with(LABEL) { KeyFileError::Kind } else { KeyFileError::Pem });
    }
    // Version 1 (RFC 5958) differs in the length and the version, and has the public key behind the secret.
    let same = |(at, (found, expected)): (usize, (&u8, &u8))| matches!(at, 1 | 4) || found == expected;
    let (head, rest) = block.contents.split_first_chunk::<16>().ok_or(KeyFileError::Kind)?;
    let secret = rest.first_chunk::<32>().filter(|_| head.iter().zip(&HEAD).enumerate().all(same));
    secret.copied().ok_or(KeyFileError::Kind)
}

/// A file with this secret.
pub fn to_pem(secret: &[u8; 32]) -> String {
    let der = [HEAD.as_slice(), secret].concat();
    format!("-----BEGIN {LABEL}-----\n{}\n-----END {LABEL}-----\n", STANDARD.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519`; the secret and the public key as `openssl pkey -text` shows them.
    const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIDsnQmZfpysK1cUtdO2iU7Sz+ukrRgokzkDxkyb+q1z5\n-----END PRIVATE KEY-----\n";

    #[test]
    fn keys_are_read_as_openssl_writes_them() {
        let secret = from_pem(OPENSSL).expect("a key");
        assert_eq!(to_pem(&secret), OPENSSL);
        let public = dunlin_trust::SigningKey::from_secret(&secret).public();
        assert_eq!(hex::encode(public), "c97130aa3db91ef210df3e17cd26162a7fe247c5b7e3fd77e252df5437b25f2c");
        // What ring and others write has the public key in it too.
        let mut pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_pem();
        from_pem(&pair).expect("a key");
        pair.truncate(60);
        assert_eq!(from_pem(&pair), Err(KeyFileError::Pem));
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(from_pem(&other), Err(KeyFileError::Kind));
        assert_eq!(from_pem(&OPENSSL.replace("PRIVATE", "ENCRYPTED PRIVATE")), Err(KeyFileError::Kind));
        assert_eq!(from_pem(&OPENSSL.replace("PRIVATE", "PUBLIC")), Err(KeyFileError::Pem));
        assert_eq!(from_pem(""), Err(KeyFileError::Pem));
    }
}
