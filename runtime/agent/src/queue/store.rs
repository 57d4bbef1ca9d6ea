//! What has been counted and not been acknowledged.
//!
//! An [`Item`] waits without a number and can be merged with others of its group: nothing counted is lost, only
//! resolution. When there is a connection and room, it becomes numbered messages ([`Queue::admit`]), which never
//! change again and stay until the control plane acknowledges them. Both steps are atomic on disk, so a count is
//! always in exactly one place, whenever the power goes.
//!
//! # A disk that fails
//! Counting goes on in memory. An item that is on disk is then not numbered before that is on disk too: after a
//! crash it would come back and be counted a second time. An item that never reached the disk may go at once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use dunlin_protocol::{Ack, UpKind};

use super::entry::{Item, Name, decode_message, encode_message};
use super::journal::{Journal, JournalError};
use super::medium::{FileMedium, Medium};
use super::record::Change;
use crate::uplink::MessageKey;
use crate::{bodies, files};

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of each of the two files; the entries take at most half of one.
    pub file_bytes: u32,
    /// Most items that wait; more are merged.
    pub items: usize,
    /// Most events among them; the oldest give way.
    pub events: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { file_bytes: 1 << 20, items: 48, events: 16 }
    }
}

/// How often a disk that failed is tried again, in milliseconds.
const RETRY_MS: u64 = 10_000;

/// Makes the bodies of two items of one kind and group into those of one, each of at most so many bytes with its
/// envelope, or says that they cannot be merged.
type Merge = fn(UpKind, usize, &[Vec<u8>], &[Vec<u8>]) -> Option<Vec<Vec<u8>>>;

/// What [`Queue::open`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Items that wait.
    pub items: usize,
    /// Numbered messages of earlier boots.
    pub messages: usize,
    /// Entries that cannot be read any more.
    pub corrupted: u64,
}

/// The body of a numbered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'q> {
    /// It may be sent.
    Ready(&'q [u8]),
    /// It must not be sent before the disk works again.
    Held,
    /// There is no such message, or it cannot be read.
    Unknown,
}

/// What [`Queue::admit`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What kind of messages an item became.
    pub kind: UpKind,
    /// How many.
    pub messages: u16,
    /// When it was closed, in milliseconds of the agent's clock; 0 for an item of an earlier run.
    pub closed_ms: u64,
}

/// The queue of one device.
pub struct Queue {
    journal: Journal,
    limits: QueueLimits,
    merge: Merge,
    budget: usize,
    boot: u64,
    next_item: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Numbered messages.
    outbox: BTreeMap<MessageKey, Numbered>,
    /// Items that find no room; they are merged with the next ones of their group.
    backlog: Vec<(Item, u64)>,
    merged: u64,
    dropped: u64,
    /// Why the disk cannot be written, while it cannot.
    fault: Option<String>,
    retry_at_ms: u64,
    _lock: Option<std::fs::File>,
}

struct Waiting {
    kind: UpKind,
    group: Vec<u8>,
    closed_ms: u64,
    /// Some of it is on disk.
    on_disk: bool,
}

struct Numbered {
    kind: UpKind,
    /// Must not be sent before the journal is durable.
    held: bool,
}

/// Keeps nothing: for a queue in memory only.
struct Nowhere;

impl Medium for Nowhere {
    fn read(&mut self, _limit: u64) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The folder cannot be used.
    #[error("{}: {error}", path.display())]
    Folder {
        /// Which path.
        path: std::path::PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process counts there.
    #[error("{}: is in use by another agent; give each a state folder of its own", path.display())]
    InUse {
        /// Which folder.
        path: std::path::PathBuf,
    },
}

impl Queue {
    /// Opens or creates the queue in a folder: `queue.0`, `queue.1` and `queue.lock`. `boot` is a fresh random number,
    /// `budget` the longest message in bytes that merging makes.
    ///
    /// # Errors
    /// [`QueueError`]; damaged files are no error, what can be read of them is kept.
    pub fn open(
        folder: &Path,
        limits: QueueLimits,
        boot: u64,
        budget: usize,
    ) -> Result<(Self, Recovered), QueueError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |error| QueueError::Folder { path, error }
        };
        files::create_private_dir(folder).map_err(wrong(folder))?;
        let path = folder.join("queue.lock");
        let lock = std::fs::File::create(&path).map_err(wrong(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(QueueError::InUse { path: folder.to_owned() });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(wrong(&path)(error)),
        }
        let open = |name: &str| -> Result<Box<dyn Medium>, QueueError> {
            let path = folder.join(name);
            Ok(Box::new(FileMedium::open(&path).map_err(wrong(&path))?))
        };
        let media = [open("queue.0")?, open("queue.1")?];
        let (mut queue, recovered) = Self::on(media, limits, boot, budget, bodies::merge);
        queue._lock = Some(lock);
        Ok((queue, recovered))
    }

