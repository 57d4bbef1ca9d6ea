//! What a device remembers, as bytes.
//!
//! ```text
//! version u8 = 1 | root u32 | root expires u64 | generation u64 | assigned u64 | latest u64
//! 3 times, for root, release, director: threshold u8 | number of keys u8 | key [u8; 32]*
//! number of floors u8 | ( model [u8; 8] | floor u32 )*
//! ```
//! Integers are little-endian. Whoever stores them adds a checksum.

use core::fmt;

use dunlin_protocol::limits::MAX_KEYS;
use heapless::Vec;

use crate::keys::Keys;
use crate::trust::{MAX_FLOORS, Trust};

const VERSION: u8 = 1;

/// Most bytes of what a device remembers.
pub const STATE_BYTES: usize = 1 + 4 + 4 * 8 + 3 * (2 + MAX_KEYS * 32) + 1 + MAX_FLOORS * 12;

/// The bytes are not what a device remembered: the storage is damaged, or a newer program wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateError;

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the device remembered about keys and assignments cannot be read")
    }
}

impl core::error::Error for StateError {}

impl Trust {
    /// Everything as bytes, for storage.
    pub fn encode(&self) -> Vec<u8, STATE_BYTES> {
        let mut bytes = Vec::new();
        // The size is the sum of all limits.
        let mut put = |field: &[u8]| {
            let _ = bytes.extend_from_slice(field);
        };
        put(&[VERSION]);
        put(&self.root.to_le_bytes());
        for time in [self.root_expires_unix_s, self.generation, self.assigned_unix_s, self.latest_unix_s] {
            put(&time.to_le_bytes());
        }
        for keys in [&self.root_keys, &self.release_keys, &self.director_keys] {
            put(&[keys.threshold, keys.keys.len() as u8]);
            keys.keys.iter().for_each(|key| put(key));
        }
        put(&[self.floors.len() as u8]);
        for (model, floor) in &self.floors {
            put(model);
            put(&floor.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Trust::encode`] wrote.
    ///
    /// # Errors
    /// [`StateError`] when the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut bytes = Fields(bytes);
        let [VERSION] = bytes.take()? else { return Err(StateError) };
        let root = u32::from_le_bytes(bytes.take()?);
        let [root_expires_unix_s, generation, assigned_unix_s, latest_unix_s] =
            [bytes.u64()?, bytes.u64()?, bytes.u64()?, bytes.u64()?];
        let [root_keys, release_keys, director_keys] = [bytes.keys()?, bytes.keys()?, bytes.keys()?];
        let [count] = bytes.take()?;
        let mut floors = Vec::new();
        for _ in 0..count {
            let floor = (bytes.take()?, u32::from_le_bytes(bytes.take()?));
            floors.push(floor).map_err(|_| StateError)?;
        }
        if !bytes.0.is_empty() {
            return Err(StateError);
        }
        Ok(Self {
            root,
            root_expires_unix_s,
            root_keys,
            release_keys,
            director_keys,
            generation,
            assigned_unix_s,
            latest_unix_s,
            floors,
        })
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(StateError)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.take().map(u64::from_le_bytes)
    }

    fn keys(&mut self) -> Result<Keys, StateError> {
        let [threshold, count] = self.take()?;
        let mut keys = Keys { threshold, keys: Vec::new() };
        for _ in 0..count {
            keys.keys.push(self.take()?).map_err(|_| StateError)?;
        }
        if keys.is_usable() { Ok(keys) } else { Err(StateError) }
    }
}
