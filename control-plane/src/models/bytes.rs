//! An artifact's bytes, aligned as the reader needs them.

use dunlin_artifact::{Artifact, FormatError};

/// Bytes that begin at a multiple of 16.
#[derive(Clone)]
pub struct ArtifactBytes {
    words: Vec<u128>,
    length: usize,
}

impl ArtifactBytes {
    /// A copy of `bytes`.
    pub fn copy(bytes: &[u8]) -> Self {
        let words = bytes
            .chunks(16)
            .map(|chunk| {
                let mut word = [0; 16];
                for (to, from) in word.iter_mut().zip(chunk) {
                    *to = *from;
                }
                u128::from_ne_bytes(word)
            })
            .collect();
        ArtifactBytes { words, length: bytes.len() }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        bytes.get(..self.length).unwrap_or_default()
    }

    /// The artifact in them.
    ///
    /// # Errors
    /// When they hold something else.
    pub fn parse(&self) -> Result<Artifact<'_>, FormatError> {
        Artifact::parse(self.as_slice())
    }
}

impl std::fmt::Debug for ArtifactBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArtifactBytes({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::ArtifactBytes;

    #[test]
    fn copies_are_equal_and_aligned() {
        for length in [0, 1, 15, 16, 17, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            let copy = ArtifactBytes::copy(&bytes);
            assert_eq!(copy.as_slice(), bytes);
            assert!(copy.as_slice().as_ptr().addr().is_multiple_of(16));
        }
    }
}
