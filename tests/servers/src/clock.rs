//! A clock of a process' own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The time of day of processes that are started with [`FakeClock::variables`], as far from the machine's as wanted. The
/// time that only goes on, with which waiting is measured, stays as it is.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// Where the library is that tells processes another time: where Debian puts it.
    pub fn library() -> Option<PathBuf> {
        let machines = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        machines.map(|machine| machine.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file())
    }

    /// A clock that shows the machine's time; `file` is where it is kept.
    ///
    /// # Errors
    /// When the library is not installed or the file cannot be written.
    pub fn new(file: &Path) -> Result<Self> {
        let library = Self::library().context("libfaketime is not installed (Debian package libfaketime)")?;
        let clock = FakeClock { library, file: file.to_owned() };
        clock.jump("+0")?;
        Ok(clock)
    }

    /// Goes on from another time: the machine's and `offset`, such as `+3d` or `-90`. Processes notice within a second.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn jump(&self, offset: &str) -> io::Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        // At once, since processes read it whenever they like.
        fs::rename(new, &self.file)
    }

    /// Environment variables of processes that have this clock.
    pub fn variables(&self) -> Vec<(String, String)> {
        let (library, file) = (self.library.display().to_string(), self.file.display().to_string());
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}
