//! Small values in files: replaced as a whole, with a sum over them.

use std::fs;
use std::io;
use std::path::Path;

use crate::files::replace_private;

/// Writes a value.
pub(super) fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    let mut bytes = value.to_vec();
    bytes.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    replace_private(path, &bytes)
}

/// Reads a value of at most `limit` bytes; `None` when there is none yet. One that is damaged is an error of the kind
/// [`io::ErrorKind::InvalidData`].
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
    let (value, sum) = bytes.split_last_chunk().ok_or_else(damaged)?;
    if value.len() > limit || crc32fast::hash(value) != u32::from_le_bytes(*sum) {
        return Err(damaged());
    }
    let length = value.len();
    bytes.truncate(length);
    Ok(Some(bytes))
}
