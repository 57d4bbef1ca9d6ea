//! Records of a journal: what one atomic write looks like in bytes, and how such writes are found again.
//!
//! ```text
//! marker u32 | generation u64 | number u64 | flags u8 | length u32 | crc32 u32 | body
//! body: operations, each  1 | space u8 | high u64 | low u64 | length u32 | value     (put)
//!                     or  2 | space u8 | high u64 | low u64                          (delete)
//! ```
//! All numbers are little-endian. The checksum covers generation to length and the body, so that what an earlier
//! generation left in the file is never taken for a record of this one.

/// Begins every record; not zero, so that an empty stretch is no record.
const MARKER: [u8; 4] = *b"DLQ\x01";
/// Bytes in front of a record's body.
pub(super) const HEADER: usize = 29;
/// Bytes in front of a value in a put.
pub(super) const PUT: usize = 22;
const DELETE: usize = 18;

/// The generation's snapshot is complete: written once, after the snapshot is durable.
pub(super) const COMPLETE: u8 = 1;
/// Written after [`COMPLETE`], so it vouches for it.
pub(super) const APPENDED: u8 = 2;

/// Names an entry. Entries are ordered by space, then `high`, then `low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which kind of entry.
    pub space: u8,
    /// First part of the name.
    pub high: u64,
    /// Second part of the name.
    pub low: u64,
}

/// One change; a slice of them is applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces an entry.
    Put(Key, Vec<u8>),
    /// Removes an entry; one that is not there is no error.
    Delete(Key),
}

/// A record found in a file.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) flags: u8,
    body: &'a [u8],
    /// Bytes of the whole record.
    pub(super) len: usize,
}

/// Bytes that a change takes in a body.
pub(super) fn size(change: &Change) -> usize {
    match change {
        Change::Put(_, value) => PUT + value.len(),
        Change::Delete(_) => DELETE,
    }
}

/// Appends a record to `out`.
pub(super) fn encode<'c>(
    out: &mut Vec<u8>,
    generation: u64,
    number: u64,
    flags: u8,
    changes: impl IntoIterator<Item = &'c Change>,
) {
    let mut body = Vec::new();
    for change in changes {
        let (tag, key) = match change {
            Change::Put(key, _) => (1, key),
            Change::Delete(key) => (2, key),
        };
        body.push(tag);
        body.push(key.space);
        body.extend_from_slice(&key.high.to_le_bytes());
        body.extend_from_slice(&key.low.to_le_bytes());
        if let Change::Put(_, value) = change {
            // A value is bounded by the journal's capacity, which is a u32.
            body.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            body.extend_from_slice(value);
        }
    }
    let mut covered = Vec::with_capacity(21);
    covered.extend_from_slice(&generation.to_le_bytes());
    covered.extend_from_slice(&number.to_le_bytes());
    covered.push(flags);
    covered.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&covered);
    out.extend_from_slice(&checksum(&covered, &body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn checksum(covered: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(body);
    hasher.finalize()
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

impl<'a> Record<'a> {
    /// The record that begins at the first byte, if a whole and intact one does.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        if take(&mut rest)? != MARKER {
            return None;
        }
        let covered: [u8; 21] = take(&mut rest)?;
        let crc = u32::from_le_bytes(take(&mut rest)?);
        let mut fields = covered.as_slice();
        let generation = u64::from_le_bytes(take(&mut fields)?);
        let number = u64::from_le_bytes(take(&mut fields)?);
        let [flags] = take(&mut fields)?;
        let body = rest.get(..u32::from_le_bytes(take(&mut fields)?) as usize)?;
        (checksum(&covered, body) == crc).then_some(Record {
            generation,
            number,
            flags,
            body,
            len: HEADER + body.len(),
        })
    }

    /// The next intact record at or after `from`, and where it begins.
    pub(super) fn find(bytes: &'a [u8], from: usize) -> Option<(usize, Self)> {
        let mut at = from;
        loop {
            at += bytes.get(at..)?.windows(MARKER.len()).position(|window| window == MARKER)?;
            if let Some(record) = Record::parse(bytes.get(at..)?) {
                return Some((at, record));
            }
            at += 1;
        }
    }

    /// The changes, or nothing if the body makes no sense (written by a version that knows more).
    pub(super) fn changes(&self) -> Option<Vec<Change>> {
        let mut rest = self.body;
        let mut changes = Vec::new();
        while !rest.is_empty() {
            let [tag, space] = take(&mut rest)?;
            let high = u64::from_le_bytes(take(&mut rest)?);
            let low = u64::from_le_bytes(take(&mut rest)?);
            let key = Key { space, high, low };
            changes.push(match tag {
                1 => {
                    let len = u32::from_le_bytes(take(&mut rest)?) as usize;
                    let (value, after) = rest.split_at_checked(len)?;
                    rest = after;
                    Change::Put(key, value.to_vec())
                }
                2 => Change::Delete(key),
                _ => return None,
            });
        }
        Some(changes)
    }
}
