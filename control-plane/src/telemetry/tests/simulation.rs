//! Fleets, networks, clocks and processes that fail in every way, against the pure core and a store in memory that
//! checks what the database checks. At the end every message counts once, or was given up and counts as lost.

use std::collections::{BTreeMap, HashMap};

use dunlin_protocol::{Ack, Label, LabelCount, List};

use super::devices::{START_US, bodies, message, received, sum, window};
use crate::bus::UpKind;
use crate::telemetry::aggregate::Aggregate;
use crate::telemetry::ingest::{
    Counters, Decoded, Horizon, Ingest, Moment, PartKey, Plan, Received, Sequence, SequenceKey, decode, plan,
};

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One boot of a device with its outbox.
struct Boot {
    boot: u64,
    next: u64,
    outbox: BTreeMap<u64, (UpKind, Vec<u8>)>,
}

struct Device {
    id: String,
    boots: Vec<Boot>,
    clock_s: i64,
}

/// The database, as far as ingest depends on it.
#[derive(Default)]
struct Store {
    processes: BTreeMap<String, Counters>,
    ended: Counters,
    sequences: HashMap<SequenceKey, Sequence>,
    parts: BTreeMap<String, (String, bool, PartKey, Vec<u8>)>,
    rolled: BTreeMap<(i64, i64), Aggregate>,
    labels: u64,
}

#[derive(Debug, PartialEq)]
enum Refused {
    TakenOver,
    Stale,
}

impl Store {
    fn apply(&mut self, process: &str, plan: &Plan, counters: Counters) -> Result<(), Refused> {
        if !self.processes.contains_key(process) {
            return Err(Refused::TakenOver);
        }
        let version = |key| self.sequences.get(key).map_or(0, |sequence: &Sequence| sequence.version);
        if plan.sequences.iter().any(|(key, sequence)| version(key) != sequence.version - 1) {
            return Err(Refused::Stale);
        }
        self.processes.insert(process.to_owned(), counters);
        self.sequences.extend(plan.sequences.iter().map(|(key, sequence)| (key.clone(), *sequence)));
        for (key, part) in &plan.parts {
            let row = (process.to_owned(), false, key.clone(), part.sums.encode());
            if let Some((owner, sealed, ..)) = self.parts.insert(part.id.to_string(), row) {
                assert!(
                    owner == process && !sealed,
                    "a part of another process, or a sealed one, was written"
                );
            }
        }
        self.labels += plan.labels.values().sum::<u64>();
        Ok(())
    }

    fn end(&mut self, process: &str) {
        if let Some(counters) = self.processes.remove(process) {
            self.ended.add(&counters);
            self.parts.values_mut().filter(|part| part.0 == process).for_each(|part| part.1 = true);
        }
    }

    fn roll_up(&mut self) {
        self.parts.retain(|_, (_, sealed, key, bytes)| {
            if *sealed {
                for seconds in [60, 3_600, 86_400] {
                    let start_us = key.minute_us.div_euclid(seconds * 1_000_000);
                    let sum = self.rolled.entry((seconds, start_us)).or_default();
                    sum.merge(&Aggregate::decode(bytes).expect("a sum"));
                }
            }
            !*sealed
        });
    }

    fn total(&self, seconds: i64) -> Aggregate {
        let mut total = Aggregate::default();
        self.parts.values().for_each(|part| total.merge(&Aggregate::decode(&part.3).expect("a sum")));
        self.rolled.iter().filter(|((level, _), _)| *level == seconds).for_each(|(_, sum)| total.merge(sum));
        total
    }

    fn counters(&self) -> Counters {
        let mut sum = self.ended;
        self.processes.values().for_each(|counters| sum.add(counters));
        sum
    }
}

struct Process {
    name: String,
    ingest: Ingest,
    queue: Vec<Received>,
    locked: bool,
}