    /// A queue without a disk: what is in it is lost with the process.
    pub fn in_memory(limits: QueueLimits, boot: u64, budget: usize) -> Self {
        Self::on([Box::new(Nowhere), Box::new(Nowhere)], limits, boot, budget, bodies::merge).0
    }

    /// A queue on two media.
    fn on(
        media: [Box<dyn Medium>; 2],
        limits: QueueLimits,
        boot: u64,
        budget: usize,
        merge: Merge,
    ) -> (Self, Recovered) {
        let (journal, damage) = Journal::open(media, limits.file_bytes);
        let mut corrupted = damage.corrupted;
        let mut waiting = BTreeMap::new();
        let mut outbox = BTreeMap::new();
        let mut drop = Vec::new();
        let mut next_item = 0;
        let watermark = journal.entries().get(&Name::Watermark.key());
        let watermark =
            watermark.and_then(|value| value.as_slice().try_into().ok()).map_or(0, u64::from_le_bytes);
        for (key, value) in journal.entries() {
            let kept = match Name::of(key) {
                Some(Name::Watermark) => true,
                Some(Name::Waiting(id)) => {
                    next_item = next_item.max(id + 1);
                    match Item::decode(value) {
                        // Below the watermark everything has been numbered: the record that says so has rotted. Its
                        // counts may have arrived, so they must not be sent under another number.
                        Some(item) if id >= watermark => {
                            let (kind, group) = (item.kind, item.group);
                            waiting.insert(id, Waiting { kind, group, closed_ms: 0, on_disk: true });
                            true
                        }
                        _ => false,
                    }
                }
                Some(Name::Message { boot, seq }) => {
                    let kind = decode_message(value).map(|(kind, _)| kind);
                    if let Some(kind) = kind {
                        outbox.insert(MessageKey { boot, seq }, Numbered { kind, held: false });
                    }
                    kind.is_some()
                }
                None => false,
            };
            if !kept {
                corrupted += 1;
                drop.push(Change::Delete(*key));
            }
        }
        let recovered = Recovered { items: waiting.len(), messages: outbox.len(), corrupted };
        let mut queue = Queue {
            journal,
            limits,
            merge,
            budget,
            boot,
            next_item: next_item.max(watermark),
            waiting,
            outbox,
            backlog: Vec::new(),
            merged: 0,
            dropped: 0,
            fault: None,
            retry_at_ms: 0,
            _lock: None,
        };
        if !queue.journal.is_durable() {
            queue.fault = Some("the queue cannot be written; counting goes on in memory".into());
        }
        let _ = queue.commit(&drop);
        (queue, recovered)
    }

    /// The number of this boot.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Items that wait and messages that are not acknowledged.
    pub fn len(&self) -> (usize, usize) {
        (self.waiting.len() + self.backlog.len(), self.outbox.len())
    }

