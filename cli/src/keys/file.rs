//! Files on their way to keys that stay offline, and back.

use std::path::Path;

use dunlin_protocol::limits::{MAX_RELEASE, MAX_ROOT};
use dunlin_trust::SigningKey;

use super::{SignedRelease, SignedRoot};
use crate::error::{Failure, read_file, write_file};

/// What such a file holds: what `--out` wrote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SignedFile {
    Root(SignedRoot),
    Release(SignedRelease),
}

impl SignedFile {
    /// Reads a file. Signatures are not checked.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = read_file(path, MAX_ROOT.max(MAX_RELEASE) as u64)?;
        // The bytes do not say which of both they are, but what is signed does: a signature on what is shown as a root
        // is none on a release.
        if let Ok(root) = SignedRoot::decode(&bytes)
            && root.content().check().is_ok()
        {
            return Ok(SignedFile::Root(root));
        }
        let release = SignedRelease::decode(&bytes).map(SignedFile::Release);
        release.map_err(|_| {
            Failure::new("is no root or release").file(path).way_out("name a file that --out wrote")
        })
    }

    /// Writes it back.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let bytes = match self {
            SignedFile::Root(root) => root.encode()?,
            SignedFile::Release(release) => release.encode()?,
        };
        write_file(path, &bytes)
    }

    /// Adds a signature, if it is not there yet.
    pub(crate) fn sign(&mut self, key: &SigningKey) {
        match self {
            SignedFile::Root(root) => {
                root.sign(key);
            }
            SignedFile::Release(release) => release.sign(std::slice::from_ref(key), 1),
        }
    }
}
