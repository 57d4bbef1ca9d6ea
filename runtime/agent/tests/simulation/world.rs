//! Time, network and faults.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dunlin_agent::uplink::{DownCause, Event};
use dunlin_protocol::{Ack, Desired, UpKind};

use crate::device::{Device, Wish};
use crate::random::Random;
use crate::server::Server;

/// How long there are faults and new windows, in milliseconds; afterwards everything must come to rest.
const FAULTS_MS: u64 = 120_000;
/// By then nothing may be outstanding.
const END_MS: u64 = FAULTS_MS + 300_000;

/// After which a transport notices by itself that a connection is dead, if the device has nothing to say.
const KEEP_ALIVE_MS: u64 = 60_000;

/// What happens at a time.
#[derive(Debug)]
enum Happening {
    /// A device's timer.
    Tick {
        device: usize,
    },
    CloseWindow {
        device: usize,
    },
    /// The broker's answers, over one connection.
    Connected {
        device: usize,
        connection: u64,
    },
    Refused {
        device: usize,
        connection: u64,
    },
    Subscribed {
        device: usize,
        connection: u64,
    },
    Writable {
        device: usize,
        connection: u64,
    },
    ToServer {
        device: usize,
        connection: u64,
        kind: UpKind,
        message: Vec<u8>,
    },
    ToDevice {
        device: usize,
        connection: u64,
        message: Vec<u8>,
        is_ack: bool,
    },
    /// The connection breaks: the device notices, or not.
    Cut {
        device: usize,
        silently: bool,
    },
    /// The transport's own keep-alive has failed.
    PingTimeout {
        device: usize,
        connection: u64,
    },
    Restart {
        device: usize,
    },
    Commit,
    Crash,
    NewDesired,
}

/// How bad the network is, in percent and milliseconds.
#[derive(Debug)]
struct Weather {
    loss: u64,
    doubling: u64,
    delay_ms: u64,
    refusal: u64,
}

/// What happened in a run, so that a run in which nothing happened does not pass for a good one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) devices: u64,
    pub(crate) inferences: u64,
    pub(crate) messages_numbered: u64,
    pub(crate) messages_sent: u64,
    pub(crate) copies_arrived: u64,
    pub(crate) duplicates: u64,
    pub(crate) lost_on_the_way: u64,
    pub(crate) doubled_on_the_way: u64,
    pub(crate) cuts: u64,
    pub(crate) silent_cuts: u64,
    pub(crate) connections: u64,
    pub(crate) found_dead: u64,
    pub(crate) restarts: u64,
    pub(crate) server_crashes: u64,
    pub(crate) lost_batches: u64,
    pub(crate) merged_windows: u64,
    pub(crate) simulated_s: u64,
}

