//! The folder with the owner's secret keys, and the newest root that the owner has seen.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dunlin_control_plane::trust::{from_pem, to_pem};
use dunlin_protocol::Role;
use dunlin_protocol::limits::MAX_ROOT;
use dunlin_trust::SigningKey;

use super::SignedRoot;
use crate::error::{Failure, read_file};
use crate::private_file;
use crate::server::config_folder;

/// Bytes of a file with a key.
const MAX_KEY_FILE: u64 = 16 << 10;
const ROOT_FILE: &str = "newest.root";

/// A folder of keys. Every file `*.pem` in it is a secret key.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder that the argument or the variable DUNLIN_KEYS names, or the user's own.
    pub(crate) fn locate(argument: Option<&Path>) -> Result<Self, Failure> {
        let variable =
            || std::env::var_os("DUNLIN_KEYS").filter(|value| !value.is_empty()).map(PathBuf::from);
        match argument.map(Path::to_owned).or_else(variable) {
            Some(path) => Ok(Folder(path)),
            None => Ok(Folder(config_folder()?.join("keys"))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The keys in it; none when there is no such folder.
    pub(crate) fn keys(&self) -> Result<Vec<SigningKey>, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot be read: {error}")).file(&self.0);
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                files.push(path);
            }
        }
        files.sort();
        files.iter().map(|file| read_key(file)).collect()
    }

    /// Makes a key. Its file is on the disk before anybody hears of it, and never takes another one's place.
    pub(crate) fn create(&self, role: Role) -> Result<(SigningKey, PathBuf), Failure> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Failure::new(format!("no random bytes: {error}")))?;
        let key = SigningKey::from_secret(&secret);
        let name = hex::encode(key.public());
        let path = self.0.join(format!("{}-{}.pem", role.as_str(), name.get(..16).unwrap_or(&name)));
        private_file::create(&path, to_pem(&secret).as_bytes())?;
        Ok((key, path))
    }

    /// The newest root that was seen; `None` when there was none.
    pub(crate) fn root(&self) -> Result<Option<SignedRoot>, Failure> {
        let file = self.0.join(ROOT_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let bytes = read_file(&file, MAX_ROOT as u64)?;
        SignedRoot::decode(&bytes).map(Some).map_err(|failure| failure.file(&file))
    }

    /// Remembers the newest root.
    pub(crate) fn remember(&self, root: &SignedRoot) -> Result<(), Failure> {
        private_file::write(&self.0.join(ROOT_FILE), &root.encode()?)
    }
}

/// The secret key in a file.
pub(crate) fn read_key(file: &Path) -> Result<SigningKey, Failure> {
    let bytes = read_file(file, MAX_KEY_FILE)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new("is not text").file(file))?;
    let secret = from_pem(&text).map_err(|error| Failure::new(error.to_string()).file(file))?;
    Ok(SigningKey::from_secret(&secret))
}
