use dunlin_protocol::{SequenceWindow, Verdict};
use proptest::prelude::*;

use super::super::testing::Disk;
use super::*;

/// A sum that refuses to be merged; more than random steps ever add up to.
const POISON: u64 = 1_000_003;

/// Bodies are numbers; merging adds them.
fn add(_: UpKind, _: usize, a: &[Vec<u8>], b: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let sum = total(a).checked_add(total(b))?;
    (sum != POISON).then(|| vec![sum.to_le_bytes().to_vec()])
}

fn number(body: &[u8]) -> u64 {
    u64::from_le_bytes(body.try_into().unwrap())
}

fn total(bodies: &[Vec<u8>]) -> u64 {
    bodies.iter().map(|body| number(body)).sum()
}

fn window(group: &str, bodies: &[u64]) -> Item {
    let bodies = bodies.iter().map(|number| number.to_le_bytes().to_vec()).collect();
    Item { kind: UpKind::Report, group: group.into(), bodies }
}

const LIMITS: QueueLimits = QueueLimits { file_bytes: 16 << 10, items: 6, events: 3 };

fn open(disks: &[Disk; 2], boot: u64) -> (Queue, Recovered) {
    Queue::on([Box::new(disks[0].clone()), Box::new(disks[1].clone())], LIMITS, boot, 1024, add)
}

fn disks() -> [Disk; 2] {
    [Disk::default(), Disk::default()]
}

/// Everything that the queue holds.
fn held(queue: &Queue) -> u64 {
    let items = queue.waiting.keys().map(|id| total(&queue.item(*id).unwrap().bodies));
    let messages = queue.outbox.keys().map(|key| {
        let bytes = &queue.journal.entries()[&Name::of_message(*key).key()];
        number(decode_message(bytes).unwrap().1)
    });
    let backlog = queue.backlog.iter().map(|(item, _)| total(&item.bodies));
    items.chain(messages).chain(backlog).sum()
}

fn push(queue: &mut Queue, item: Item) {
    queue.push(item, 5);
}

/// A device: a queue, and what the state machine of the protocol knows about numbers.
struct Device {
    queue: Queue,
    next_seq: u64,
}

impl Device {
    fn new(disks: &[Disk; 2], boot: u64) -> Self {
        Device { queue: open(disks, boot).0, next_seq: 0 }
    }

    fn oldest(&self, boot: u64) -> u64 {
        let own = self.queue.outbox.keys().filter(|key| key.boot == boot);
        own.map(|key| key.seq).min().unwrap_or(self.next_seq)
    }

    fn admit(&mut self) {
        loop {
            let room = (self.oldest(self.queue.boot()) + 64).saturating_sub(self.next_seq);
            let Some(admitted) = self.queue.admit(self.next_seq, room as u16) else { break };
            self.next_seq += u64::from(admitted.messages);
            if admitted.messages == 0 {
                break;
            }
        }
    }

    /// Boot, number, oldest number and value of what may be sent.
    fn messages(&self) -> Vec<(u64, u64, u64, u64)> {
        let ready = self.queue.messages().filter_map(|(key, _)| match self.queue.body(key) {
            Body::Ready(body) => Some((key.boot, key.seq, self.oldest(key.boot), number(body))),
            _ => None,
        });
        ready.collect()
    }
}

#[test]
fn items_become_messages_and_go_when_they_are_acknowledged() {
    let disks = disks();
    let mut device = Device::new(&disks, 7);
    push(&mut device.queue, window("kws", &[1, 2]));
    push(&mut device.queue, window("kws", &[4]));
    assert_eq!(device.messages(), []);
    device.admit();
    assert_eq!(device.messages(), [(7, 0, 0, 1), (7, 1, 0, 2), (7, 2, 0, 4)]);
    // 0 and 2 are committed, 1 is not.
    assert_eq!(device.queue.acknowledge(&Ack { boot: 7, base: 1, bitmap: 1 }), 2);
    assert_eq!(device.messages(), [(7, 1, 1, 2)]);

    // A restart: the message keeps its boot and number, new ones get others.
    let (_, recovered) = open(&disks, 8);
    assert_eq!(recovered, Recovered { items: 0, messages: 1, corrupted: 0 });
    let mut device = Device::new(&disks, 8);
    push(&mut device.queue, window("kws", &[8]));
    device.admit();
    assert_eq!(device.messages(), [(7, 1, 1, 2), (8, 0, 0, 8)]);
    let queue = &mut device.queue;
    assert_eq!(queue.acknowledge(&Ack { boot: 9, base: 99, bitmap: 0 }), 0);
    queue.acknowledge(&Ack { boot: 8, base: 1, bitmap: 0 });
    queue.acknowledge(&Ack { boot: 7, base: 2, bitmap: 0 });
    assert!(queue.is_empty());
    assert_eq!(queue.body(MessageKey { boot: 7, seq: 1 }), Body::Unknown);
}

