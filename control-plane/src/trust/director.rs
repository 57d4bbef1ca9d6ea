//! The director's key.

use std::path::{Path, PathBuf};

use dunlin_protocol::{Desired, List, write_signed};
use dunlin_trust::SigningKey;
use ring::hmac;

use super::key_file::{self, KeyFileError};
use crate::db::DbError;
use crate::files;

/// Bytes that one signature adds to a message, at most: the list's length, the item's length, key, signature.
pub(crate) const SIGNATURE_BYTES: usize = 2 + 2 + 32 + 64;

/// The key with which the server signs what devices shall run.
pub struct Director {
    key: SigningKey,
    /// For tickets; derived, so that every process with the key accepts the others' tickets.
    tickets: hmac::Key,
}

/// Why there is no director.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    /// The file cannot be read or written.
    #[error("director's key: {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("director's key: {path}: {source}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyFileError,
    },
    /// The operating system gives no random bytes.
    #[error("director's key: {0}")]
    Random(#[from] getrandom::Error),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Director {
    /// Reads the key from its file, or makes it when it is not there and `create`.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, DirectorError> {
        let failed = |source| DirectorError::File { path: path.into(), source };
        let secret = match files::read(path).map_err(failed)? {
            Some(pem) => key_file::from_pem(&pem)
                .map_err(|source| DirectorError::Content { path: path.into(), source })?,
            None if create => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret)?;
                files::write(path, key_file::to_pem(&secret).as_bytes(), 0o600).map_err(failed)?;
                secret
            }
            None => return Err(failed(std::io::ErrorKind::NotFound.into())),
        };
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), b"dunlin artifact tickets 1");
        let tickets = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Ok(Director { key: SigningKey::from_secret(&secret), tickets })
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.key.public()
    }

    /// The ticket with which a device fetches an artifact until then, in seconds since 1970 (0: for ever): in hex.
    pub(crate) fn ticket(&self, digest: &str, device: &str, until_unix_s: u64) -> String {
        hex::encode(hmac::sign(&self.tickets, permission(digest, device, until_unix_s).as_bytes()))
    }

    /// Whether a ticket is one of [`Director::ticket`]; takes the same time for every wrong one.
    pub(crate) fn is_ticket(&self, ticket: &str, digest: &str, device: &str, until_unix_s: u64) -> bool {
        let permission = permission(digest, device, until_unix_s);
        hex::decode(ticket)
            .is_ok_and(|ticket| hmac::verify(&self.tickets, permission.as_bytes(), &ticket).is_ok())
    }

    /// Signs a desired state's bytes: the message with its signature.
    pub(crate) fn sign(&self, desired: &[u8]) -> Vec<u8> {
        let signatures = [self.key.sign::<Desired<'_>>(desired)];
        let mut message = vec![0; desired.len() + SIGNATURE_BYTES];
        // There is room for one signature.
        let length = write_signed(desired, List::from(&signatures), &mut message).unwrap_or(0);
        message.truncate(length);
        message
    }
}

/// What a ticket allows. Line feeds stand in none of the parts.
fn permission(digest: &str, device: &str, until_unix_s: u64) -> String {
    format!("{digest}\n{device}\n{until_unix_s}")
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Director(key masked)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("director.key");
        assert!(matches!(Director::open(&path, false), Err(DirectorError::File { .. })));
        let first = Director::open(&path, true).expect("a key");
        assert_eq!(Director::open(&path, false).expect("the same").public(), first.public());
        assert_eq!(format!("{first:?}"), "Director(key masked)");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().expect("a file"));
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(&path, "no key").expect("written");
        let error = Director::open(&path, true).expect_err("damaged");
        assert!(error.to_string().contains("director.key: no private key in PEM"), "{error}");
    }
}