impl Outcome {
    fn fields(&mut self) -> [&mut u64; 17] {
        let Self {
            devices,
            inferences,
            messages_numbered,
            messages_sent,
            copies_arrived,
            duplicates,
            lost_on_the_way,
            doubled_on_the_way,
            cuts,
            silent_cuts,
            connections,
            found_dead,
            restarts,
            server_crashes,
            lost_batches,
            merged_windows,
            simulated_s,
        } = self;
        [
            devices,
            inferences,
            messages_numbered,
            messages_sent,
            copies_arrived,
            duplicates,
            lost_on_the_way,
            doubled_on_the_way,
            cuts,
            silent_cuts,
            connections,
            found_dead,
            restarts,
            server_crashes,
            lost_batches,
            merged_windows,
            simulated_s,
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        self.fields().into_iter().zip(other.fields()).for_each(|(sum, value)| *sum += *value);
    }

    pub(crate) fn assert_that_everything_happened(&mut self) {
        let text = format!("{self:#?}");
        assert!(self.fields().into_iter().all(|count| *count > 0), "some fault never happened: {text}");
    }
}

pub(crate) struct World {
    now_ms: u64,
    random: Random,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    devices: Vec<Device>,
    /// Each device's connection, if the broker knows one; the second says whether packets still get through.
    connections: Vec<Option<(u64, bool)>>,
    next_connection: u64,
    server: Server,
    /// The server is down until then.
    down_until_ms: u64,
    generation: u64,
    weather: Weather,
    outcome: Outcome,
}

impl World {
    /// Runs a seed to its end and checks the counts; panics when they are wrong.
    pub(crate) fn run(seed: u64) -> Outcome {
        let mut world = Self::new(seed);
        while let Some(Reverse((at_ms, _, index))) = world.queue.pop() {
            assert!(at_ms >= world.now_ms);
            world.now_ms = at_ms;
            if at_ms > END_MS {
                break;
            }
            let happening = world.happenings[index].take().unwrap();
            world.happen(happening);
            if at_ms > FAULTS_MS && world.is_at_rest() {
                break;
            }
        }
        world.check();
        world.outcome
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let devices: Vec<Device> = (0..2 + random.below(5)).map(|_| Device::new(&mut random)).collect();
        let weather = Weather {
            loss: random.below(40),
            doubling: random.below(40),
            delay_ms: 1 + random.below(3_000),
            refusal: random.below(30),
        };
        let mut world = Self {
            now_ms: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            connections: vec![None; devices.len()],
            next_connection: 0,
            server: Server::default(),
            down_until_ms: 0,
            generation: 1,
            weather,
            outcome: Outcome { devices: devices.len() as u64, ..Outcome::default() },
            devices,
            random,
        };
        for device in 0..world.devices.len() {
            world.at(0, Happening::Tick { device });
            world.at(100, Happening::CloseWindow { device });
            for _ in 0..world.random.below(4) {
                let at_ms = world.random.below(FAULTS_MS);
                world.at(at_ms, Happening::Restart { device });
            }
            for _ in 0..world.random.below(8) {
                let (at_ms, silently) = (world.random.below(FAULTS_MS), world.random.chance(50));
                world.at(at_ms, Happening::Cut { device, silently });
            }
        }
        for _ in 0..world.random.below(5) {
            let at_ms = world.random.below(FAULTS_MS);
            world.at(at_ms, Happening::Crash);
        }
        for _ in 0..world.random.below(4) {
            let at_ms = world.random.below(FAULTS_MS);
            world.at(at_ms, Happening::NewDesired);
        }
        world.at(0, Happening::Commit);
        world
    }

