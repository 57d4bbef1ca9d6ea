use proptest::prelude::*;

use super::super::testing::Disk;
use super::*;

/// Bodies are numbers; merging adds them.
fn add(_: UpKind, a: &[Vec<u8>], b: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    Some(vec![(total(a) + total(b)).to_le_bytes().to_vec()])
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

const LIMITS: QueueLimits = QueueLimits { file_bytes: 16 << 10, items: 6, events: 3, messages: 70 };

fn open(disks: &[Disk; 2], boot: u64) -> (Queue, Recovered) {
    Queue::on([Box::new(disks[0].clone()), Box::new(disks[1].clone())], LIMITS, boot, add)
}

fn disks() -> [Disk; 2] {
    [Disk::default(), Disk::default()]
}

/// Everything that the queue holds.
fn held(queue: &Queue) -> u64 {
    let items = queue.waiting.keys().map(|id| {
        let bytes = &queue.journal.entries()[&Name::Waiting(*id).key()];
        total(&Item::decode(bytes).unwrap().bodies)
    });
    let messages = queue.outbox.keys().map(|&(boot, seq)| {
        let bytes = &queue.journal.entries()[&Name::Message { boot, seq }.key()];
        number(decode_message(bytes).unwrap().1)
    });
    items.sum::<u64>() + messages.sum::<u64>()
}

fn push(queue: &mut Queue, item: Item) -> Result<Pushed, Item> {
    queue.push(item, Instant::now())
}

#[test]
fn items_become_messages_and_go_when_they_are_acknowledged() {
    let disks = disks();
    let (mut queue, _) = open(&disks, 7);
    push(&mut queue, window("kws", &[1, 2])).unwrap();
    push(&mut queue, window("kws", &[4])).unwrap();
    assert!(queue.messages().next().is_none());
    assert!(queue.admit());
    assert!(!queue.admit());
    let seen: Vec<_> = queue.messages().map(|m| (m.boot, m.seq, m.oldest, number(m.body))).collect();
    assert_eq!(seen, [(7, 0, 0, 1), (7, 1, 0, 2), (7, 2, 0, 4)]);
    // 0 and 2 are committed, 1 is not.
    assert_eq!(queue.acknowledge(&Ack { boot: 7, base: 1, bitmap: 1 }), 2);
    let seen: Vec<_> = queue.messages().map(|m| (m.seq, m.oldest)).collect();
    assert_eq!(seen, [(1, 1)]);

    // A restart: the message keeps its boot and number, new ones get others.
    let (mut queue, recovered) = open(&disks, 8);
    assert_eq!(recovered, Recovered { items: 0, messages: 1, corrupted: 0 });
    push(&mut queue, window("kws", &[8])).unwrap();
    queue.admit();
    let seen: Vec<_> = queue.messages().map(|m| (m.boot, m.seq, m.oldest, m.closed.is_some())).collect();
    assert_eq!(seen, [(7, 1, 1, false), (8, 0, 0, true)]);
    assert_eq!(queue.acknowledge(&Ack { boot: 9, base: 99, bitmap: 0 }), 0);
    queue.acknowledge(&Ack { boot: 8, base: 1, bitmap: 0 });
    queue.acknowledge(&Ack { boot: 7, base: 2, bitmap: 0 });
    assert!(queue.is_empty());
}

#[test]
fn a_full_queue_merges_the_oldest_of_one_group() {
    let disks = disks();
    let (mut queue, _) = open(&disks, 1);
    for n in 0..20 {
        let pushed = push(&mut queue, window(if n % 2 == 0 { "even" } else { "odd" }, &[1 << n])).unwrap();
        assert_eq!(pushed.merged, usize::from(n >= 6));
        assert_eq!(held(&queue), (2 << n) - 1);
    }
    assert_eq!(held(&open(&disks, 2).0), (1 << 20) - 1);
}

#[test]
fn items_that_cannot_be_merged_are_given_back() {
    let (mut queue, _) = open(&disks(), 1);
    for n in 0..6 {
        push(&mut queue, window(&format!("{n}"), &[1])).unwrap();
    }
    let item = window("another", &[1]);
    assert_eq!(push(&mut queue, item.clone()), Err(item));
    push(&mut queue, window("0", &[1])).unwrap_err();
}

#[test]
fn only_the_newest_state_waits_and_old_events_give_way() {
    let (mut queue, _) = open(&disks(), 1);
    let item = |kind, n: u64| Item { kind, group: vec![], bodies: vec![n.to_le_bytes().to_vec()] };
    for n in 0..5 {
        push(&mut queue, item(UpKind::State, n)).unwrap();
        let pushed = push(&mut queue, item(UpKind::Event, 10 + n)).unwrap();
        assert_eq!(pushed.dropped, usize::from(n >= 3));
    }
    queue.admit();
    let seen: Vec<_> = queue.messages().map(|m| number(m.body)).collect();
    assert_eq!(seen, [12, 13, 4, 14]);
}

#[test]
fn a_window_of_sixty_four_is_never_exceeded() {
    let (mut queue, _) = open(&disks(), 1);
    push(&mut queue, window("kws", &[1; 100])).unwrap();
    queue.admit();
    assert_eq!(queue.messages().count(), 64);
    // 1 to 63 are committed, 0 is not: nothing may follow.
    queue.acknowledge(&Ack { boot: 1, base: 0, bitmap: (1 << 63) - 1 });
    queue.admit();
    assert_eq!(queue.messages().map(|m| m.seq).collect::<Vec<_>>(), [0]);
    queue.acknowledge(&Ack { boot: 1, base: 64, bitmap: 0 });
    queue.admit();
    assert_eq!(queue.messages().map(|m| m.seq).collect::<Vec<_>>(), (64..100).collect::<Vec<_>>());
}

#[test]
fn what_is_on_disk_is_not_sent_under_a_number_that_is_not() {
    let disks = disks();
    let (mut queue, _) = open(&disks, 1);
    push(&mut queue, window("kws", &[1])).unwrap();
    disks.iter().for_each(|disk| disk.state().failing = true);
    // The disk dies before the number is on it: the count would be sent again after a crash.
    queue.admit();
    assert_eq!(queue.messages().count(), 0);
    assert!(queue.fault().is_some());
    // What never reached the disk may go.
    push(&mut queue, window("kws", &[2])).unwrap();
    queue.admit();
    assert_eq!(queue.messages().map(|m| number(m.body)).collect::<Vec<_>>(), [2]);
    let sent: u64 = 2;
    // A crash now: the server has 2, the disk has 1.
    let (after, _) = open(&disks.each_ref().map(Disk::copy), 2);
    assert_eq!(held(&after) + sent, 3);
    // No crash, and the disk works again: both go.
    disks.iter().for_each(|disk| disk.state().failing = false);
    assert!(queue.maintain(Instant::now()));
    queue.admit();
    assert_eq!(queue.fault(), None);
    assert_eq!(queue.messages().map(|m| number(m.body)).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(held(&open(&disks, 3).0), 3);
}

#[test]
fn a_full_disk_is_survived_in_memory() {
    let disks = disks();
    disks.iter().for_each(|disk| disk.state().space = Some(100));
    let (mut queue, _) = open(&disks, 1);
    assert!(queue.fault().is_some());
    for n in 0..20 {
        push(&mut queue, window("kws", &[1 << n])).unwrap();
    }
    queue.admit();
    assert_eq!(queue.messages().map(|m| number(m.body)).sum::<u64>(), (1 << 20) - 1);
    disks.iter().for_each(|disk| disk.state().space = None);
    queue.maintain(Instant::now());
    assert_eq!(queue.fault(), None);
    assert_eq!(held(&open(&disks, 2).0), (1 << 20) - 1);
}

#[test]
fn one_folder_serves_one_agent() {
    let folder = tempfile::tempdir().unwrap();
    let first = Queue::open(folder.path(), LIMITS, 1, add).unwrap();
    let second = Queue::open(folder.path(), LIMITS, 2, add);
    assert!(matches!(second, Err(QueueError::InUse { .. })));
    drop(first);
    Queue::open(folder.path(), LIMITS, 3, add).unwrap();
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
        let (mut queue, _) = open(&disks, boot);
        // Per boot: what the server has applied, and its window.
        let mut server: BTreeMap<u64, dunlin_protocol::SequenceWindow> = BTreeMap::new();
        let (mut pushed, mut applied) = (0, 0);
        for step in steps {
            match step {
                Step::Push(n) => {
                    push(&mut queue, window(if n % 3 == 0 { "a" } else { "b" }, &[u64::from(n); 2])).unwrap();
                    pushed += 2 * u64::from(n);
                }
                Step::Admit => drop(queue.admit()),
                Step::Deliver(pick) => {
                    for message in queue.messages() {
                        if (message.seq * 7 + u64::from(pick)) % 3 != 0 {
                            let window = server.entry(message.boot).or_default();
                            match window.apply(message.seq, message.oldest) {
                                dunlin_protocol::Verdict::Fresh => applied += number(message.body),
                                dunlin_protocol::Verdict::Duplicate => {}
                                dunlin_protocol::Verdict::Malformed => prop_assert!(false, "{message:?}"),
                            }
                        }
                    }
                }
                Step::Acknowledge => {
                    for (boot, window) in &server {
                        queue.acknowledge(&window.ack(*boot));
                    }
                }
                Step::Crash(kept) => {
                    disks.iter().for_each(|disk| disk.crash(usize::from(kept)));
                    boot += 1;
                    queue = open(&disks, boot).0;
                }
            }
        }
        // In the end everything arrives.
        for _ in 0..100 {
            queue.admit();
            for message in queue.messages() {
                if server.entry(message.boot).or_default().apply(message.seq, message.oldest)
                    == dunlin_protocol::Verdict::Fresh
                {
                    applied += number(message.body);
                }
            }
            for (boot, window) in &server {
                queue.acknowledge(&window.ack(*boot));
            }
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(applied, pushed);
    }
}
