//! The worker against real databases.

use std::sync::Arc;
use std::task::Poll;

use dunlin_protocol::{Ack, Event, EventKind};
use tokio_util::sync::CancellationToken;

use super::database::{Database, on_both};
use super::devices::{self, Everyone, bodies, message, received, sum, window};
use crate::access::Visible;
use crate::bus::{DeviceId, MemoryBus, Outcome, UpKind};
use crate::clock::{Clock, ManualClock};
use crate::db::Db;
use crate::http::Metrics;
use crate::telemetry::aggregate::Aggregate;
use crate::telemetry::ingest::{Horizon, Ingest, Received};
use crate::telemetry::limits;
use crate::telemetry::metrics::Handles;
use crate::telemetry::obstacle::Obstacle;
use crate::telemetry::store::batch::{BatchError, Reading, Writer, read_sequence};
use crate::telemetry::store::query::{self, Selection, Span};
use crate::telemetry::store::retention::{self, Retention};
use crate::telemetry::store::{process, rollup};
use crate::telemetry::worker::{Parts, Worker};

const HORIZON: Horizon = Horizon { future_us: 300_000_000, past_us: 90 * 86_400_000_000 };

/// Noon.
const START_US: i64 = devices::START_US + 12 * 3_600_000_000;

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// When a window began that ends now.
fn start_s() -> u64 {
    START_US.unsigned_abs() / 1_000_000 - 60
}

