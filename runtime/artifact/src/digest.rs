//! The digest of a file, which stands in its own header.

use sha2::{Digest as _, Sha256};

use crate::layout::header;

/// Computes an artifact's digest while its bytes pass by, in pieces of any length: SHA-256 of the file with its digest
/// field set to zero.
#[derive(Clone, Debug, Default)]
pub struct Digester {
    hash: Sha256,
    at: usize,
}

impl Digester {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        const ZEROS: [u8; header::SIZE - header::DIGEST] = [0; header::SIZE - header::DIGEST];
        let mut rest = bytes;
        while !rest.is_empty() {
            let is_digest = (header::DIGEST..header::SIZE).contains(&self.at);
            let end = match self.at {
                at if at < header::DIGEST => header::DIGEST,
                at if at < header::SIZE => header::SIZE,
                _ => usize::MAX,
            };
            // Behind the header everything is taken at once, however much came before.
            let room = if end == usize::MAX { end } else { end.saturating_sub(self.at) };
            let (part, after) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            let hashed = if is_digest { ZEROS.get(..part.len()).unwrap_or(&ZEROS) } else { part };
            self.hash.update(hashed);
            self.at = self.at.saturating_add(part.len());
            rest = after;
        }
    }

    /// The digest of all bytes that passed.
    pub fn finish(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}