struct World {
    random: Random,
    store: Store,
    processes: [Process; 2],
    devices: Vec<Device>,
    /// Bodies of all reports that devices gave a number.
    reports: Vec<Vec<u8>>,
    labels: u64,
    messages: u64,
    lost: u64,
    ids: u64,
    now_us: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        let process = |name: &str| Process {
            name: name.to_owned(),
            ingest: Ingest::new(),
            queue: Vec::new(),
            locked: false,
        };
        let processes = ["a0", "b0"].map(|name| (name.to_owned(), Counters::default())).into();
        let store = Store { processes, ..Store::default() };
        let device =
            |n| Device { id: format!("device-{n}"), boots: Vec::new(), clock_s: START_US / 1_000_000 };
        let mut world = World {
            random: Random(seed),
            store,
            processes: [process("a0"), process("b0")],
            devices: (0..4).map(device).collect(),
            reports: Vec::new(),
            labels: 0,
            messages: 0,
            lost: 0,
            ids: 0,
            now_us: START_US,
        };
        (0..4).for_each(|device| world.reboot(device));
        world
    }

    fn reboot(&mut self, device: usize) {
        let boot = self.random.next();
        self.devices[device].boots.push(Boot { boot, next: 0, outbox: BTreeMap::new() });
    }

    fn oldest(boot: &Boot) -> u64 {
        boot.outbox.keys().next().copied().unwrap_or(boot.next)
    }

    /// A device numbers a message, if its outbox has room.
    fn produce(&mut self, device: usize) {
        let (n, us, is_label) =
            (self.random.below(50) as u32, self.random.next() % 5_000, self.random.one_in(8));
        let device = &mut self.devices[device];
        let Some(boot) = device.boots.last_mut() else { return };
        if boot.next >= Self::oldest(boot) + 64 {
            return;
        }
        self.messages += 1;
        let body = if is_label {
            self.labels += u64::from(n) + 1;
            let entries =
                [LabelCount { predicted: 1, label: n % 3, confidence_bin: 9, count: u64::from(n) + 1 }];
            let mut out = vec![0; 200];
            let label = Label { slot: "kws", model: [1; 32], entries: List::from(entries.as_slice()) };
            let len = label.encode(&mut out).expect("a label");
            (UpKind::Label, out[..len].to_vec())
        } else {
            let start = u64::try_from(device.clock_s).unwrap_or(0);
            let body = bodies(&window(n, us, start), 1000).remove(0);
            self.reports.push(body.clone());
            (UpKind::Report, body)
        };
        boot.outbox.insert(boot.next, body);
        boot.next += 1;
    }

    /// A device sends something from its outboxes, once or twice, to one process or both, or the network loses it.
    fn send(&mut self, device: usize) {
        let which = self.random.below(self.devices[device].boots.len());
        let boot = &self.devices[device].boots[which];
        if boot.outbox.is_empty() {
            return;
        }
        let place = self.random.below(boot.outbox.len());
        let Some((seq, (kind, body))) = boot.outbox.iter().nth(place) else { return };
        let age_s = self.random.below(4) as u32 * 40;
        let bytes = message(boot.boot, *seq, Self::oldest(boot), age_s, body);
        for _ in 0..self.random.below(3) {
            let process = self.random.below(2);
            let message = received(&self.devices[device].id, *kind, bytes.clone());
            self.processes[process].queue.push(message);
        }
    }

    /// A device loses a message that it had given a number.
    fn lose(&mut self, device: usize) {
        let device = &mut self.devices[device];
        let Some(boot) = device.boots.last_mut() else { return };
        let Some((seq, (kind, body))) = boot.outbox.pop_first() else { return };
        let key = (received(&device.id, kind, Vec::new()).device, boot.boot);
        if self.store.sequences.get(&key).is_some_and(|sequence| sequence.window.contains(seq)) {
            return;
        }
        // It may still be on its way to a process; here it is lost there too.
        for process in &mut self.processes {
            process.queue.retain(|queued| {
                dunlin_protocol::Envelope::decode(&queued.payload)
                    .is_ok_and(|(envelope, _)| (envelope.boot, envelope.seq) != (key.1, seq))
            });
        }
        self.messages -= 1;
        self.lost += 1;
        match kind {
            UpKind::Report => {
                let place = self.reports.iter().position(|report| *report == body).expect("a report");
                self.reports.swap_remove(place);
            }
            _ => {
                self.labels -=
                    Label::decode(&body).expect("a label").entries.iter().map(|e| e.count).sum::<u64>()
            }
        }
    }

    /// A process takes a batch and something may go wrong at any place.
    fn batch(&mut self, which: usize, faults: bool) {
        let process = &mut self.processes[which];
        let n = 1 + self.random.below(process.queue.len());
        // Any order.
        for place in (1..process.queue.len()).rev() {
            process.queue.swap(place, self.random.below(place + 1));
        }
        let batch: Vec<Received> = process.queue.drain(..n.min(process.queue.len())).collect();
        let decoded: Vec<Decoded<'_>> = batch.iter().map(decode).collect();
        // As the database: what is not in memory is read, or everything is.
        let known: HashMap<SequenceKey, Sequence> = decoded
            .iter()
            .filter_map(|message| Some((message.received.device.clone(), message.envelope?.boot)))
            .filter(|key| process.locked || process.ingest.sequences.get(key).is_none())
            .filter_map(|key| Some((key.clone(), *self.store.sequences.get(&key)?)))
            .collect();
        let ids = std::cell::Cell::new(self.ids);
        let new_id = || {
            ids.set(ids.get() + 1);
            format!("{:08}", ids.get())
        };
        let horizon = Horizon { future_us: 300_000_000, past_us: 86_400_000_000 };
        let moment = Moment { now_us: self.now_us, horizon, new_id: &new_id };
        let plan = plan(&mut process.ingest, &decoded, &known, &moment);
        self.ids = ids.get();
        let mut counters = process.ingest.counters;
        counters.add(&plan.counters);
        let fault = if faults { self.random.below(8) } else { 9 };
        if fault == 0 {
            // Killed before the commit: what it had is sent again by the devices.
            return self.kill(which);
        }
        match self.store.apply(&process.name, &plan, counters) {
            Err(Refused::Stale) => {
                process.ingest.sequences.clear();
                process.locked = true;
                process.queue.extend(batch);
            }
            Err(Refused::TakenOver) => {
                process.queue.extend(batch);
                self.kill_but_keep_the_queue(which);
            }
            // The answer to the commit is lost: begin anew with the same messages.
            Ok(()) if fault == 1 => {
                process.queue.extend(batch);
                self.kill_but_keep_the_queue(which);
            }
            // Killed after the commit, before the acknowledgements.
            Ok(()) if fault == 2 => self.kill(which),
            Ok(()) => {
                let acks: Vec<_> = plan.acks.clone();
                for (key, sequence) in known {
                    process.ingest.sequences.insert(key, sequence);
                }
                process.ingest.commit(plan);
                for (device, ack) in acks {
                    if fault != 3 {
                        self.acknowledge(device.as_str(), ack);
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, device: &str, ack: Ack) {
        let device = self.devices.iter_mut().find(|known| known.id == device).expect("a device");
        for boot in device.boots.iter_mut().filter(|boot| boot.boot == ack.boot) {
            boot.outbox.retain(|seq, _| !ack.covers(*seq));
        }
    }

    /// A process dies with its queue, is taken over, and another one starts.
    fn kill(&mut self, which: usize) {
        self.processes[which].queue.clear();
        self.kill_but_keep_the_queue(which);
    }

    fn kill_but_keep_the_queue(&mut self, which: usize) {
        self.store.end(&self.processes[which].name.clone());
        self.ids += 1;
        let process = &mut self.processes[which];
        process.name = format!("{}{}", ["a", "b"][which], self.ids);
        process.ingest = Ingest::new();
        process.locked = true;
        self.store.processes.insert(process.name.clone(), Counters::default());
    }

    /// Closes what rests, seals it and rolls it up.
    fn seal(&mut self, which: usize) {
        let process = &mut self.processes[which];
        let ids = process.ingest.parts.to_seal(self.now_us);
        process.ingest.parts.forget(&ids);
        for id in ids {
            // It is gone already when another process took this one for dead.
            if let Some(part) = self.store.parts.get_mut(&*id) {
                part.1 = true;
            }
        }
        self.store.roll_up();
    }

    fn step(&mut self) {
        let (device, which) = (self.random.below(4), self.random.below(2));
        match self.random.below(40) {
            0..12 => self.produce(device),
            12..25 => self.send(device),
            25..32 => self.batch(which, true),
            32..34 => self.seal(which),
            // Another process takes this one for dead though it lives.
            34 => self.store.end(&self.processes[which].name.clone()),
            35 if self.random.one_in(3) => self.reboot(device),
            36 => self.now_us += (self.random.below(7_200_000) as i64 - 1_800_000) * 1_000,
            37 => self.devices[device].clock_s += self.random.below(200_000) as i64 - 100_000,
            38 if self.random.one_in(2) => self.lose(device),
            39 => self.processes[which].locked = false,
            _ => self.now_us += 1_000_000,
        }
    }

    /// Nothing fails any more: everything arrives and is acknowledged.
    fn settle(&mut self) {
        for round in 0.. {
            if self.devices.iter().all(|device| device.boots.iter().all(|boot| boot.outbox.is_empty())) {
                break;
            }
            assert!(round < 2_000, "messages are never acknowledged");
            (0..4).for_each(|device| (0..20).for_each(|_| self.send(device)));
            (0..2).for_each(|which| self.batch(which, false));
        }
        // What is still on its way comes too, as duplicates.
        while let Some(which) = (0..2).find(|which| !self.processes[*which].queue.is_empty()) {
            self.batch(which, false);
        }
    }

    fn check(&self) {
        let expected = sum(&self.reports);
        for seconds in [60, 3_600, 86_400] {
            assert_eq!(self.store.total(seconds), expected, "at {seconds} s");
        }
        assert_eq!(self.store.labels, self.labels);
        let counters = self.store.counters();
        assert_eq!(counters.applied, self.messages);
        assert_eq!(
            counters.received,
            counters.applied + counters.duplicates + counters.malformed + counters.unknown
        );
        assert_eq!((counters.malformed, counters.unknown), (0, 0));
        let devices = |f: fn(&Sequence) -> u64| self.store.sequences.values().map(f).sum::<u64>();
        assert_eq!(devices(|sequence| sequence.inferences), expected.inferences);
        assert_eq!(devices(|sequence| sequence.failures), expected.failed());
        assert_eq!(devices(|sequence| sequence.reports), expected.reports);
        assert_eq!(devices(|sequence| sequence.applied), self.messages);
        assert_eq!(counters.lost, devices(|sequence| sequence.lost));
        assert!(counters.lost <= self.lost, "{} > {}", counters.lost, self.lost);
    }
}

#[test]
fn every_message_counts_once_whatever_fails() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
            // Exact at every moment: what is committed is in exactly one of parts and roll-ups.
            if world.random.one_in(100) {
                let total = world.store.total(60);
                assert_eq!(total, world.store.total(86_400), "seed {seed}");
                let reports: u64 = world.store.sequences.values().map(|sequence| sequence.reports).sum();
                assert_eq!(total.reports, reports, "seed {seed}");
            }
        }
        world.settle();
        let check = std::panic::AssertUnwindSafe(|| world.check());
        assert!(std::panic::catch_unwind(check).is_ok(), "seed {seed}");
    }
}
