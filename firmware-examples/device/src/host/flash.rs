//! NOR flash on the host: in memory, and in a file if it is to survive the process.

use std::boxed::Box;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::vec;
use std::vec::Vec;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::product::Bank;

/// Bytes that are erased at once.
const PAGE: usize = 4096;
/// Bytes that are programmed at once.
const WORD: usize = 4;
/// Bytes that reach the file in one step, as a page program of a flash chip.
const STEP: usize = 256;

/// What a flash driver says when it was not used as flash has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashFault {
    /// Outside of it, or not at a page or word.
    Place(NorFlashErrorKind),
    /// A bit that is 0 cannot become 1 without erasing its page.
    NotErased,
    /// The file.
    File(io::ErrorKind),
}

impl fmt::Display for FlashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(kind) => write!(f, "{kind:?}"),
            Self::NotErased => f.write_str("a bit was not erased"),
            Self::File(kind) => write!(f, "the file: {kind}"),
        }
    }
}

impl std::error::Error for FlashFault {}

impl NorFlashError for FlashFault {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Place(kind) => *kind,
            Self::NotErased | Self::File(_) => NorFlashErrorKind::Other,
        }
    }
}

/// A region of flash.
#[derive(Debug)]
pub struct Flash {
    /// The region is at `start`, an address that is a multiple of 16.
    memory: Box<[u8]>,
    start: usize,
    length: usize,
    file: Option<File>,
}

impl Flash {
    /// Erased flash of whole pages that is gone with the process.
    pub fn new(length: usize) -> Self {
        let length = length.next_multiple_of(PAGE);
        let memory = vec![0xff; length + 15].into_boxed_slice();
        let start = memory.as_ptr().align_offset(16).min(15);
        Flash { memory, start, length, file: None }
    }

    /// Flash in a file; a new one is erased.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, length: usize) -> io::Result<Self> {
        let mut flash = Flash::new(length);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut stored = Vec::new();
        file.read_to_end(&mut stored)?;
        // What a file lacks was never written.
        flash.region_mut().iter_mut().zip(stored).for_each(|(place, byte)| *place = byte);
        file.rewind()?;
        file.write_all(flash.bytes())?;
        flash.file = Some(file);
        Ok(flash)
    }

    fn region_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }

    /// Writes through, in small steps: the process may be killed between any two.
    fn store(&mut self, from: usize, to: usize) -> Result<(), FlashFault> {
        let region = &self.memory[self.start..self.start + self.length];
        let Some(file) = &mut self.file else { return Ok(()) };
        let fault = |error: io::Error| FlashFault::File(error.kind());
        file.seek(SeekFrom::Start(from as u64)).map_err(fault)?;
        region[from..to].chunks(STEP).try_for_each(|step| file.write_all(step)).map_err(fault)
    }

    fn place(&self, offset: u32, length: usize, unit: usize) -> Result<usize, FlashFault> {
        let from = offset as usize;
        if from.checked_add(length).is_none_or(|to| to > self.length) {
            return Err(FlashFault::Place(NorFlashErrorKind::OutOfBounds));
        }
        match from.is_multiple_of(unit) && length.is_multiple_of(unit) {
            true => Ok(from),
            false => Err(FlashFault::Place(NorFlashErrorKind::NotAligned)),
        }
    }
}

impl Bank for Flash {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl ErrorType for Flash {
    type Error = FlashFault;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFault> {
        let from = self.place(offset, bytes.len(), 1)?;
        bytes.copy_from_slice(&self.bytes()[from..from + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.length
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFault> {
        let from = self.place(from, to.saturating_sub(from) as usize, PAGE)?;
        self.region_mut()[from..to as usize].fill(0xff);
        self.store(from, to as usize)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFault> {
        let from = self.place(offset, bytes.len(), WORD)?;
        let place = &mut self.region_mut()[from..from + bytes.len()];
        if place.iter().zip(bytes).any(|(old, new)| old & new != *new) {
            return Err(FlashFault::NotErased);
        }
        place.copy_from_slice(bytes);
        self.store(from, from + bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_by_erasing_only_and_a_file_keeps_them() {
        let folder = std::env::temp_dir().join(std::format!("dunlin-flash-{}", std::process::id()));
        let mut flash = Flash::open(&folder, 2 * PAGE).unwrap();
        assert!(flash.bytes().as_ptr().addr().is_multiple_of(16));
        flash.write(4, &[0xf0; 8]).unwrap();
        assert_eq!(flash.write(8, &[0x0f; 4]), Err(FlashFault::NotErased));
        flash.write(8, &[0x30; 4]).unwrap();
        assert!(flash.write(6, &[0; 4]).is_err() && flash.write(2 * PAGE as u32, &[0; 4]).is_err());
        assert!(flash.erase(4, PAGE as u32).is_err());
        drop(flash);
        let mut flash = Flash::open(&folder, 2 * PAGE).unwrap();
        assert_eq!(flash.bytes()[2..10], [0xff, 0xff, 0xf0, 0xf0, 0xf0, 0xf0, 0x30, 0x30]);
        flash.erase(0, PAGE as u32).unwrap();
        drop(flash);
        assert!(Flash::open(&folder, 2 * PAGE).unwrap().bytes().iter().all(|byte| *byte == 0xff));
        std::fs::remove_file(folder).unwrap();
    }
}