    fn at(&mut self, at_ms: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at_ms.max(self.now_ms), self.order, self.happenings.len())));
        self.happenings.push(Some(happening));
    }

    fn has_faults(&self) -> bool {
        self.now_ms < FAULTS_MS
    }

    fn server_is_up(&self) -> bool {
        self.now_ms >= self.down_until_ms
    }

    /// Whether packets of this connection get through.
    fn is_open(&self, device: usize, connection: u64) -> bool {
        self.connections[device] == Some((connection, true))
    }

    fn delay_ms(&mut self) -> u64 {
        let most = if self.has_faults() { self.weather.delay_ms } else { 50 };
        1 + self.random.below(most)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick { device }
                if self.devices[device].wake_at_ms().is_some_and(|at_ms| at_ms <= self.now_ms) =>
            {
                self.step(device, Event::Tick);
            }
            Happening::CloseWindow { device } if self.has_faults() => {
                let wishes = self.devices[device].close_window(self.now_ms, &mut self.random);
                self.grant(device, wishes);
                let next_ms = self.now_ms + 200 + self.random.below(6_000);
                self.at(next_ms, Happening::CloseWindow { device });
            }
            Happening::Connected { device, connection } if self.is_open(device, connection) => {
                self.step(device, Event::Connected);
            }
            Happening::Refused { device, connection } if self.is_open(device, connection) => {
                self.connections[device] = None;
                let cause = if self.random.chance(10) { DownCause::Refused } else { DownCause::Network };
                self.step(device, Event::Down(cause));
            }
            Happening::Subscribed { device, connection } if self.is_open(device, connection) => {
                self.step(device, Event::Subscribed);
                self.send_desired(device);
            }
            Happening::Writable { device, connection } if self.is_open(device, connection) => {
                self.step(device, Event::Writable);
            }
            // What is under way may arrive after its connection is gone.
            Happening::ToServer { device, kind, message, connection } => {
                let in_time = self.is_open(device, connection) || self.random.chance(50);
                if in_time && self.server_is_up() {
                    self.outcome.copies_arrived += 1;
                    self.server.receive(device, kind, &message);
                }
            }
            Happening::ToDevice { device, connection, message, is_ack }
                if self.is_open(device, connection) =>
            {
                let wishes = self.devices[device].receive(&message, is_ack, self.now_ms, &mut self.random);
                self.grant(device, wishes);
            }
            Happening::Cut { device, silently } => self.cut(device, silently),
            Happening::PingTimeout { device, connection }
                if self.connections[device] == Some((connection, false)) =>
            {
                self.connections[device] = None;
                self.step(device, Event::Down(DownCause::Network));
            }
            Happening::Restart { device } => {
                self.connections[device] = None;
                self.devices[device].restart(&mut self.random);
                self.outcome.restarts += 1;
                let wishes = self.devices[device].boot(self.now_ms, &mut self.random);
                self.grant(device, wishes);
            }
            Happening::Commit => {
                if self.server_is_up() {
                    for (device, ack) in self.server.commit() {
                        self.send_ack(device, ack);
                    }
                }
                let next_ms = self.now_ms + 5 + self.random.below(1_000);
                self.at(next_ms, Happening::Commit);
            }
            Happening::Crash => {
                self.server.crash();
                self.down_until_ms = self.now_ms + self.random.below(20_000);
                for device in 0..self.devices.len() {
                    let silently = self.random.chance(30);
                    self.cut(device, silently);
                }
            }
            Happening::NewDesired => {
                self.generation += 1;
                (0..self.devices.len()).for_each(|device| self.send_desired(device));
            }
            _ => {}
        }
    }

    fn step(&mut self, device: usize, event: Event) {
        let wishes = self.devices[device].step(event, self.now_ms, &mut self.random);
        self.grant(device, wishes);
    }

    /// Does what a device asked for, and sets its timer.
    fn grant(&mut self, device: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Connect => {
                    self.next_connection += 1;
                    self.outcome.connections += 1;
                    let connection = self.next_connection;
                    self.connections[device] = Some((connection, true));
                    let answer_ms = self.now_ms + self.delay_ms();
                    let refused = self.has_faults() && self.random.chance(self.weather.refusal);
                    self.at(
                        answer_ms,
                        match refused || !self.server_is_up() {
                            true => Happening::Refused { device, connection },
                            false => Happening::Connected { device, connection },
                        },
                    );
                }
                Wish::Subscribe => {
                    let (Some((connection, _)), answer_ms) =
                        (self.connections[device], self.now_ms + self.delay_ms())
                    else {
                        continue;
                    };
                    self.at(answer_ms, Happening::Subscribed { device, connection });
                }
                Wish::Room => {
                    if let Some((connection, true)) = self.connections[device] {
                        self.at(self.now_ms + 20, Happening::Writable { device, connection });
                    }
                }
                Wish::Disconnect => self.connections[device] = None,
                Wish::Send { kind, message } => self.send(device, kind, message),
            }
        }
        if let Some(at_ms) = self.devices[device].wake_at_ms() {
            self.at(at_ms, Happening::Tick { device });
        }
    }

    fn send(&mut self, device: usize, kind: UpKind, message: Vec<u8>) {
        let Some((connection, open)) = self.connections[device] else { return };
        for _ in 0..self.copies(open) {
            let (at_ms, message) = (self.now_ms + self.delay_ms(), message.clone());
            self.at(at_ms, Happening::ToServer { device, connection, kind, message });
        }
    }

    fn send_ack(&mut self, device: usize, ack: Ack) {
        let mut message = vec![0; Ack::MAX_LEN];
        let len = ack.encode(&mut message).unwrap();
        message.truncate(len);
        self.send_down(device, message, true);
    }

    fn send_desired(&mut self, device: usize) {
        let desired = Desired { generation: self.generation, ..Desired::default() };
        let mut message = vec![0; 64];
        let len = desired.encode(&mut message).unwrap();
        message.truncate(len);
        self.send_down(device, message, false);
    }

    fn send_down(&mut self, device: usize, message: Vec<u8>, is_ack: bool) {
        let Some((connection, open)) = self.connections[device] else { return };
        // A broker repeats what it has retained until the device has it; acks are only sent once.
        let copies = if is_ack { self.copies(open) } else { u64::from(open) };
        for _ in 0..copies {
            let (at_ms, message) = (self.now_ms + self.delay_ms(), message.clone());
            self.at(at_ms, Happening::ToDevice { device, connection, message, is_ack });
        }
    }

    /// How many copies of a message get onto their way.
    fn copies(&mut self, open: bool) -> u64 {
        if !open || self.has_faults() && self.random.chance(self.weather.loss) {
            self.outcome.lost_on_the_way += 1;
            return 0;
        }
        let doubled = self.has_faults() && self.random.chance(self.weather.doubling);
        self.outcome.doubled_on_the_way += u64::from(doubled);
        1 + u64::from(doubled)
    }

    fn cut(&mut self, device: usize, silently: bool) {
        let Some((connection, true)) = self.connections[device] else { return };
        if silently {
            self.outcome.silent_cuts += 1;
            self.connections[device] = Some((connection, false));
            let at_ms = self.now_ms + KEEP_ALIVE_MS;
            self.at(at_ms, Happening::PingTimeout { device, connection });
        } else {
            self.outcome.cuts += 1;
            self.connections[device] = None;
            self.step(device, Event::Down(DownCause::Network));
        }
    }

    fn is_at_rest(&self) -> bool {
        self.devices.iter().enumerate().all(|(index, device)| {
            device.is_idle()
                && device.is_online()
                && device.desired_generation() == self.generation
                && self.server.generation(index) == self.generation
        })
    }

    fn check(&mut self) {
        for (index, device) in self.devices.iter().enumerate() {
            assert!(device.is_idle(), "device {index} still has something to say: {device:?}");
            assert!(device.is_online(), "device {index} is not connected");
            assert_eq!(device.desired_generation(), self.generation);
            assert_eq!(self.server.generation(index), self.generation, "the actual state of device {index}");
            let counters = device.counters();
            assert_eq!(counters.lost, 0);
            let sum = self.server.sum(index);
            if device.is_durable() {
                let mut truth = device.truth.clone();
                truth.set_period(sum.period());
                assert_eq!(sum, truth, "the counts of device {index}");
                assert_eq!(
                    sum.period().windows,
                    device.truth.period().windows,
                    "the windows of device {index}"
                );
                assert_eq!(sum.period().duration_ms, device.truth.period().duration_ms);
                assert_eq!(self.server.applied(index), device.numbered);
            } else {
                // What was in RAM at a restart is gone; nothing may count twice.
                assert!(sum.inferences() <= device.truth.inferences());
                assert!(self.server.applied(index) <= device.numbered);
            }
            assert!(self.server.merges(index) <= i64::from(device.merges));
            if device.restarts == 0 {
                assert_eq!(self.server.merges(index), i64::from(device.merges), "merges of device {index}");
                assert_eq!(sum.inferences(), device.truth.inferences());
            }
            self.outcome.inferences += u64::from(sum.inferences());
            self.outcome.messages_numbered += device.numbered;
            self.outcome.messages_sent += counters.sent;
            self.outcome.found_dead += u64::from(counters.silent);
            self.outcome.merged_windows += u64::from(device.merges);
        }
        self.outcome.duplicates = self.server.duplicates;
        self.outcome.server_crashes = u64::from(self.server.crashes);
        self.outcome.lost_batches = u64::from(self.server.lost_batches);
        self.outcome.simulated_s = self.now_ms / 1000;
    }
}