#[test]
fn a_full_queue_merges_the_oldest_of_one_group() {
    let disks = disks();
    let (mut queue, _) = open(&disks, 1);
    for n in 0..20_u64 {
        push(&mut queue, window(if n % 2 == 0 { "even" } else { "odd" }, &[1 << n]));
        assert_eq!(queue.merged(), n.saturating_sub(5));
        assert_eq!(held(&queue), (2 << n) - 1);
    }
    assert_eq!(held(&open(&disks, 2).0), (1 << 20) - 1);
}

#[test]
fn what_cannot_be_merged_is_kept_in_memory_until_there_is_room() {
    let disks = disks();
    let mut device = Device::new(&disks, 1);
    for n in 0..6 {
        push(&mut device.queue, window(&format!("{n}"), &[1]));
    }
    for _ in 0..3 {
        push(&mut device.queue, window("another", &[10]));
    }
    assert_eq!((device.queue.backlog.len(), held(&device.queue)), (1, 36));
    assert!(!device.queue.is_empty());
    device.admit();
    assert_eq!((device.queue.backlog.len(), held(&device.queue)), (0, 36));
    assert_eq!(held(&open(&disks, 2).0), 36);
    // A pair that refuses to be merged does not stop another one, be it of its own group.
    for (group, n) in [("a", 5), ("b", 2)] {
        let (mut queue, _) = open(&self::disks(), 1);
        push(&mut queue, window(group, &[n]));
        for (group, n) in [("a", POISON - 3), ("a", 3), (group, n), ("c", 3), ("d", 4), ("e", 5)] {
            push(&mut queue, window(group, &[n]));
        }
        assert_eq!((queue.merged(), queue.backlog.len()), (1, 0), "{group}");
        assert_eq!(held(&queue), POISON + 2 * n + 12);
    }
}

#[test]
fn only_the_newest_state_waits_and_old_events_give_way() {
    let mut device = Device::new(&disks(), 1);
    let item = |kind, n: u64| Item { kind, group: vec![], bodies: vec![n.to_le_bytes().to_vec()] };
    assert!(!device.queue.urgent());
    for n in 0..5 {
        push(&mut device.queue, item(UpKind::State, n));
        push(&mut device.queue, item(UpKind::Event, 10 + n));
        assert_eq!(device.queue.dropped(), n.saturating_sub(2));
    }
    assert!(device.queue.urgent());
    device.admit();
    assert_eq!(device.messages().iter().map(|m| m.3).collect::<Vec<_>>(), [12, 13, 4, 14]);
}

#[test]
fn a_window_of_sixty_four_is_never_exceeded() {
    let mut device = Device::new(&disks(), 1);
    let numbers = |device: &Device| device.messages().iter().map(|m| m.1).collect::<Vec<_>>();
    push(&mut device.queue, window("kws", &[1; 100]));
    device.admit();
    assert_eq!(numbers(&device), (0..64).collect::<Vec<_>>());
    // 1 to 63 are committed, 0 is not: nothing may follow.
    device.queue.acknowledge(&Ack { boot: 1, base: 0, bitmap: (1 << 63) - 1 });
    device.admit();
    assert_eq!(numbers(&device), [0]);
    device.queue.acknowledge(&Ack { boot: 1, base: 64, bitmap: 0 });
    device.admit();
    assert_eq!(numbers(&device), (64..100).collect::<Vec<_>>());
}

