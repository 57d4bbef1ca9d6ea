//! A pure server: windows of sequence numbers and sums, changed by transactions.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::{Ack, Envelope, Event, Report, SequenceWindow, State, UpKind, Verdict};

use crate::device::{SimWindow, empty_window};

/// What a transaction changes.
#[derive(Clone, Default)]
struct Tables {
    sequences: BTreeMap<(usize, u64), SequenceWindow>,
    sums: BTreeMap<usize, SimWindow>,
    /// The naive truth beside the windows: every message ever applied.
    applied: BTreeSet<(usize, u64, u64)>,
    merges: BTreeMap<usize, i64>,
    generations: BTreeMap<usize, u64>,
}

#[derive(Default)]
pub(crate) struct Server {
    committed: Tables,
    /// The transaction that is open, and whom to tell after the commit.
    open: Tables,
    acks: BTreeSet<(usize, u64)>,
    pub(crate) duplicates: u64,
    pub(crate) crashes: u32,
    pub(crate) lost_batches: u32,
}

impl Server {
    /// Takes a message into the open transaction.
    pub(crate) fn receive(&mut self, device: usize, kind: UpKind, message: &[u8]) {
        let (envelope, body) = Envelope::decode(message).unwrap();
        let window = self.open.sequences.entry((device, envelope.boot)).or_default();
        match window.apply(envelope.seq, envelope.oldest) {
            Verdict::Malformed => panic!("device {device} left its window: {envelope:?}, {window:?}"),
            Verdict::Duplicate => self.duplicates += 1,
            Verdict::Fresh => {
                let fresh = self.open.applied.insert((device, envelope.boot, envelope.seq));
                assert!(fresh, "applied twice: device {device}, {envelope:?}");
                self.apply(device, kind, body);
            }
        }
        self.acks.insert((device, envelope.boot));
    }

    fn apply(&mut self, device: usize, kind: UpKind, body: &[u8]) {
        match kind {
            UpKind::Report => {
                let sum = self.open.sums.entry(device).or_insert_with(empty_window);
                Report::decode(body).unwrap().add_to(sum).unwrap();
            }
            UpKind::State => {
                let generation = State::decode(body).unwrap().desired_generation;
                let newest = self.open.generations.entry(device).or_default();
                *newest = generation.max(*newest);
            }
            UpKind::Event => {
                *self.open.merges.entry(device).or_default() += Event::decode(body).unwrap().value;
            }
            kind => panic!("{kind:?} was never sent"),
        }
    }

    /// Commits; the acks that go out now.
    pub(crate) fn commit(&mut self) -> Vec<(usize, Ack)> {
        self.committed = self.open.clone();
        let acks = std::mem::take(&mut self.acks);
        acks.into_iter()
            .map(|(device, boot)| (device, self.committed.sequences[&(device, boot)].ack(boot)))
            .collect()
    }

    /// The process dies: what was not committed never happened.
    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        self.lost_batches += u32::from(!self.acks.is_empty());
        self.open = self.committed.clone();
        self.acks.clear();
    }

    pub(crate) fn sum(&self, device: usize) -> SimWindow {
        self.committed.sums.get(&device).cloned().unwrap_or_else(empty_window)
    }

    pub(crate) fn merges(&self, device: usize) -> i64 {
        self.committed.merges.get(&device).copied().unwrap_or(0)
    }

    pub(crate) fn generation(&self, device: usize) -> u64 {
        self.committed.generations.get(&device).copied().unwrap_or(0)
    }

    pub(crate) fn applied(&self, device: usize) -> u64 {
        self.committed.applied.range((device, 0, 0)..(device + 1, 0, 0)).count() as u64
    }
}
