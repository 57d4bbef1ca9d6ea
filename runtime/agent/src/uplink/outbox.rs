//! The bookkeeping of messages that have a number and no acknowledgement yet. The bodies are the shell's.

use dunlin_protocol::{Ack, Envelope, UpKind, limits::WINDOW};
use heapless::Vec;

/// Names a message: its body is kept under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// The boot that gave the number.
    pub boot: u64,
    /// The number.
    pub seq: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: MessageKey,
    pub(super) kind: UpKind,
    /// When the body was closed, in milliseconds; `None` for messages of earlier boots.
    closed_ms: Option<u64>,
    /// When it was sent over the present connection.
    pub(super) sent_ms: Option<u64>,
}

/// Messages of earlier boots first, each boot in the order of its numbers.
#[derive(Clone, Debug)]
pub(super) struct Outbox<const N: usize> {
    boot: u64,
    next_seq: u64,
    entries: Vec<Entry, N>,
}

impl<const N: usize> Outbox<N> {
    pub(super) fn new(boot: u64) -> Self {
        Self { boot, next_seq: 0, entries: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Those of this boot.
    pub(super) fn own_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.key.boot == self.boot)
    }

    /// Adds a message of an earlier boot, in any order; `false` when there is no room or it is there already.
    pub(super) fn recover(&mut self, key: MessageKey, kind: UpKind) -> bool {
        let known = self.entries.iter().any(|entry| entry.key == key);
        if key.boot == self.boot || known || self.entries.is_full() {
            return false;
        }
        // Not being full, it has room.
        let _ = self.entries.push(Entry { key, kind, closed_ms: None, sent_ms: None });
        // Move it to its place.
        let own = self.boot;
        for place in (1..self.entries.len()).rev() {
            if let Some([before, entry]) = self.entries.get_mut(place - 1..=place)
                && (before.key.boot == own || before.key > entry.key)
            {
                core::mem::swap(before, entry);
            }
        }
        true
    }

    /// Most messages that may be added now.
    pub(super) fn room(&self) -> u64 {
        let oldest = self.oldest(self.boot);
        let window = oldest.saturating_add(WINDOW).saturating_sub(self.next_seq);
        window.min(N.saturating_sub(self.entries.len()) as u64)
    }

    /// Adds the next message of this boot; `false` when there is no room.
    pub(super) fn add(&mut self, kind: UpKind, closed_ms: u64) -> bool {
        if self.room() == 0 {
            return false;
        }
        let key = MessageKey { boot: self.boot, seq: self.next_seq };
        let entry = Entry { key, kind, closed_ms: Some(closed_ms), sent_ms: None };
        let added = self.entries.push(entry).is_ok();
        self.next_seq += u64::from(added);
        added
    }

    /// Forgets what the ack covers; how many messages.
    pub(super) fn acknowledge(&mut self, ack: &Ack) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key.boot != ack.boot || !ack.covers(entry.key.seq));
        before - self.entries.len()
    }

    /// Forgets one message; whether it was there.
    pub(super) fn remove(&mut self, key: MessageKey) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key != key);
        before != self.entries.len()
    }

    pub(super) fn envelope(&self, entry: &Entry, now_ms: u64) -> Envelope {
        let age_s = match entry.closed_ms {
            Some(closed_ms) => u32::try_from(now_ms.saturating_sub(closed_ms) / 1000).unwrap_or(u32::MAX),
            None => Envelope::AGE_UNKNOWN,
        };
        let MessageKey { boot, seq } = entry.key;
        Envelope { boot, seq, oldest: self.oldest(boot), age_s }
    }

    /// The lowest number of a boot that is not acknowledged.
    fn oldest(&self, boot: u64) -> u64 {
        let mut of_boot = self.entries.iter().filter(|entry| entry.key.boot == boot);
        of_boot.next().map_or(self.next_seq, |entry| entry.key.seq)
    }
}