/// A process with a bus.
struct Process {
    bus: Arc<MemoryBus>,
    clock: Arc<ManualClock>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Process {
    fn start(db: Db) -> Self {
        let bus = Arc::new(MemoryBus::new(1_000));
        let clock = Arc::new(ManualClock::new(START_US));
        let shutdown = CancellationToken::new();
        let worker = Worker::new(Parts {
            db,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids: Arc::new(new_id),
            bus: Arc::clone(&bus) as _,
            devices: Arc::new(Everyone),
            metrics: Handles::new(&Metrics::new()),
            obstacle: Obstacle::default(),
            shutdown: shutdown.clone(),
            batch: 500,
            horizon: HORIZON,
            observer: Box::new(|_| {}),
        });
        Process { bus, clock, shutdown, task: tokio::spawn(worker.run()) }
    }

    async fn deliver(&self, device: &str, kind: UpKind, bytes: Vec<u8>) -> crate::bus::memory::Delivery {
        self.bus.deliver(&DeviceId::new(device).unwrap(), kind, bytes).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.bus.close();
        self.task.await.unwrap();
    }
}

fn day() -> Span {
    Span::around(START_US, START_US + 1, 86_400)
}

async fn totals(db: &Db) -> [Aggregate; 3] {
    let mut totals = [(); 3].map(|()| Aggregate::default());
    for (total, seconds) in totals.iter_mut().zip(rollup::LEVELS) {
        let span = Span { seconds, ..day() };
        for part in query::series(db, span, Selection::default()).await.unwrap().values() {
            total.merge(part);
        }
    }
    totals
}

async fn roll_up(db: &Db) {
    while rollup::roll_up(db).await.unwrap() > 0 {}
}

on_both! {
    /// Two processes get messages of the same devices, each message twice and in disorder; one of the processes is
    /// taken for dead in between.
    async fn two_processes_count_every_report_once(database: Database) {
        let processes = [Process::start(database.db.clone()), Process::start(database.again().await)];
        let mut expected = Vec::new();
        let mut deliveries = Vec::new();
        for round in 0..12_u64 {
            for device in 0..20_u64 {
                let start = start_s() - round * 1_000;
                let body = bodies(&window((device + round) as u32, 900 + device, start), 1_000).remove(0);
                let bytes = message(device, round ^ 1, 0, 5, &body);
                expected.push(body);
                for copy in 0..2 {
                    let process = &processes[(device + round + copy) as usize % 2];
                    let name = format!("device-{device}");
                    deliveries.push(process.deliver(&name, UpKind::Report, bytes.clone()).await);
                }
            }
            if round == 6 {
                // Everybody is taken for dead by somebody whose clock is wrong.
                for (name, heartbeat_us) in process::list(&database.db).await.unwrap() {
                    process::end(&database.db, &name, Some(heartbeat_us)).await.unwrap();
                }
                roll_up(&database.db).await;
            }
        }
        for delivery in deliveries {
            assert_eq!(delivery.outcome().await, Outcome::Committed);
        }
        let expected = sum(&expected);
        for total in totals(&database.db).await {
            assert_eq!(total, expected);
        }
        let counters = query::counters(&database.db).await.unwrap();
        assert_eq!(counters.values(), [480, 240, 240, 0, 0, 0, 0]);
        // Devices were told of everything.
        let mut acks = std::collections::BTreeMap::new();
        for sent in processes.iter().flat_map(|process| process.bus.take_sent()) {
            let ack = Ack::decode(&sent.payload).unwrap();
            let base = acks.entry(sent.device).or_insert(0);
            *base = ack.base.max(*base);
        }
        assert_eq!(acks.len(), 20);
        assert!(acks.values().all(|base| *base == 12), "{acks:?}");
        for process in processes {
            process.stop().await;
        }
        // Nothing is left of the processes but their sums.
        assert_eq!(process::list(&database.db).await.unwrap(), []);
        roll_up(&database.db).await;
        for total in totals(&database.db).await {
            assert_eq!(total, expected);
        }
        assert_eq!(query::counters(&database.db).await.unwrap(), counters);
        let device = query::device_totals(&database.db, "device-3").await.unwrap();
        assert_eq!((device.boots, device.reports, device.inferences, device.failures), (1, 12, 12 * 3 + 66, 12));
    }

    /// A process is killed between any two statements: the transaction is dropped at each of its waits.
    async fn killed_between_any_two_statements(database: Database) {
        let mut expected = Vec::new();
        let mut finished = 0;
        for kill_after in 0..200_u64 {
            let mut batch: Vec<Received> = Vec::new();
            for device in 0..3_u64 {
                let body = bodies(&window(kill_after as u32, 100, start_s()), 1_000).remove(0);
                // One boot per attempt, so that each begins from nothing.
                let bytes = message(kill_after, 0, 0, 0, &body);
                batch.push(received(&format!("device-{device}"), UpKind::Report, bytes));
                expected.push(body);
            }
            let mut ingest = Ingest::new();
            process::register(&database.db, "first", START_US).await.unwrap();
            // With connections of its own, which end with the process.
            let victim = database.again().await;
            let attempt = Writer { db: &victim, process: "first", devices: &Everyone };
            let attempt = attempt.apply(&mut ingest, &batch, &new_id, START_US, HORIZON, Reading::Optimistic);
            let killed = killed_after(kill_after, attempt).await;
            drop(victim);
            // Taken over by another process, to which the messages come again.
            process::end(&database.db, "first", None).await.unwrap();
            process::register(&database.db, "second", START_US).await.unwrap();
            let committed = Writer { db: &database.db, process: "second", devices: &Everyone }
                .apply(&mut Ingest::new(), &batch, &new_id, START_US, HORIZON, Reading::Locked)
                .await
                .unwrap();
            process::end(&database.db, "second", None).await.unwrap();
            assert_eq!(committed.acks.len(), 3);
            assert_eq!(committed.counters.applied + committed.counters.duplicates, 3);
            if let Some(first) = killed {
                first.unwrap();
                assert_eq!(committed.counters.duplicates, 3);
                finished += 1;
                if finished == 3 {
                    break;
                }
            }
        }
        assert_eq!(finished, 3, "the transaction never ended");
        let expected = sum(&expected);
        for total in totals(&database.db).await {
            assert_eq!(total, expected);
        }
    }

    /// Unreadable messages, strangers and lies become dead letters; everything else is counted.
    async fn a_poisonous_message_stops_nothing(database: Database) {
        let process = Process::start(database.db.clone());
        let body = bodies(&window(5, 100, start_s()), 1_000).remove(0);
        let event = |detail: &str| {
            let event = Event { unix_s: start_s(), slot: "kws", kind: EventKind::Reverted, value: 3, detail };
            let mut out = [0; 300];
            let len = event.encode(&mut out).unwrap();
            out[..len].to_vec()
        };
        let messages = [
            ("device-1", UpKind::Report, message(1, 0, 0, 0, &body)),
            ("device-1", UpKind::Report, b"not an envelope".to_vec()),
            ("device-1", UpKind::Report, message(1, 1, 0, 0, b"not a report")),
            ("device-1", UpKind::Event, message(1, 2, 0, 0, &event("golden vector 3"))),
            ("device-1", UpKind::Event, message(1, 3, 0, 0, &event("nul \0"))),
            ("device-1", UpKind::Report, message(1, 90, 90, 0, &body)),
            ("stranger", UpKind::Report, message(1, 0, 0, 0, &body)),
            ("device-2", UpKind::Report, message(1, 0, 0, 0, &body)),
        ];
        for (device, kind, bytes) in messages {
            let delivery = process.deliver(device, kind, bytes).await;
            assert_eq!(delivery.outcome().await, Outcome::Committed);
        }
        let counters = query::counters(&database.db).await.unwrap();
        // 86 messages of device-1 between 4 and 90 are gone for good.
        assert_eq!(counters.values(), [8, 4, 0, 3, 1, 86, 0]);
        let letters = query::letters(&database.db, Visible::All, "", "", None, 100).await.unwrap();
        let reasons: Vec<&str> = letters.iter().rev().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["envelope", "body", "text", "unknown_device"]);
        assert_eq!(letters.last().unwrap().payload, b"not an envelope");
        let events = query::events(&database.db, "device-1", None, 10).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].kind.as_str(), events[0].value), ("reverted", 3));
        // A refused body has a place in the sequence all the same: the device may forget it.
        let key = (DeviceId::new("device-1").unwrap(), 1);
        let sequence = read_sequence(&database.db, &key).await.unwrap().unwrap();
        assert_eq!((sequence.window.base(), sequence.applied), (91, 5));
        // One device cannot fill the dead letters.
        for _ in 0..20 {
            process.deliver("stranger", UpKind::Report, vec![1, 2, 3]).await.outcome().await;
        }
        let letters = query::letters(&database.db, Visible::All, "stranger", "", None, 100).await.unwrap();
        assert_eq!(letters.len(), 3);
        assert_eq!(query::counters(&database.db).await.unwrap().unknown, 21);
        assert_eq!(retention::trim_letters(&database.db, 2).await.unwrap(), 4);
        process.stop().await;
    }

    /// A device that is started too often: what is known of its boots stays exact, messages of further boots wait on
    /// the device until there is room, and then count once.
    async fn boots_beyond_the_limit_wait(database: Database) {
        process::register(&database.db, "a", START_US).await.unwrap();
        // All but two of the boots that there is room for. Boot 2 of another device is nobody's concern.
        let old_us = START_US - 1;
        sqlx::query(
            "with recursive n(boot) as (select 1000000 union all select boot + 1 from n where boot < 1000000 + $1 - 3) \
             insert into telemetry_sequences (device, boot, version, base, bitmap, applied, lost, reports, inferences, \
             failures, first_us, report_us, state_seq, updated_us) \
             select 'device-1', boot, 1, 1, 0, 1, 0, 0, 0, 0, $2, 0, -1, $2 from n",
        )
        .bind(limits::BOOTS_PER_DEVICE)
        .bind(old_us)
        .execute(database.db.write())
        .await
        .unwrap();
        let body = bodies(&window(5, 100, start_s()), 1_000).remove(0);
        let report = |device: &str, boot| received(device, UpKind::Report, message(boot, 0, 0, 0, &body));
        let batch = [
            report("device-1", 1),
            report("device-1", 2),
            report("device-1", 3),
            report("device-1", 3),
            report("device-2", 3),
        ];
        let writer = Writer { db: &database.db, process: "a", devices: &Everyone };
        let mut ingest = Ingest::new();
        let mut apply = async |batch: &[Received], reading| {
            let committed = writer.apply(&mut ingest, batch, &new_id, START_US, HORIZON, reading).await.unwrap();
            let counters = committed.counters;
            (counters.applied, counters.duplicates, counters.malformed, committed.acks.len())
        };
        // Boots 1 and 2 fit, and boot 3 of the other device; nothing says that boot 3 was received.
        assert_eq!(apply(&batch, Reading::Optimistic).await, (3, 0, 2, 3));
        let letters = query::letters(&database.db, Visible::All, "device-1", "boots", None, 10).await.unwrap();
        assert!(letters.iter().all(|letter| letter.detail.contains("started too often")) && !letters.is_empty());
        // Again, as a device does that sees no acknowledgement; and by a process that has nothing in memory.
        assert_eq!(apply(&batch, Reading::Locked).await, (0, 3, 2, 3));
        let refused = (DeviceId::new("device-1").unwrap(), 3);
        assert_eq!(read_sequence(&database.db, &refused).await.unwrap(), None);
        assert_eq!(totals(&database.db).await[0].reports, 3);
        // Old boots are forgotten, as always: there is room.
        let retention = Retention {
            levels_us: [HORIZON.past_us; 3],
            events_us: HORIZON.past_us,
            sequences_us: 0,
            letters: 10,
        };
        retention::forget(&database.db, &retention, START_US).await.unwrap();
        assert_eq!(apply(&batch, Reading::Locked).await, (1, 4, 0, 4));
        assert_eq!(totals(&database.db).await[0].reports, 4);
        let device = query::device_totals(&database.db, "device-1").await.unwrap();
        assert_eq!((device.boots, device.reports), (limits::BOOTS_PER_DEVICE + 1, 3));
    }

    /// What another process has applied is noticed at the time of writing.
    async fn a_stale_window_is_refused(database: Database) {
        let body = bodies(&window(5, 100, start_s()), 1_000).remove(0);
        let batch = |seq| [received("device-1", UpKind::Report, message(1, seq, 0, 0, &body))];
        let mut ingests = [Ingest::new(), Ingest::new()];
        let mut apply = async |which: usize, seq, reading| {
            let process = ["a", "b"][which];
            process::register(&database.db, process, START_US).await.unwrap();
            let writer = Writer { db: &database.db, process, devices: &Everyone };
            let result =
                writer.apply(&mut ingests[which], &batch(seq), &new_id, START_US, HORIZON, reading).await;
            result.map(|committed| committed.counters)
        };
        assert_eq!(apply(0, 0, Reading::Optimistic).await.unwrap().applied, 1);
        assert_eq!(apply(1, 0, Reading::Optimistic).await.unwrap().duplicates, 1);
        assert_eq!(apply(1, 1, Reading::Optimistic).await.unwrap().applied, 1);
        assert!(matches!(apply(0, 1, Reading::Optimistic).await, Err(BatchError::Stale)));
        assert_eq!(apply(0, 1, Reading::Locked).await.unwrap().duplicates, 1);
        assert_eq!(apply(0, 2, Reading::Optimistic).await.unwrap().applied, 1);
        assert!(process::end(&database.db, "a", None).await.unwrap());
        assert!(!process::end(&database.db, "a", None).await.unwrap());
        let writer = Writer { db: &database.db, process: "a", devices: &Everyone };
        let refused = writer.apply(&mut ingests[0], &batch(3), &new_id, START_US, HORIZON, Reading::Locked).await;
        assert!(matches!(refused, Err(BatchError::TakenOver)));
        assert_eq!(totals(&database.db).await[0].reports, 3);
    }

    /// Old rows go, level by level; what a device added up to stays.
    async fn retention_forgets_by_level(database: Database) {
        let process = Process::start(database.db.clone());
        let minute_us = 60_000_000;
        for (boot, days) in [(1, 0_i64), (2, 2), (3, 20), (4, 80)] {
            let now_us = START_US - days * 86_400_000_000;
            process.clock.set_us(now_us);
            let body = bodies(&window(1, 100, now_us.unsigned_abs() / 1_000_000 - 60), 1_000).remove(0);
            let delivery = process.deliver("device-1", UpKind::Report, message(boot, 0, 0, 0, &body)).await;
            assert_eq!(delivery.outcome().await, Outcome::Committed);
        }
        process.stop().await;
        roll_up(&database.db).await;
        let retention = Retention {
            levels_us: [86_400_000_000, 10 * 86_400_000_000, 50 * 86_400_000_000],
            events_us: 86_400_000_000,
            sequences_us: 50 * 86_400_000_000,
            letters: 10,
        };
        retention::forget(&database.db, &retention, START_US + minute_us).await.unwrap();
        let mut left = Vec::new();
        for seconds in rollup::LEVELS {
            let span = Span::around(START_US - 100 * 86_400_000_000, START_US + 1, seconds);
            left.push(query::series(&database.db, span, Selection::default()).await.unwrap().len());
        }
        assert_eq!(left, [1, 2, 3]);
        let device = query::device_totals(&database.db, "device-1").await.unwrap();
        assert_eq!((device.boots, device.reports, device.inferences), (4, 4, 4));
        let key = (DeviceId::new("device-1").unwrap(), 4);
        assert_eq!(read_sequence(&database.db, &key).await.unwrap(), None);
    }
}