    /// Whether nothing is left to be sent or acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.outbox.is_empty() && self.backlog.is_empty()
    }

    /// Why entries are in memory only at the moment, if so.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Items that were merged because there was no room.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// Events that gave way to newer ones.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether something waits that should not wait long: an event or the state.
    pub fn urgent(&self) -> bool {
        self.waiting.values().any(|waiting| matches!(waiting.kind, UpKind::Event | UpKind::State))
    }

    /// Adds an item that was closed at `closed_ms` of the agent's clock. It is on disk when this returns, unless the
    /// disk fails ([`Self::fault`]).
    ///
    /// Where there is no room, items of one group are merged. When that does not help either (many models, none of
    /// which has two items), the item stays in memory and is merged with the next one of its group.
    pub fn push(&mut self, item: Item, closed_ms: u64) {
        self.retry_backlog();
        self.push_or_keep(item, closed_ms);
    }

    fn retry_backlog(&mut self) {
        for (item, closed_ms) in std::mem::take(&mut self.backlog) {
            self.push_or_keep(item, closed_ms);
        }
    }

    fn push_or_keep(&mut self, item: Item, closed_ms: u64) {
        let Err(item) = self.try_push(item, closed_ms) else { return };
        let same = |(other, _): &&mut (Item, u64)| (other.kind, &other.group) == (item.kind, &item.group);
        if let Some((other, at)) = self.backlog.iter_mut().find(same)
            && let Some(bodies) = (self.merge)(item.kind, self.budget, &other.bodies, &item.bodies)
        {
            (other.bodies, *at) = (bodies, closed_ms);
            self.merged += 1;
        } else if item.kind == UpKind::Event {
            self.dropped += 1;
        } else {
            self.backlog.push((item, closed_ms));
        }
    }

    fn try_push(&mut self, item: Item, closed_ms: u64) -> Result<(), Item> {
        if item.kind == UpKind::State {
            // Only the newest state matters.
            self.remove(|waiting| waiting.kind == UpKind::State, usize::MAX);
        }
        if item.kind == UpKind::Event {
            let events = self.waiting.values().filter(|waiting| waiting.kind == UpKind::Event).count();
            let excess = (events + 1).saturating_sub(self.limits.events);
            self.dropped += self.remove(|waiting| waiting.kind == UpKind::Event, excess) as u64;
        }
        while self.waiting.len() >= self.limits.items {
            if !self.merge_oldest() {
                return Err(item);
            }
        }
        let put = Change::Put(Name::Waiting(self.next_item).key(), item.encode());
        loop {
            match self.commit(std::slice::from_ref(&put)) {
                Ok(written) => {
                    let (kind, group, on_disk) = (item.kind, item.group, written != Written::No);
                    self.waiting.insert(self.next_item, Waiting { kind, group, closed_ms, on_disk });
                    self.next_item += 1;
                    return Ok(());
                }
                Err(Full) if self.merge_oldest() => {}
                Err(Full) => return Err(item),
            }
        }
    }

    /// Makes the item that has waited longest into messages, at most `room`, with the numbers from `first_seq` on.
    /// Nothing if no item waits, or none may be numbered while the disk fails.
    ///
    /// Called while there is a connection: without one, items had better stay mergeable.
    pub fn admit(&mut self, first_seq: u64, room: u16) -> Option<Admitted> {
        self.retry_backlog();
        let (id, waiting) = self.waiting.iter().find(|(_, waiting)| self.may_be_numbered(waiting))?;
        let (id, kind, closed_ms, on_disk) = (*id, waiting.kind, waiting.closed_ms, waiting.on_disk);
        let mut item = self.item(id).unwrap_or(Item { kind, group: Vec::new(), bodies: Vec::new() });
        // Bodies count on their own: those that find no room go later.
        let rest = item.bodies.split_off(item.bodies.len().min(usize::from(room)));
        let complete = rest.is_empty();
        let others = self.waiting.keys().copied().find(|other| *other != id);
        let lowest = match complete {
            true => others.unwrap_or(self.next_item),
            false => others.map_or(id, |other| other.min(id)),
        };
        let mut changes = vec![Change::Put(Name::Watermark.key(), lowest.to_le_bytes().to_vec())];
        for (seq, body) in (first_seq..).zip(&item.bodies) {
            let name = Name::Message { boot: self.boot, seq };
            changes.push(Change::Put(name.key(), encode_message(kind, body)));
        }
        let messages = u16::try_from(item.bodies.len()).unwrap_or(u16::MAX);
        changes.push(match complete {
            true => Change::Delete(Name::Waiting(id).key()),
            false => Change::Put(Name::Waiting(id).key(), Item { bodies: rest, ..item }.encode()),
        });
        let written = self.commit(&changes).ok()?;
        if complete {
            self.waiting.remove(&id);
        }
        let held = on_disk && written != Written::Durable;
        for seq in first_seq..first_seq + u64::from(messages) {
            self.outbox.insert(MessageKey { boot: self.boot, seq }, Numbered { kind, held });
        }
        Some(Admitted { kind, messages, closed_ms })
    }

    /// Forgets the messages that an acknowledgement covers; how many.
    pub fn acknowledge(&mut self, ack: &Ack) -> usize {
        let first = MessageKey { boot: ack.boot, seq: 0 };
        let of_boot = self.outbox.range(first..=MessageKey { seq: u64::MAX, ..first });
        let covered: Vec<MessageKey> =
            of_boot.map(|(key, _)| *key).filter(|key| ack.covers(key.seq)).collect();
        let delete = |key: &MessageKey| Change::Delete(Name::of_message(*key).key());
        let changes: Vec<Change> = covered.iter().map(delete).collect();
        if changes.is_empty() || self.commit(&changes).is_err() {
            return 0;
        }
        for key in &covered {
            self.outbox.remove(key);
        }
        covered.len()
    }

    /// The numbered messages: those of earlier boots are sent under their old numbers.
    pub fn messages(&self) -> impl Iterator<Item = (MessageKey, UpKind)> {
        self.outbox.iter().map(|(key, numbered)| (*key, numbered.kind))
    }

    /// The body of a numbered message.
    pub fn body(&self, key: MessageKey) -> Body<'_> {
        match self.outbox.get(&key) {
            None => Body::Unknown,
            Some(numbered) if numbered.held => Body::Held,
            Some(_) => {
                let entry = self.journal.entries().get(&Name::of_message(key).key());
                match entry.and_then(|bytes| decode_message(bytes)) {
                    Some((_, body)) => Body::Ready(body),
                    None => Body::Unknown,
                }
            }
        }
    }

    /// Tries a failed disk again, now and then. Whether entries have become durable by that.
    pub fn maintain(&mut self, now_ms: u64) -> bool {
        if self.journal.is_durable() || now_ms < self.retry_at_ms {
            return false;
        }
        self.retry_at_ms = now_ms + RETRY_MS;
        match self.commit(&[]) {
            Ok(Written::Durable) => true,
            Ok(Written::Perhaps) => {
                // The attempt wrote everything there is.
                self.waiting.values_mut().for_each(|waiting| waiting.on_disk = true);
                false
            }
            _ => false,
        }
    }

    /// An item that is on disk waits for the disk; see the module's documentation.
    fn may_be_numbered(&self, waiting: &Waiting) -> bool {
        self.journal.is_durable() || !waiting.on_disk
    }

    fn item(&self, id: u64) -> Option<Item> {
        self.journal.entries().get(&Name::Waiting(id).key()).and_then(|bytes| Item::decode(bytes))
    }

    /// Applies changes. A disk that has failed is only tried again in [`Self::maintain`].
    fn commit(&mut self, changes: &[Change]) -> Result<Written, Full> {
        let waits = self.fault.is_some() && !changes.is_empty();
        let done = if waits { self.journal.apply(changes) } else { self.journal.commit(changes) };
        match done {
            Ok(()) if waits => Ok(Written::No),
            Ok(()) => {
                self.fault = None;
                self.waiting.values_mut().for_each(|waiting| waiting.on_disk = true);
                self.outbox.values_mut().for_each(|numbered| numbered.held = false);
                Ok(Written::Durable)
            }
            Err(JournalError::Full { .. }) => Err(Full),
            Err(error @ JournalError::NotDurable { perhaps, .. }) => {
                self.fault = Some(error.to_string());
                Ok(if perhaps { Written::Perhaps } else { Written::No })
            }
        }
    }

    /// Forgets the oldest items that match, at most `n`; how many.
    fn remove(&mut self, matches: impl Fn(&Waiting) -> bool, n: usize) -> usize {
        let ids: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| matches(waiting)).map(|(id, _)| *id).take(n).collect();
        let changes: Vec<Change> = ids.iter().map(|id| Change::Delete(Name::Waiting(*id).key())).collect();
        if changes.is_empty() || self.commit(&changes).is_err() {
            return 0;
        }
        for id in &ids {
            self.waiting.remove(id);
        }
        ids.len()
    }

    /// Merges the two oldest neighbours of one group that can be merged. `false` when there are none.
    fn merge_oldest(&mut self) -> bool {
        let mut oldest: BTreeMap<(UpKind, &[u8]), u64> = BTreeMap::new();
        let mut pairs = Vec::new();
        for (id, waiting) in &self.waiting {
            let group = (waiting.kind, waiting.group.as_slice());
            if let Some(before) = oldest.insert(group, *id) {
                pairs.push((before, *id));
            }
        }
        // By the age of the older one.
        pairs.sort_unstable();
        pairs.iter().any(|(first, second)| self.merge_pair(*first, *second).is_some())
    }

    /// Puts both items in the place of the younger one, so that the watermark stays true.
    fn merge_pair(&mut self, first: u64, second: u64) -> Option<()> {
        let item =
            |id| self.journal.entries().get(&Name::Waiting(id).key()).and_then(|bytes| Item::decode(bytes));
        let (older, younger) = (item(first)?, item(second)?);
        let bodies = (self.merge)(older.kind, self.budget, &older.bodies, &younger.bodies)?;
        let merged = Item { bodies, ..younger };
        let changes = [
            Change::Delete(Name::Waiting(first).key()),
            Change::Put(Name::Waiting(second).key(), merged.encode()),
        ];
        let written = self.commit(&changes).ok()?;
        let older = self.waiting.remove(&first)?;
        let younger = self.waiting.get_mut(&second)?;
        younger.on_disk |= older.on_disk || written != Written::No;
        self.merged += 1;
        Some(())
    }
}

/// The journal has no room.
struct Full;

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Durable,
    /// In memory; after a crash perhaps on disk.
    Perhaps,
    No,
}

#[cfg(test)]
mod tests;
