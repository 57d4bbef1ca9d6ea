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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_protocol::{Ack, UpKind, limits};

use super::entry::{Item, Name, decode_message, encode_message};
use super::journal::{Journal, JournalError};
use super::medium::{FileMedium, Medium};
use super::record::Change;
use crate::files;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of each of the two files; the entries take at most half of one.
    pub file_bytes: u32,
    /// Most items that wait; more are merged.
    pub items: usize,
    /// Most events among them; the oldest give way.
    pub events: usize,
    /// Most numbered messages, over all boots.
    pub messages: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { file_bytes: 1 << 20, items: 48, events: 16, messages: 128 }
    }
}

/// How often a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Makes the bodies of two items of one kind and group into those of one, or says that they cannot be merged.
pub type Merge = fn(UpKind, &[Vec<u8>], &[Vec<u8>]) -> Option<Vec<Vec<u8>>>;

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

/// What [`Queue::push`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Items that were merged into others.
    pub merged: usize,
    /// Events that gave way.
    pub dropped: usize,
}

/// What became of a message's body since it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'q> {
    /// The boot that numbered it.
    pub boot: u64,
    /// Its number.
    pub seq: u64,
    /// The lowest number of its boot that is not acknowledged.
    pub oldest: u64,
    /// Which topic it goes to.
    pub kind: UpKind,
    /// Its body.
    pub body: &'q [u8],
    /// When it was closed; nothing for a message of an earlier boot.
    pub closed: Option<Instant>,
}

/// The queue of one device.
pub struct Queue {
    journal: Journal,
    limits: QueueLimits,
    merge: Merge,
    boot: u64,
    next_seq: u64,
    next_item: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// By boot and number.
    outbox: BTreeMap<(u64, u64), Sent>,
    /// Why the disk cannot be written, while it cannot.
    fault: Option<String>,
    retry_at: Option<Instant>,
    _lock: Option<std::fs::File>,
}

struct Waiting {
    kind: UpKind,
    group: Vec<u8>,
    closed: Option<Instant>,
    /// Some of it is on disk.
    on_disk: bool,
}

struct Sent {
    closed: Option<Instant>,
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
    /// Opens or creates the queue in a folder: `queue.0`, `queue.1` and `queue.lock`. `boot` is a fresh random number.
    ///
    /// # Errors
    /// [`QueueError`]; damaged files are no error, what can be read of them is kept.
    pub fn open(
        folder: &Path,
        limits: QueueLimits,
        boot: u64,
        merge: Merge,
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
        let (mut queue, recovered) = Self::on(media, limits, boot, merge);
        queue._lock = Some(lock);
        Ok((queue, recovered))
    }

    /// A queue without a disk: what is in it is lost with the process.
    pub fn in_memory(limits: QueueLimits, boot: u64, merge: Merge) -> Self {
        Self::on([Box::new(Nowhere), Box::new(Nowhere)], limits, boot, merge).0
    }

