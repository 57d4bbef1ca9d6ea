//! A small crash-safe map on disk: named entries, changed by atomic batches.
//!
//! Two files take turns. Batches are appended to the active one as checksummed records; when it is full, the live
//! entries are written to the other one, which then becomes the active one. A file is overwritten with zeros before
//! it is filled, so that its blocks are allocated: appending needs no further space, and a disk that fills up later
//! stops no one (on file systems that never overwrite in place, such as btrfs, it can).
//!
//! # What survives
//! A batch whose [`commit`](Journal::commit) returned `Ok` survives a crash at any moment. A batch that was being
//! written is there after the crash as a whole or not at all. Records whose bytes have rotted are skipped and
//! counted; the others are kept.
//!
//! # When the disk fails
//! The entries in memory stay the truth. `commit` then says that the batch is not durable, and later commits write
//! everything anew, to the other file, until that succeeds.

use std::collections::BTreeMap;
use std::io;

use super::medium::Medium;
use super::record::{self, APPENDED, COMPLETE, Change, HEADER, Key, PUT, Record};

/// Largest file that is read, in bytes: what a journal of another capacity may have left.
const MAX_FILE: u64 = 64 << 20;
/// Smallest capacity, in bytes.
const MIN_CAPACITY: u32 = 4096;

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The entries would take more bytes than allowed. Nothing has changed.
    #[error("the queue is full: {needed} bytes are needed, {limit} are allowed")]
    Full {
        /// Bytes of all entries with the batch.
        needed: usize,
        /// Most bytes of all entries.
        limit: usize,
    },
    /// The batch is in memory only.
    #[error("the queue cannot be written: {error}; counting goes on in memory")]
    NotDurable {
        /// What the system says.
        error: io::Error,
        /// It may come back after a crash all the same: it was written, but nobody knows how far.
        perhaps: bool,
    },
}

/// What [`Journal::open`] found besides intact entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Records that were written whole and cannot be read any more.
    pub corrupted: u64,
    /// A record was cut off by a crash; it had not been confirmed to anyone.
    pub torn: bool,
}

/// The map and its two files.
pub struct Journal {
    media: [Box<dyn Medium>; 2],
    active: usize,
    /// Highest generation ever used.
    generation: u64,
    /// Number of the next record.
    number: u64,
    /// Where the next record goes in the active file.
    end: usize,
    capacity: usize,
    /// The active file cannot be appended to: everything must be written anew.
    broken: bool,
    live: BTreeMap<Key, Vec<u8>>,
    live_bytes: usize,
}

/// The best that a file holds.
struct Content {
    generation: u64,
    entries: BTreeMap<Key, Vec<u8>>,
    damage: Damage,
}

/// Bytes of an entry in a snapshot.
fn entry_bytes(value: &[u8]) -> usize {
    HEADER + PUT + value.len()
}

impl Journal {
    /// Opens or creates a journal on two media. `capacity` is the size of each in bytes, of which the entries may
    /// take half.
    ///
    /// A medium that cannot be read or written is no error here: the journal then starts empty, or works in memory,
    /// and [`is_durable`](Self::is_durable) tells.
    pub fn open(media: [Box<dyn Medium>; 2], capacity: u32) -> (Self, Damage) {
        let mut media = media;
        let mut highest = 0;
        let mut lens = [0; 2];
        let mut best: Option<(usize, Content)> = None;
        for (index, medium) in media.iter_mut().enumerate() {
            let bytes = medium.read(MAX_FILE).unwrap_or_default();
            lens[index] = bytes.len();
            let (content, seen) = Content::read(&bytes);
            highest = highest.max(seen);
            if let Some(content) = content
                && best.as_ref().is_none_or(|(_, other)| content.generation > other.generation)
            {
                best = Some((index, content));
            }
        }
        let (active, content) = best
            .unwrap_or((1, Content { generation: 0, entries: BTreeMap::new(), damage: Damage::default() }));
        let live_bytes = content.entries.values().map(|value| entry_bytes(value)).sum();
        let mut journal = Journal {
            media,
            active,
            generation: highest,
            number: 0,
            end: 0,
            capacity: capacity.max(MIN_CAPACITY) as usize,
            broken: true,
            live: content.entries,
            live_bytes,
        };
        // A fresh snapshot leaves torn and rotten records behind, and allocates the file.
        let _ = journal.repair();
        // The other file's blocks as well; what is in it stays, as it is the last one that was complete.
        let other = 1 - journal.active;
        let missing = journal.capacity.saturating_sub(lens[other]);
        if missing > 0 {
            let medium = &mut journal.media[other];
            let _ = medium.write_at(lens[other] as u64, &vec![0; missing]).and_then(|()| medium.sync());
        }
        (journal, content.damage)
    }

