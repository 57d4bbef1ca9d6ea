//! A disk that fails on command.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::medium::Medium;

/// A file in memory whose writes can be made to fail, and whose unsynced writes a crash may lose.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
pub(super) struct DiskState {
    pub(super) bytes: Vec<u8>,
    /// What is on the disk for sure.
    synced: Vec<u8>,
    /// Bytes that can still be written before the disk is full.
    pub(super) space: Option<usize>,
    /// Sync fails.
    pub(super) failing: bool,
}

impl Disk {
    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    /// Another disk with the same bytes.
    pub(super) fn copy(&self) -> Disk {
        let copy = Disk::default();
        copy.state().bytes = self.state().bytes.clone();
        copy.state().synced = self.state().synced.clone();
        copy
    }

    /// Loses power: of what was not synced only `kept` bytes are there, in the order of their places.
    pub(super) fn crash(&self, kept: usize) {
        let mut state = self.state();
        let mut synced = std::mem::take(&mut state.synced);
        synced.resize(state.bytes.len(), 0);
        let mut kept = kept;
        for (old, new) in synced.iter_mut().zip(&state.bytes) {
            if old != new {
                if kept == 0 {
                    break;
                }
                kept -= 1;
                *old = *new;
            }
        }
        state.bytes = synced.clone();
        state.synced = synced;
    }
}

impl Medium for Disk {
    fn read(&mut self, _limit: u64) -> io::Result<Vec<u8>> {
        Ok(self.state().bytes.clone())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (offset, mut bytes) = (offset as usize, bytes);
        let mut full = false;
        if let Some(space) = state.space {
            full = bytes.len() > space;
            bytes = &bytes[..bytes.len().min(space)];
            state.space = Some(space - bytes.len());
        }
        let end = offset + bytes.len();
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[offset..end].copy_from_slice(bytes);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state();
        if state.failing {
            return Err(io::Error::other("sync"));
        }
        state.synced = state.bytes.clone();
        Ok(())
    }
}