    /// A queue on two media.
    pub fn on(
        media: [Box<dyn Medium>; 2],
        limits: QueueLimits,
        boot: u64,
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
                            waiting.insert(id, Waiting { kind, group, closed: None, on_disk: true });
                            true
                        }
                        _ => false,
                    }
                }
                Some(Name::Message { boot, seq }) => {
                    let readable = decode_message(value).is_some();
                    if readable {
                        outbox.insert((boot, seq), Sent { closed: None, held: false });
                    }
                    readable
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
            boot,
            next_seq: 0,
            next_item: next_item.max(watermark),
            waiting,
            outbox,
            fault: None,
            retry_at: None,
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
        (self.waiting.len(), self.outbox.len())
    }

    /// Whether nothing is left to be sent or acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.outbox.is_empty()
    }

    /// Why entries are in memory only at the moment, if so.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Adds an item. It is on disk when this returns, unless the disk fails ([`Self::fault`]).
    ///
    /// # Errors
    /// Gives the item back when there is no room, although all that can be merged has been: the caller keeps counting
    /// into it.
    pub fn push(&mut self, item: Item, closed: Instant) -> Result<Pushed, Item> {
        let mut pushed = Pushed::default();
        if item.kind == UpKind::State {
            // Only the newest state matters.
            self.remove(|waiting| waiting.kind == UpKind::State, usize::MAX);
        }
        if item.kind == UpKind::Event {
            let events = self.waiting.values().filter(|waiting| waiting.kind == UpKind::Event).count();
            let excess = (events + 1).saturating_sub(self.limits.events);
            pushed.dropped = self.remove(|waiting| waiting.kind == UpKind::Event, excess);
        }
        while self.waiting.len() >= self.limits.items {
            if !self.merge_oldest() {
                return Err(item);
            }
            pushed.merged += 1;
        }
        loop {
            let id = self.next_item;
            let put = Change::Put(Name::Waiting(id).key(), item.encode());
            match self.commit(&[put]) {
                Ok(written) => {
                    self.next_item += 1;
                    let (kind, group, on_disk) = (item.kind, item.group, written != Written::No);
                    self.waiting.insert(id, Waiting { kind, group, closed: Some(closed), on_disk });
                    return Ok(pushed);
                }
                Err(Full) if self.merge_oldest() => pushed.merged += 1,
                Err(Full) => return Err(item),
            }
        }
    }

    /// Gives numbers to items, oldest first, as long as there is room. Called while there is a connection: without
    /// one, items had better stay mergeable. Whether there are new messages.
    pub fn admit(&mut self) -> bool {
        let mut admitted = false;
        while let Some((&id, waiting)) =
            self.waiting.iter().find(|(_, waiting)| self.may_be_numbered(waiting))
        {
            let (closed, on_disk) = (waiting.closed, waiting.on_disk);
            let room = self.room();
            if room == 0 {
                break;
            }
            let item = self.journal.entries().get(&Name::Waiting(id).key());
            let Some(mut item) = item.and_then(|bytes| Item::decode(bytes)) else {
                self.waiting.remove(&id);
                continue;
            };
            // Bodies count on their own: those that find no room go later.
            let rest = item.bodies.split_off(room.min(item.bodies.len()));
            let last = self.next_seq + item.bodies.len() as u64;
            let lowest = match rest.is_empty() {
                true => self.waiting.keys().copied().find(|other| *other != id).unwrap_or(self.next_item),
                false => id.min(self.waiting.keys().copied().next().unwrap_or(id)),
            };
            let mut changes = vec![Change::Put(Name::Watermark.key(), lowest.to_le_bytes().to_vec())];
            for (seq, body) in (self.next_seq..).zip(&item.bodies) {
                let name = Name::Message { boot: self.boot, seq };
                changes.push(Change::Put(name.key(), encode_message(item.kind, body)));
            }
            let complete = rest.is_empty();
            changes.push(match complete {
                true => Change::Delete(Name::Waiting(id).key()),
                false => Change::Put(Name::Waiting(id).key(), Item { bodies: rest, ..item }.encode()),
            });
            let Ok(written) = self.commit(&changes) else { break };
            if complete {
                self.waiting.remove(&id);
            }
            let held = on_disk && written != Written::Durable;
            for seq in self.next_seq..last {
                self.outbox.insert((self.boot, seq), Sent { closed, held });
            }
            self.next_seq = last;
            admitted = true;
        }
        admitted
    }

    /// Forgets the messages that an acknowledgement covers; how many.
    pub fn acknowledge(&mut self, ack: &Ack) -> usize {
        let of_boot = self.outbox.range((ack.boot, 0)..=(ack.boot, u64::MAX));
        let covered: Vec<(u64, u64)> =
            of_boot.map(|(key, _)| *key).filter(|(_, seq)| ack.covers(*seq)).collect();
        let delete = |&(boot, seq): &(u64, u64)| Change::Delete(Name::Message { boot, seq }.key());
        let changes: Vec<Change> = covered.iter().map(delete).collect();
        if changes.is_empty() || self.commit(&changes).is_err() {
            return 0;
        }
        covered.iter().for_each(|key| drop(self.outbox.remove(key)));
        covered.len()
    }

    /// Messages that may be sent, those of earlier boots first, each boot in the order of its numbers.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let (now, earlier) = (self.boot, self.outbox.iter().filter(|(key, _)| key.0 != self.boot));
        let this = self.outbox.range((now, 0)..=(now, u64::MAX));
        let mut oldest = (None, 0);
        earlier.chain(this).filter_map(move |(&(boot, seq), sent)| {
            if oldest.0 != Some(boot) {
                oldest = (Some(boot), seq);
            }
            let (kind, body) =
                decode_message(self.journal.entries().get(&Name::Message { boot, seq }.key())?)?;
            let message = Message { boot, seq, oldest: oldest.1, kind, body, closed: sent.closed };
            (!sent.held).then_some(message)
        })
    }

    /// Tries a failed disk again, now and then. Whether entries have become durable by that.
    pub fn maintain(&mut self, now: Instant) -> bool {
        if self.journal.is_durable() || self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        self.retry_at = Some(now + RETRY);
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

    /// How many messages may be numbered.
    fn room(&self) -> usize {
        let of_this_boot = self.outbox.range((self.boot, 0)..=(self.boot, u64::MAX));
        let oldest = of_this_boot.map(|((_, seq), _)| *seq).next().unwrap_or(self.next_seq);
        let window = (oldest + limits::WINDOW).saturating_sub(self.next_seq);
        self.limits.messages.saturating_sub(self.outbox.len()).min(window as usize)
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
                self.outbox.values_mut().for_each(|sent| sent.held = false);
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
        ids.iter().for_each(|id| drop(self.waiting.remove(id)));
        ids.len()
    }

    /// Merges the two oldest items of one group. `false` when there are none.
    fn merge_oldest(&mut self) -> bool {
        let mut refused = BTreeSet::new();
        let ids: Vec<u64> = self.waiting.keys().copied().collect();
        for (index, first) in ids.iter().enumerate() {
            let Some(waiting) = self.waiting.get(first) else { continue };
            let group = (waiting.kind, waiting.group.clone());
            if refused.contains(&group) {
                continue;
            }
            let same = |id: &&u64| {
                self.waiting.get(id).is_some_and(|other| (other.kind, &other.group) == (group.0, &group.1))
            };
            let Some(second) = ids[index + 1..].iter().find(same) else { continue };
            match self.merge_pair(*first, *second) {
                Some(()) => return true,
                None => refused.insert(group),
            };
        }
        false
    }

    /// Puts both items in the place of the younger one, so that the watermark stays true.
    fn merge_pair(&mut self, first: u64, second: u64) -> Option<()> {
        let item =
            |id| self.journal.entries().get(&Name::Waiting(id).key()).and_then(|bytes| Item::decode(bytes));
        let (older, younger) = (item(first)?, item(second)?);
        let bodies = (self.merge)(older.kind, &older.bodies, &younger.bodies)?;
        let merged = Item { bodies, ..younger };
        let changes = [
            Change::Delete(Name::Waiting(first).key()),
            Change::Put(Name::Waiting(second).key(), merged.encode()),
        ];
        let written = self.commit(&changes).ok()?;
        let older = self.waiting.remove(&first)?;
        let younger = self.waiting.get_mut(&second)?;
        younger.on_disk |= older.on_disk || written != Written::No;
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