    /// All entries, in the order of their keys.
    pub fn entries(&self) -> &BTreeMap<Key, Vec<u8>> {
        &self.live
    }

    /// Bytes that the entries take.
    pub fn bytes(&self) -> usize {
        self.live_bytes
    }

    /// Most bytes that the entries may take.
    pub fn limit(&self) -> usize {
        self.capacity / 2
    }

    /// Whether all entries are on disk.
    pub fn is_durable(&self) -> bool {
        !self.broken
    }

    /// Applies a batch and makes it durable.
    ///
    /// # Errors
    /// [`JournalError::Full`]: nothing has changed. [`JournalError::NotDurable`]: the batch is applied in memory
    /// only; after a crash it is there as a whole or not at all.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        if changes.is_empty() && !self.broken {
            return Ok(());
        }
        self.apply(changes)?;
        let len = HEADER + changes.iter().map(record::size).sum::<usize>();
        if self.broken || self.end + len > self.capacity {
            return self.repair();
        }
        let mut bytes = Vec::with_capacity(len);
        record::encode(&mut bytes, self.generation, self.number, APPENDED, changes);
        let medium = &mut self.media[self.active];
        let written = medium.write_at(self.end as u64, &bytes);
        let synced = written.is_ok() && medium.sync().is_ok();
        if synced {
            self.end += bytes.len();
            self.number += 1;
            return Ok(());
        }
        // After a failed sync nobody knows what the file holds: it is not appended to again.
        let appended = written.is_ok();
        self.repair().map_err(|error| match error {
            JournalError::NotDurable { error, perhaps } => {
                JournalError::NotDurable { error, perhaps: perhaps || appended }
            }
            full => full,
        })
    }

    /// Applies a batch in memory only, without trying the disk.
    ///
    /// # Errors
    /// [`JournalError::Full`]: nothing has changed.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let needed = self.bytes_after(changes);
        if needed > self.limit() && needed > self.live_bytes {
            return Err(JournalError::Full { needed, limit: self.limit() });
        }
        for change in changes {
            match change {
                Change::Put(key, value) => drop(self.live.insert(*key, value.clone())),
                Change::Delete(key) => drop(self.live.remove(key)),
            }
        }
        self.live_bytes = needed;
        Ok(())
    }

    /// Bytes of all entries once `changes` are applied.
    fn bytes_after(&self, changes: &[Change]) -> usize {
        let mut changed: BTreeMap<Key, usize> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Put(key, value) => changed.insert(*key, entry_bytes(value)),
                Change::Delete(key) => changed.insert(*key, 0),
            };
        }
        changed.iter().fold(self.live_bytes, |bytes, (key, new)| {
            bytes - self.live.get(key).map_or(0, |old| entry_bytes(old)) + new
        })
    }

    /// Writes all entries to the other file and makes that one the active one. Tried by itself in every commit after
    /// a failure.
    ///
    /// # Errors
    /// [`JournalError::NotDurable`] if that file cannot be written either.
    pub fn repair(&mut self) -> Result<(), JournalError> {
        // Every attempt has a number of its own: what a failed one left behind is never mixed with this one.
        self.generation += 1;
        self.broken = true;
        let mut bytes = Vec::with_capacity(self.live_bytes);
        let mut number = 0;
        for (key, value) in &self.live {
            let put = Change::Put(*key, value.clone());
            record::encode(&mut bytes, self.generation, number, 0, [&put]);
            number += 1;
        }
        let mut complete = Vec::with_capacity(HEADER);
        record::encode(&mut complete, self.generation, number, COMPLETE, []);
        let zeros = vec![0; self.capacity.max(bytes.len() + complete.len())];
        let target = 1 - self.active;
        let medium = &mut self.media[target];
        let mut perhaps = false;
        let mut write = || {
            medium.write_at(0, &zeros)?;
            medium.sync()?;
            medium.write_at(0, &bytes)?;
            medium.sync()?;
            medium.write_at(bytes.len() as u64, &complete)?;
            perhaps = true;
            medium.sync()
        };
        if let Err(error) = write() {
            return Err(JournalError::NotDurable { error, perhaps });
        }
        self.active = target;
        self.number = number + 1;
        self.end = bytes.len() + complete.len();
        self.broken = false;
        Ok(())
    }
}

