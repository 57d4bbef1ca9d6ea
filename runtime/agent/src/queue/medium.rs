//! Where a journal's bytes live: a file, or in tests a file that fails on command.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Random-access storage that can be made durable.
pub trait Medium: Send {
    /// Reads everything, at most `limit` bytes.
    fn read(&mut self, limit: u64) -> io::Result<Vec<u8>>;
    /// Writes at an offset, growing the storage where needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything written is on the medium.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file of one's own.
#[derive(Debug)]
pub struct FileMedium(File);

impl FileMedium {
    /// Opens or creates a file that only its owner may read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        options.open(path).map(FileMedium)
    }
}

impl Medium for FileMedium {
    fn read(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        self.0.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        (&self.0).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
