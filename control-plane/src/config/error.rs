//! What can be wrong with a configuration.

/// A configuration that cannot be used. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{file}, line {line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// What the parser says.
        message: String,
        /// The line, from 1.
        line: usize,
    },
    /// No setting has this key.
    #[error("{from}: there is no setting {key:?}; the nearest is {nearest:?}")]
    Unknown {
        /// File or environment.
        from: String,
        /// The key as it was written.
        key: String,
        /// The key that it resembles most.
        nearest: String,
    },
    /// No setting is a list.
    #[error("{file}: {key} is a list; a single value is expected")]
    Array {
        /// The file.
        file: String,
        /// The key.
        key: String,
    },
    /// The value is not of the setting's type.
    #[error("{key} = {value:?} (from {from}): {expected}")]
    Value {
        /// Where the value came from.
        from: String,
        /// The setting.
        key: &'static str,
        /// The value, masked.
        value: String,
        /// What would be right.
        expected: String,
    },
}

impl ConfigError {
    /// An unknown key, with the existing one that it resembles most.
    pub(super) fn unknown(from: &str, key: &str, existing: impl Iterator<Item = String>) -> Self {
        let nearest = existing.min_by_key(|candidate| distance(key, candidate)).unwrap_or_default();
        ConfigError::Unknown { from: from.to_owned(), key: key.to_owned(), nearest }
    }
}

/// Levenshtein's distance: insertions, deletions and replacements of characters between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