impl Content {
    /// The newest complete generation in a file, and the highest generation of any record.
    fn read(bytes: &[u8]) -> (Option<Self>, u64) {
        let mut records: Vec<(usize, Record<'_>)> = Vec::new();
        let mut at = 0;
        while let Some((start, record)) = Record::find(bytes, at) {
            at = start + record.len;
            records.push((start, record));
        }
        let seen = records.iter().map(|(_, record)| record.generation).max().unwrap_or(0);
        let complete = records.iter().filter(|(_, record)| record.flags & (COMPLETE | APPENDED) != 0);
        let Some(generation) = complete.map(|(_, record)| record.generation).max() else {
            return (None, seen);
        };
        let mut entries = BTreeMap::new();
        let mut damage = Damage::default();
        let mut expected = 0;
        let mut end = 0;
        for (start, record) in records.iter().filter(|(_, record)| record.generation == generation) {
            damage.corrupted += record.number.saturating_sub(expected);
            expected = record.number + 1;
            end = start + record.len;
            match record.changes() {
                Some(changes) => apply(&mut entries, changes),
                None => damage.corrupted += 1,
            }
        }
        damage.torn = bytes.get(end..).is_some_and(|tail| tail.iter().any(|&byte| byte != 0));
        (Some(Content { generation, entries, damage }), seen)
    }
}

fn apply(entries: &mut BTreeMap<Key, Vec<u8>>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(key, value) => drop(entries.insert(key, value)),
            Change::Delete(key) => drop(entries.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Disk;
    use super::*;

    fn open(disks: &[Disk; 2]) -> (Journal, Damage) {
        Journal::open([Box::new(disks[0].clone()), Box::new(disks[1].clone())], MIN_CAPACITY)
    }

    fn key(low: u64) -> Key {
        Key { space: 1, high: 7, low }
    }

    fn put(low: u64, text: &str) -> Change {
        Change::Put(key(low), text.as_bytes().to_vec())
    }

    type Batch = Vec<Change>;
    type Entries = BTreeMap<Key, Vec<u8>>;

    /// The states that a few batches go through: `states[n]` after `n` batches.
    fn history() -> (Vec<Batch>, Vec<Entries>) {
        let batches = vec![
            vec![put(1, "one"), put(2, "two")],
            vec![Change::Delete(key(1)), put(3, "a longer third entry")],
            vec![put(2, "two again")],
            vec![put(4, ""), Change::Delete(key(9))],
        ];
        let mut states = vec![BTreeMap::new()];
        for batch in &batches {
            let mut next = states.last().unwrap().clone();
            apply(&mut next, batch.clone());
            states.push(next);
        }
        (batches, states)
    }

    /// The disks after the whole history, and where the active file's appended records begin and end.
    fn written() -> ([Disk; 2], usize, usize, usize) {
        let disks = [Disk::default(), Disk::default()];
        let (mut journal, _) = open(&disks);
        let start = journal.end;
        for batch in history().0 {
            journal.commit(&batch).unwrap();
        }
        (disks, journal.active, start, journal.end)
    }

    fn copy(disks: &[Disk; 2]) -> [Disk; 2] {
        disks.each_ref().map(Disk::copy)
    }

    #[test]
    fn entries_survive_a_restart() {
        let (disks, ..) = written();
        let (journal, damage) = open(&disks);
        assert_eq!(*journal.entries(), *history().1.last().unwrap());
        assert_eq!(damage, Damage::default());
        assert!(journal.is_durable());
    }

    /// A crash in the middle of an append leaves some prefix of the record, followed by zeros.
    #[test]
    fn a_write_torn_at_any_byte_leaves_the_state_before_or_after_a_batch() {
        let (disks, active, start, end) = written();
        let (_, states) = history();
        let mut previous = 0;
        for cut in start..=end {
            let copy = copy(&disks);
            copy[active].state().bytes[cut..].fill(0);
            let (journal, damage) = open(&copy);
            let at = states.iter().position(|state| state == journal.entries());
            let at = at.unwrap_or_else(|| panic!("cut at {cut}: no state of the history"));
            assert!(at >= previous, "cut at {cut}: a later cut brought back less");
            assert_eq!(damage.corrupted, 0, "cut at {cut}");
            previous = at;
            // The same with a file that ends there.
            copy[0].state().bytes.clear();
            copy[1].state().bytes.clear();
            let truncated = disks[active].state().bytes[..cut].to_vec();
            copy[active].state().bytes = truncated;
            // Zeros at a record's very end are as good as written when the file is longer.
            let (journal, _) = open(&copy);
            let here = states[at.saturating_sub(1)..=at].contains(journal.entries());
            assert!(here, "truncated at {cut}: {:?}", journal.entries());
        }
        assert_eq!(previous, states.len() - 1);
    }

    #[test]
    fn a_byte_that_rots_costs_at_most_its_own_batch() {
        let (disks, active, start, end) = written();
        let (batches, _) = history();
        // Every subset that lacks one batch.
        let without: Vec<BTreeMap<Key, Vec<u8>>> = (0..=batches.len())
            .map(|lost| {
                let mut entries = BTreeMap::new();
                for (index, batch) in batches.iter().enumerate() {
                    if index != lost {
                        apply(&mut entries, batch.clone());
                    }
                }
                entries
            })
            .collect();
        for at in 0..end {
            let copy = copy(&disks);
            copy[active].state().bytes[at] ^= 0x40;
            let (mut journal, damage) = open(&copy);
            assert!(without.contains(journal.entries()), "byte {at}: {:?}", journal.entries());
            if at >= start {
                assert!(damage.corrupted + u64::from(damage.torn) > 0, "byte {at}: damage not noticed");
            }
            // What was damaged is gone after the repair; the journal goes on.
            journal.commit(&[put(5, "new")]).unwrap();
            let (again, damage) = open(&copy);
            assert_eq!(again.entries(), journal.entries());
            assert_eq!(damage, Damage::default());
        }
    }

    #[test]
    fn garbage_is_no_journal() {
        for seed in 0..200u64 {
            let disks = [Disk::default(), Disk::default()];
            let mut state = seed;
            let bytes: Vec<u8> = (0..5000)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // Many markers, so that headers of nonsense are parsed.
                    if state >> 62 == 0 {
                        MARKER_BYTES[(state >> 40) as usize % 4]
                    } else {
                        (state >> 33) as u8
                    }
                })
                .collect();
            disks[0].state().bytes = bytes;
            assert!(open(&disks).0.entries().is_empty());
        }
    }

