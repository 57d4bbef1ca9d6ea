//! Small files that hold keys: read as a whole, written as a whole or not at all.

use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::Path;

/// The file's text; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file as a whole or not at all; its folder is made when it is not there. `mode` is for Unix.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("tmp");
    // What an earlier attempt left behind.
    let is_gone = |error: &Error| error.kind() == ErrorKind::NotFound;
    std::fs::remove_file(&temporary).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
