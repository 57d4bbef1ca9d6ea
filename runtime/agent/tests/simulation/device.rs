//! A device: monitor, ring, storage and the uplink's shell, in a few lines.

use std::collections::BTreeMap;

use dunlin_agent::uplink::{Action, Counters, Event, MessageKey, Settings, Uplink};
use dunlin_monitor::{FeatureKind, Period, Ring, Shape, Window};
use dunlin_protocol::limits::MIN_REPORT_BUDGET;
use dunlin_protocol::{
    Ack, Desired, EventKind, ReportEncoder, SlotState, SlotStatus, State, UpKind, limits::MAX_ENVELOPE,
};

use crate::random::Random;

/// So many counters that a full window needs several reports within the smallest budget.
pub(crate) const COUNTERS: usize = 160;
pub(crate) const MODEL: [u8; 32] = [9; 32];
pub(crate) type SimWindow = Window<1, COUNTERS>;

pub(crate) fn empty_window() -> SimWindow {
    Window::new(MODEL, [Shape { kind: FeatureKind::Classes, counters: COUNTERS as u16 }]).unwrap()
}

/// What outlives a restart, if anything does.
#[derive(Clone, Debug, Default)]
struct Storage {
    bodies: BTreeMap<MessageKey, (UpKind, Vec<u8>)>,
    ring: Ring<3, 1, COUNTERS>,
    /// Events and states that wait, as bodies.
    other: Vec<(UpKind, Vec<u8>)>,
    desired_generation: u64,
}

#[derive(Debug)]
pub(crate) struct Device {
    /// Whether the storage outlives a restart.
    durable: bool,
    storage: Storage,
    uplink: Uplink<160>,
    settings: Settings,
    boot: u64,
    /// Counts while no window can be taken into the ring.
    open: SimWindow,
    /// Everything that was ever counted and durable.
    pub(crate) truth: SimWindow,
    pub(crate) restarts: u32,
    pub(crate) merges: u32,
    /// Messages that were numbered, over all boots.
    pub(crate) numbered: u64,
    past: Counters,
}

/// What a device wants from the world.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Connect,
    Subscribe,
    Disconnect,
    /// The transport is full: say when it has room again.
    Room,
    Send {
        kind: UpKind,
        message: Vec<u8>,
    },
}

impl Device {
    pub(crate) fn new(random: &mut Random) -> Self {
        let settings = Settings {
            connect_timeout_ms: 5_000,
            ack_timeout_ms: 4_000,
            least_pause_ms: 500,
            longest_pause_ms: 20_000,
            in_flight: 1 + random.below(16) as u8,
            report_period_ms: if random.chance(30) { 5_000 } else { 0 },
        };
        let boot = random.next();
        Self {
            durable: random.chance(80),
            storage: Storage::default(),
            uplink: Uplink::new(settings, boot),
            settings,
            boot,
            open: empty_window(),
            truth: empty_window(),
            restarts: 0,
            merges: 0,
            numbered: 0,
            past: Counters::default(),
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        self.uplink.wake_at_ms()
    }

    pub(crate) fn is_online(&self) -> bool {
        self.uplink.is_online()
    }

    pub(crate) fn desired_generation(&self) -> u64 {
        self.uplink.desired_generation()
    }

    /// Nothing waits and nothing is outstanding.
    pub(crate) fn is_idle(&self) -> bool {
        self.uplink.outstanding() == 0 && self.storage.bodies.is_empty() && self.waiting() == 0
    }

    pub(crate) fn counters(&self) -> Counters {
        let (a, b) = (self.past, self.uplink.counters());
        Counters {
            connects: a.connects + b.connects,
            silent: a.silent + b.silent,
            sent: a.sent + b.sent,
            acknowledged: a.acknowledged + b.acknowledged,
            merged: a.merged + b.merged,
            lost: a.lost + b.lost,
        }
    }

    /// A window of inferences closes: from now on it must not get lost, if the device is durable.
    pub(crate) fn close_window(&mut self, now_ms: u64, random: &mut Random) -> Vec<Wish> {
        let mut window = empty_window();
        let n = 1 + random.below(20) as u32;
        window.add_inferences(n);
        for _ in 0..n {
            assert!(window.add_count(0, random.below(COUNTERS as u64) as usize, 1));
            window.record_latency(random.below(5_000));
        }
        window.set_period(Period {
            start_unix_s: 0,
            duration_ms: 1_000,
            closed_ms: now_ms.max(1),
            windows: 1,
        });
        self.truth.merge(&window).unwrap();
        window.merge(&self.open).unwrap();
        self.open.clear();
        match self.storage.ring.push(window) {
            Ok(false) => {}
            Ok(true) => {
                self.merges += 1;
                return self.step(Event::Merged { times: 1 }, now_ms, random);
            }
            Err(window) => self.open = window,
        }
        self.step(Event::Waiting { items: self.waiting(), urgent: false }, now_ms, random)
    }

    /// The power fails and comes back. What the device has in RAM is gone.
    pub(crate) fn restart(&mut self, random: &mut Random) {
        self.restarts += 1;
        self.past = self.counters();
        self.boot = random.next();
        self.uplink = Uplink::new(self.settings, self.boot);
        if !self.durable {
            self.storage = Storage::default();
        }
        for (key, (kind, _)) in &self.storage.bodies {
            assert!(self.uplink.recover(*key, *kind), "the outbox is as large as the storage");
        }
        self.uplink.recover_desired(self.storage.desired_generation);
    }

    /// The first step after a start.
    pub(crate) fn boot(&mut self, now_ms: u64, random: &mut Random) -> Vec<Wish> {
        self.step(Event::Waiting { items: self.waiting(), urgent: false }, now_ms, random)
    }

    /// A message from the control plane.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        is_ack: bool,
        now_ms: u64,
        random: &mut Random,
    ) -> Vec<Wish> {
        let event = match is_ack {
            true => Event::Acked(Ack::decode(bytes).unwrap()),
            false => {
                let Desired { generation, report_period_s, .. } = Desired::decode(bytes).unwrap();
                Event::Desired { generation, report_period_s }
            }
        };
        self.step(event, now_ms, random)
    }