    const MARKER_BYTES: [u8; 4] = *b"DLQ\x01";

    #[test]
    fn a_full_file_is_compacted_into_the_other() {
        let disks = [Disk::default(), Disk::default()];
        let (mut journal, _) = open(&disks);
        let mut switches = 0;
        for round in 0..500 {
            let before = journal.active;
            journal.commit(&[put(round % 3, &format!("round {round}"))]).unwrap();
            switches += usize::from(journal.active != before);
            let sizes = disks.each_ref().map(|disk| disk.state().bytes.len());
            assert!(sizes.iter().all(|&size| size <= MIN_CAPACITY as usize), "{sizes:?}");
        }
        assert!(switches > 3);
        let (again, damage) = open(&disks);
        assert_eq!(again.entries(), journal.entries());
        assert_eq!(damage, Damage::default());
    }

    /// A crash at any write of a compaction: the bytes already written are on disk, the rest is not.
    #[test]
    fn a_crash_in_a_compaction_loses_nothing() {
        let (disks, ..) = written();
        let last = history().1.last().unwrap().clone();
        for space in 0..MIN_CAPACITY as usize + 600 {
            let copy = copy(&disks);
            for disk in &copy {
                disk.state().space = Some(space);
            }
            // Opening compacts; the disk stops somewhere.
            let (journal, _) = open(&copy);
            assert_eq!(*journal.entries(), last, "stopped after {space} bytes");
            for disk in &copy {
                disk.state().space = None;
            }
            let (journal, damage) = open(&copy);
            assert_eq!(*journal.entries(), last, "stopped after {space} bytes");
            assert_eq!(damage.corrupted, 0);
        }
    }