#[test]
fn what_is_on_disk_is_not_sent_under_a_number_that_is_not() {
    let disks = disks();
    let mut device = Device::new(&disks, 1);
    push(&mut device.queue, window("kws", &[1]));
    disks.iter().for_each(|disk| disk.state().failing = true);
    // The disk dies before the number is on it: the count would be sent again after a crash.
    device.admit();
    assert_eq!(device.messages(), []);
    assert!(device.queue.fault().is_some());
    // What never reached the disk may go.
    push(&mut device.queue, window("kws", &[2]));
    device.admit();
    let sent: u64 = device.messages().iter().map(|m| m.3).sum();
    assert_eq!(sent, 2);
    // A crash now: the server has 2, the disk has 1.
    let (after, _) = open(&disks.each_ref().map(Disk::copy), 2);
    assert_eq!(held(&after) + sent, 3);
    // No crash, and the disk works again: both go.
    disks.iter().for_each(|disk| disk.state().failing = false);
    assert!(device.queue.maintain(1));
    assert!(!device.queue.maintain(1));
    device.admit();
    assert_eq!(device.queue.fault(), None);
    assert_eq!(device.messages().iter().map(|m| m.3).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(held(&open(&disks, 3).0), 3);
}

#[test]
fn a_full_disk_is_survived_in_memory() {
    let disks = disks();
    disks.iter().for_each(|disk| disk.state().space = Some(100));
    let mut device = Device::new(&disks, 1);
    assert!(device.queue.fault().is_some());
    for n in 0..20 {
        push(&mut device.queue, window("kws", &[1 << n]));
    }
    device.admit();
    assert_eq!(device.messages().iter().map(|m| m.3).sum::<u64>(), (1 << 20) - 1);
    disks.iter().for_each(|disk| disk.state().space = None);
    device.queue.maintain(1);
    assert_eq!(device.queue.fault(), None);
    assert_eq!(held(&open(&disks, 2).0), (1 << 20) - 1);
}

#[test]
fn one_folder_serves_one_agent() {
    let folder = tempfile::tempdir().unwrap();
    let first = Queue::open(folder.path(), LIMITS, 1, 1024).unwrap();
    let second = Queue::open(folder.path(), LIMITS, 2, 1024);
    assert!(matches!(second, Err(QueueError::InUse { .. })));
    drop(first);
    Queue::open(folder.path(), LIMITS, 3, 1024).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Admit,
    /// Some messages arrive and are committed; the acknowledgement is lost.
    Deliver(u8),
    Acknowledge,
    /// Power goes; this many bytes of what was not synced are on disk.
    Crash(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Push),
        2 => Just(Step::Admit),
        2 => any::<u8>().prop_map(Step::Deliver),
        1 => Just(Step::Acknowledge),
        1 => any::<u16>().prop_map(Step::Crash),
    ]
}

proptest! {
    /// Whatever happens in whatever order, the server's sum and the queue's are what was pushed.
    #[test]
    fn nothing_is_lost_and_nothing_counts_twice(steps in prop::collection::vec(step(), 1..120)) {
        let disks = disks();
        let mut boot = 1;
        let mut device = Device::new(&disks, boot);
        let mut server = Server::default();
        let mut pushed = 0;
        for step in steps {
            match step {
                Step::Push(n) => {
                    let item = window(if n % 3 == 0 { "a" } else { "b" }, &[u64::from(n); 2]);
                    push(&mut device.queue, item);
                    pushed += 2 * u64::from(n);
                }
                Step::Admit => device.admit(),
                Step::Deliver(pick) => {
                    let some = |(_, seq, ..): &&(u64, u64, u64, u64)| (seq * 7 + u64::from(pick)) % 3 != 0;
                    device.messages().iter().filter(some).for_each(|message| server.receive(*message));
                }
                Step::Acknowledge => server.acknowledge(&mut device.queue),
                Step::Crash(kept) => {
                    disks.iter().for_each(|disk| disk.crash(usize::from(kept)));
                    boot += 1;
                    device = Device::new(&disks, boot);
                }
            }
        }
        // In the end everything arrives.
        for _ in 0..100 {
            device.admit();
            device.messages().iter().for_each(|message| server.receive(*message));
            server.acknowledge(&mut device.queue);
        }
        prop_assert!(device.queue.is_empty());
        prop_assert_eq!(server.applied, pushed);
    }
}

/// The control plane: its windows by boot, and the sum of what it has applied.
#[derive(Default)]
struct Server {
    windows: BTreeMap<u64, SequenceWindow>,
    applied: u64,
}

impl Server {
    fn receive(&mut self, (boot, seq, oldest, value): (u64, u64, u64, u64)) {
        match self.windows.entry(boot).or_default().apply(seq, oldest) {
            Verdict::Fresh => self.applied += value,
            Verdict::Duplicate => {}
            Verdict::Malformed => panic!("boot {boot}, number {seq}, oldest {oldest}"),
        }
    }

    fn acknowledge(&self, queue: &mut Queue) {
        for (boot, window) in &self.windows {
            queue.acknowledge(&window.ack(*boot));
        }
    }
}