/// A database that is full: nothing is acknowledged, nothing is lost, and it goes on when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_everything_up_and_loses_nothing() {
    let database = Database::sqlite().await;
    let process = Process::start(database.db.clone());
    let report = |n: u64| bodies(&window(n as u32, 100, start_s() - n * 60), 1_000).remove(0);
    let first = process.deliver("device-1", UpKind::Report, message(1, 0, 0, 0, &report(0))).await;
    assert_eq!(first.outcome().await, Outcome::Committed);
    // No page more than there is.
    sqlx::raw_sql("pragma max_page_count = 1").execute(database.db.write()).await.unwrap();
    let mut deliveries = Vec::new();
    for n in 1..60 {
        deliveries.push(process.deliver("device-1", UpKind::Report, message(1, n, 0, 0, &report(n))).await);
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(query::counters(&database.db).await.unwrap().applied, 1);
    let counted = totals(&database.db).await[0].reports;
    assert_eq!(counted, 1);
    sqlx::raw_sql("pragma max_page_count = 1000000").execute(database.db.write()).await.unwrap();
    for delivery in deliveries {
        assert_eq!(delivery.outcome().await, Outcome::Committed);
    }
    let expected = sum(&(0..60).map(report).collect::<Vec<_>>());
    assert_eq!(totals(&database.db).await[0], expected);
    process.stop().await;
}

/// The outcome of a future that is dropped after it was polled `polls` times without an end; `None` when it was
/// dropped.
async fn killed_after<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}