    #[test]
    fn a_disk_that_fails_is_survived_and_everything_is_written_once_it_works_again() {
        let disks = [Disk::default(), Disk::default()];
        let (mut journal, _) = open(&disks);
        journal.commit(&[put(1, "durable")]).unwrap();
        for disk in &disks {
            disk.state().failing = true;
        }
        assert!(matches!(journal.commit(&[put(2, "in memory")]), Err(JournalError::NotDurable { .. })));
        assert!(matches!(journal.commit(&[Change::Delete(key(1))]), Err(JournalError::NotDurable { .. })));
        assert!(!journal.is_durable());
        assert_eq!(journal.entries().len(), 1);
        for disk in &disks {
            disk.state().failing = false;
        }
        journal.commit(&[]).unwrap();
        assert!(journal.is_durable());
        let (again, _) = open(&disks);
        assert_eq!(again.entries(), journal.entries());
        assert_eq!(again.entries()[&key(2)], b"in memory");
    }

    #[test]
    fn a_disk_that_fills_up_later_does_not_matter() {
        let disks = [Disk::default(), Disk::default()];
        let (mut journal, _) = open(&disks);
        // Both files are allocated now. A full disk refuses growth, which nothing needs.
        let sizes = disks.each_ref().map(|disk| disk.state().bytes.len());
        for round in 0..1000 {
            journal.commit(&[put(round % 5, "the same size again")]).unwrap();
        }
        assert_eq!(sizes, disks.each_ref().map(|disk| disk.state().bytes.len()));
    }

    #[test]
    fn a_full_queue_refuses_what_does_not_fit_and_keeps_the_rest() {
        let disks = [Disk::default(), Disk::default()];
        let (mut journal, _) = open(&disks);
        let large = "x".repeat(1500);
        journal.commit(&[put(1, &large)]).unwrap();
        assert!(matches!(journal.commit(&[put(2, &large)]), Err(JournalError::Full { limit: 2048, .. })));
        assert_eq!(journal.entries().len(), 1);
        journal.commit(&[Change::Delete(key(1)), put(2, &large)]).unwrap();
        assert_eq!(open(&disks).0.entries().len(), 1);
    }
}
