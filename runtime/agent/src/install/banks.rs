//! The two places of a slot, as files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::sealed;
use crate::files::create_private_dir;
use crate::update::{Bank, RECORD_BYTES, Record};

/// A slot's folder: `a.dunlin`, `b.dunlin` and `record`.
#[derive(Clone, Debug)]
pub(super) struct Banks {
    folder: PathBuf,
}

impl Banks {
    /// The banks of a slot in the state folder.
    pub(super) fn open(state_dir: &Path, slot: &str) -> io::Result<Self> {
        let folder = state_dir.join("slots").join(file_name(slot));
        create_private_dir(&folder)?;
        Ok(Banks { folder })
    }

    fn record_path(&self) -> PathBuf {
        self.folder.join("record")
    }

    /// The file of a bank.
    pub(super) fn path(&self, bank: Bank) -> PathBuf {
        self.folder.join(match bank {
            Bank::A => "a.dunlin",
            Bank::B => "b.dunlin",
        })
    }

    /// What the slot must not forget; the default before anything was stored. A damaged record is an error of the kind
    /// [`io::ErrorKind::InvalidData`].
    pub(super) fn record(&self) -> io::Result<Record> {
        let Some(bytes) = sealed::read(&self.record_path(), RECORD_BYTES)? else {
            return Ok(Record::default());
        };
        Record::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Stores it in one step.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        sealed::write(&self.record_path(), &record.encode())
    }

    /// The bytes of an artifact of `size` bytes in a bank.
    pub(super) fn read(&self, bank: Bank, size: u32) -> io::Result<Vec<u8>> {
        let path = self.path(bank);
        let length = fs::metadata(&path)?.len();
        if length != u64::from(size) {
            let error = format!("{} has {length} bytes instead of {size}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        fs::read(path)
    }

    /// Goes on writing a bank behind its first `stored` bytes.
    pub(super) fn append(&self, bank: Bank, stored: u32) -> io::Result<BankFile> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(self.path(bank))?;
        // Behind what is stored there may be more, which was written before the end came.
        file.set_len(u64::from(stored))?;
        file.seek(SeekFrom::End(0))?;
        Ok(BankFile { file, stored, written: stored })
    }
}

/// A bank that is being written.
#[derive(Debug)]
pub(super) struct BankFile {
    file: File,
    /// Bytes that are there for sure.
    stored: u32,
    written: u32,
}

impl BankFile {
    /// Bytes that were written; the next one that is needed.
    pub(super) fn written(&self) -> u32 {
        self.written
    }

    /// Appends bytes. When there is no room, what is not there for sure is given back: others need it, too.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Truncating takes no room; if it fails, the file is truncated when it is opened again.
            let _ = self.file.set_len(u64::from(self.stored));
            return Err(error);
        }
        self.written = self.written.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Makes sure that all that was written stays; how much that is.
    pub(super) fn sync(&mut self) -> io::Result<u32> {
        self.file.sync_data()?;
        self.stored = self.written;
        Ok(self.stored)
    }
}

/// A slot's name as that of a folder, also where upper and lower case are the same.
fn file_name(slot: &str) -> String {
    let mut name = String::new();
    for byte in slot.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            other => name += &format!("%{other:02x}"),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_one_folder() {
        assert_eq!(file_name("kws"), "kws");
        assert_eq!(file_name("KWS"), "%4b%57%53");
        assert_eq!(file_name("../a.b"), "%2e%2e%2fa%2eb");
        assert_eq!(file_name("%4b"), "%254b");
    }

    #[test]
    fn a_bank_goes_on_behind_what_is_stored() {
        let state = tempfile::tempdir().unwrap();
        let banks = Banks::open(state.path(), "kws").unwrap();
        assert_eq!(banks.record().unwrap(), Record::default());
        let mut file = banks.append(Bank::B, 0).unwrap();
        file.append(b"abcdef").unwrap();
        assert_eq!(file.sync().unwrap(), 6);
        file.append(b"never").unwrap();
        drop(file);
        let mut file = banks.append(Bank::B, 6).unwrap();
        file.append(b"ghi").unwrap();
        assert_eq!((file.written(), file.sync().unwrap()), (9, 9));
        assert_eq!(banks.read(Bank::B, 9).unwrap(), b"abcdefghi");
        assert!(banks.read(Bank::B, 8).unwrap_err().to_string().contains("9 bytes instead of 8"));
        assert!(banks.read(Bank::A, 1).is_err());
    }

    #[test]
    fn a_damaged_record_is_noticed() {
        let state = tempfile::tempdir().unwrap();
        let banks = Banks::open(state.path(), "kws").unwrap();
        banks.save(&Record::default()).unwrap();
        let mut bytes = fs::read(banks.record_path()).unwrap();
        bytes[3] ^= 1;
        fs::write(banks.record_path(), bytes).unwrap();
        assert_eq!(banks.record().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