    pub(crate) fn step(&mut self, event: Event, now_ms: u64, random: &mut Random) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut events = std::collections::VecDeque::from([event]);
        let mut steps = 0;
        while let Some(event) = events.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "the device never comes to rest");
            for action in self.uplink.step(event, now_ms, random.u32()) {
                if let Some(answer) = self.perform(action, now_ms, random, &mut wishes) {
                    events.push_back(answer);
                }
            }
            if events.is_empty() && self.uplink.wake_at_ms().is_some_and(|at| at <= now_ms) {
                events.push_back(Event::Tick);
            }
        }
        wishes
    }

    fn perform(
        &mut self,
        action: Action,
        now_ms: u64,
        random: &mut Random,
        wishes: &mut Vec<Wish>,
    ) -> Option<Event> {
        match action {
            Action::Connect => wishes.push(Wish::Connect),
            Action::Subscribe => wishes.push(Wish::Subscribe),
            Action::Disconnect => wishes.push(Wish::Disconnect),
            Action::Send { kind, envelope } => {
                let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
                if random.chance(2) {
                    wishes.push(Wish::Room);
                    return Some(Event::NotSent(key));
                }
                let (_, body) = self.storage.bodies.get(&key).expect("the body of every outstanding message");
                let mut message = vec![0; body.len() + MAX_ENVELOPE];
                let len = envelope.encode(body, &mut message).unwrap();
                message.truncate(len);
                wishes.push(Wish::Send { kind, message });
            }
            Action::Release(ack) => {
                self.storage.bodies.retain(|key, _| key.boot != ack.boot || !ack.covers(key.seq));
            }
            Action::Admit { first_seq, room } => return Some(self.admit(first_seq, room, now_ms)),
            Action::ReportState => {
                let generation = self.uplink.desired_generation();
                let slots = [SlotState { slot: "s", model: MODEL, status: SlotStatus::Running, reason: "" }];
                let state = State {
                    agent_version: "1",
                    hardware: "sim",
                    slots: (&slots).into(),
                    desired_generation: generation,
                    ..State::default()
                };
                let mut body = vec![0; 256];
                let len = state.encode(&mut body).unwrap();
                body.truncate(len);
                self.storage.other.retain(|(kind, _)| *kind != UpKind::State);
                return Some(self.wait(UpKind::State, body));
            }
            Action::Note { kind, value } => {
                assert!(kind == EventKind::QueueMerged && value > 0);
                let event = dunlin_protocol::Event { unix_s: 0, slot: "", kind, value, detail: "" };
                let mut body = vec![0; 64];
                let len = event.encode(&mut body).unwrap();
                body.truncate(len);
                return Some(self.wait(UpKind::Event, body));
            }
            Action::ApplyDesired { generation } => self.storage.desired_generation = generation,
        }
        None
    }

    fn wait(&mut self, kind: UpKind, body: Vec<u8>) -> Event {
        self.storage.other.push((kind, body));
        Event::Waiting { items: self.waiting(), urgent: true }
    }

    fn waiting(&self) -> u16 {
        (self.storage.ring.len() + self.storage.other.len()) as u16
    }

    fn admit(&mut self, first_seq: u64, room: u16, now_ms: u64) -> Event {
        let nothing =
            Event::Admitted { kind: UpKind::Report, messages: 0, closed_ms: 0, waiting: self.waiting() };
        let (kind, bodies, closed_ms) = if !self.storage.other.is_empty() {
            let (kind, body) = self.storage.other.remove(0);
            (kind, vec![body], now_ms)
        } else {
            let Some(window) = self.storage.ring.oldest() else { return nothing };
            let mut encoder = ReportEncoder::new("s", window);
            let mut out = [0; MIN_REPORT_BUDGET - MAX_ENVELOPE];
            let mut bodies = Vec::new();
            while let Some(len) = encoder.next_body(&mut out).unwrap() {
                bodies.push(out[..len].to_vec());
            }
            if bodies.len() > usize::from(room) {
                return nothing;
            }
            let window = self.storage.ring.pop().unwrap();
            (UpKind::Report, bodies, window.period().closed_ms)
        };
        let messages = bodies.len() as u16;
        self.numbered += u64::from(messages);
        for (seq, body) in (first_seq..).zip(bodies) {
            let known = self.storage.bodies.insert(MessageKey { boot: self.boot, seq }, (kind, body));
            assert!(known.is_none(), "a number is given once");
        }
        Event::Admitted { kind, messages, closed_ms, waiting: self.waiting() }
    }
}
