//! Whom the device believes, over restarts.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_trust::{Dalek, Refused, STATE_BYTES, Trust};

use super::sealed;

/// Name of the file in the state folder.
const FILE: &str = "trust.bin";

/// Why it is not known whom to believe.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is damaged. Nothing is installed rather than beginning anew with whatever root comes along.
    #[error("{}: is damaged; delete it to begin again with the root that the device was enrolled with", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The root that was built in, or given at the enrolment, makes no sense.
    #[error(
        "the root that this device was given cannot be used ({reason}); export it again, or enrol the device again"
    )]
    Root {
        /// What is wrong with it.
        reason: String,
    },
}

/// What the device believes, and where that is kept.
pub(super) struct Trustee {
    /// None before the device has a root.
    trust: Option<Trust>,
    path: Option<PathBuf>,
}

impl Trustee {
    /// Reads what is kept in the state folder. Where nothing is kept yet it begins with a root: the one that is built
    /// in, or the one (base64) that the device was enrolled with, if there is one.
    pub(super) fn open(
        folder: Option<&Path>,
        built_in: Option<&[u8]>,
        enrolled: Option<&str>,
    ) -> Result<Self, TrustError> {
        let path = folder.map(|folder| folder.join(FILE));
        if let Some(path) = &path {
            let file = |error: io::Error| match error.kind() {
                io::ErrorKind::InvalidData => TrustError::Damaged { path: path.clone() },
                _ => TrustError::File { path: path.clone(), error },
            };
            if let Some(bytes) = sealed::read(path, STATE_BYTES).map_err(file)? {
                let trust = Trust::decode(&bytes).map_err(|_| TrustError::Damaged { path: path.clone() })?;
                return Ok(Trustee { trust: Some(trust), path: Some(path.clone()) });
            }
        }
        let wrong = |reason: String| TrustError::Root { reason };
        let enrolled = enrolled.map(|root| STANDARD.decode(root)).transpose();
        let enrolled = enrolled.map_err(|error| wrong(error.to_string()))?;
        let root = built_in.or(enrolled.as_deref());
        let trust = root.map(|root| Trust::pin(root, &Dalek)).transpose();
        let trust = trust.map_err(|refused| wrong(refused.to_string()))?;
        // Stored with the first thing that is believed; until then it is pinned again.
        Ok(Trustee { trust, path })
    }

    /// What the device believes; none before it has a root.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The number of the root that would follow.
    pub(super) fn next_root(&self) -> Option<u32> {
        self.trust.as_ref().map(|trust| trust.root().saturating_add(1))
    }

    /// Takes the root that follows, or the first one; it counts once it is stored.
    pub(super) fn take_root(&mut self, root: &[u8]) -> Result<(), String> {
        let refused = |refused: Refused| refused.to_string();
        let trust = match &self.trust {
            Some(trust) => {
                let mut trust = trust.clone();
                trust.rotate(root, &Dalek).map_err(refused)?;
                trust
            }
            None => Trust::pin(root, &Dalek).map_err(refused)?,
        };
        self.replace(trust).map_err(|error| error.to_string())
    }

    /// Stores what is believed from now on. When that fails, nothing has changed.
    pub(super) fn replace(&mut self, trust: Trust) -> Result<(), TrustError> {
        if self.trust.as_ref() == Some(&trust) {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let file = |error| TrustError::File { path: path.clone(), error };
            sealed::write(path, &trust.encode()).map_err(file)?;
        }
        self.trust = Some(trust);
        Ok(())
    }
}
