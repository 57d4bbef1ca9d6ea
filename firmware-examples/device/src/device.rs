//! What the device keeps.

use dunlin_agent::uplink::{Action, Event, MessageKey, Settings, Uplink};
use dunlin_monitor::{LayoutError, Monitor, Ring, Schedule};
use dunlin_protocol::{
    Ack, Envelope, EventKind, List, ReportEncoder, SlotState, SlotStatus, State, UpKind, limits,
};
use dunlin_runtime::Artifact;
use heapless::{Deque, Vec};

/// Closed windows that wait; when there are more, the two oldest become one.
const WINDOWS: usize = 6;
/// Numbered messages that are kept until they are acknowledged.
const MESSAGES: usize = 12;
/// Bytes of one message's body.
const BODY: usize = limits::REPORT_BUDGET - limits::MAX_ENVELOPE;
/// Events that wait.
const EVENTS: usize = 8;
/// Actions for the network that wait for the connection.
const PENDING: usize = 16;

/// A message that is not acknowledged.
struct Message {
    key: MessageKey,
    body: Vec<u8, BODY>,
}

/// Something that happened and has no number yet.
#[derive(Clone, Copy)]
struct Happened {
    kind: EventKind,
    value: i64,
    unix_s: u64,
    closed_ms: u64,
}

/// What was counted in all windows that were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inferences that gave a result.
    pub inferences: u64,
    /// Inferences that gave none.
    pub failures: u64,
    /// Windows.
    pub windows: u64,
}

/// The monitor of a device; the numbers of features and counters suit any model of moderate size.
pub type Counted<'m> = Monitor<'m, 32, 1024>;

/// Everything that a device keeps, in memory of a size that is known at compile time. A restart loses it; a product
/// that must not keeps [`Ring`] and messages in flash (`sequential-storage`), and recovers them into the state
/// machine (`Uplink::recover`).
pub struct Device<'m> {
    pub(crate) monitor: Counted<'m>,
    boot: u64,
    slot: &'m str,
    hardware: &'m str,
    ring: Ring<WINDOWS, 32, 1024>,
    messages: Vec<Message, MESSAGES>,
    events: Deque<Happened, EVENTS>,
    /// The state waits to be reported, since the time in milliseconds.
    state_since_ms: Option<u64>,
    pub(crate) uplink: Uplink<MESSAGES>,
    /// What the network has to do.
    pub(crate) pending: Deque<Action, PENDING>,
    totals: Totals,
}

/// Times and randomness of one step.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) ms: u64,
    pub(crate) unix_s: u64,
    pub(crate) random: u32,
}

impl<'m> Device<'m> {
    /// A device that has just started, for one model. `boot` is a fresh random number.
    ///
    /// # Errors
    /// When the model's baseline needs a larger monitor.
    pub fn new(
        artifact: Artifact<'m>,
        slot: &'m str,
        hardware: &'m str,
        schedule: Schedule,
        settings: Settings,
        boot: u64,
        now_ms: u64,
    ) -> Result<Self, LayoutError> {
        // The client has room for so many messages without a PUBACK.
        let settings = Settings { in_flight: settings.in_flight.min(crate::mqtt::IN_FLIGHT), ..settings };
        Ok(Device {
            monitor: Monitor::new(artifact, schedule, now_ms)?,
            boot,
            slot,
            hardware,
            ring: Ring::new(),
            messages: Vec::new(),
            events: Deque::new(),
            state_since_ms: None,
            uplink: Uplink::new(settings, boot),
            pending: Deque::new(),
            totals: Totals::default(),
        })
    }

    /// What was counted in closed windows.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether the control plane has acknowledged everything that was closed.
    pub fn is_settled(&self) -> bool {
        self.waiting() == 0 && self.messages.is_empty()
    }

    fn waiting(&self) -> u16 {
        let items = self.ring.len() + self.events.len() + usize::from(self.state_since_ms.is_some());
        u16::try_from(items).unwrap_or(u16::MAX)
    }

    /// Closes the window if it is due, or whatever is in it when `force` is set.
    pub(crate) fn close(&mut self, force: bool, now: Now) {
        let window = self.monitor.window();
        if !(self.monitor.due(now.ms) || (force && !window.is_empty())) {
            return;
        }
        let (inferences, failures) = (u64::from(window.inferences()), window.failures());
        let before = self.ring.len();
        if self.monitor.close_into(&mut self.ring, now.ms, now.unix_s) {
            self.totals.inferences += inferences;
            self.totals.failures += failures;
            self.totals.windows += 1;
            if self.ring.len() == before {
                self.step(Event::Merged { times: 1 }, now);
            }
            self.step(Event::Waiting { items: self.waiting(), urgent: false }, now);
        }
    }

    /// Tells the control plane that something happened, as soon as that is possible.
    pub(crate) fn note(&mut self, kind: EventKind, value: i64, now: Now) -> Event {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(Happened { kind, value, unix_s: now.unix_s, closed_ms: now.ms });
        Event::Waiting { items: self.waiting(), urgent: true }
    }

    /// One step of the state machine and everything that follows from it; what the network has to do is put into
    /// `pending`.
    pub(crate) fn step(&mut self, event: Event, now: Now) {
        let mut events: Vec<Event, 8> = Vec::new();
        let _ = events.push(event);
        while let Some(event) = events.pop() {
            for action in self.uplink.step(event, now.ms, now.random) {
                if let Some(event) = self.perform(action, now) {
                    // At most four answers can come from one step.
                    let _ = events.push(event);
                }
            }
        }
    }

    fn perform(&mut self, action: Action, now: Now) -> Option<Event> {
        match action {
            Action::Connect | Action::Disconnect => {
                // Whatever was to be sent belongs to the old connection.
                self.pending.clear();
                let _ = self.pending.push_back(action);
                None
            }
            Action::Subscribe => {
                let _ = self.pending.push_back(action);
                None
            }
            Action::Send { envelope, .. } => {
                let refused = self.pending.push_back(action).is_err();
                refused.then_some(Event::NotSent(MessageKey { boot: envelope.boot, seq: envelope.seq }))
            }
            Action::Release(ack) => {
                self.release(&ack);
                None
            }
            Action::Admit { first_seq, room } => Some(self.admit(first_seq, room)),
            Action::ReportState => {
                self.state_since_ms.get_or_insert(now.ms);
                Some(Event::Waiting { items: self.waiting(), urgent: true })
            }
            Action::Note { kind, value } => Some(self.note(kind, value, now)),
            Action::ApplyDesired { .. } => None,
        }
    }

    fn release(&mut self, ack: &Ack) {
        self.messages.retain(|message| message.key.boot != ack.boot || !ack.covers(message.key.seq));
    }

    /// Gives numbers to what has waited longest: the state and events first, as they are small and urgent.
    fn admit(&mut self, first_seq: u64, room: u16) -> Event {
        let free = self.messages.capacity() - self.messages.len();
        let room = usize::from(room).min(free);
        let (kind, messages, closed_ms) = if let Some(since_ms) = self.state_since_ms {
            let done = room > 0 && self.store(first_seq, |device, body| device.state(body));
            if done {
                self.state_since_ms = None;
            }
            (UpKind::State, usize::from(done), since_ms)
        } else if let Some(happened) = self.events.front().copied() {
            let done = room > 0 && self.store(first_seq, |device, body| device.event(&happened, body));
            if done {
                self.events.pop_front();
            }
            (UpKind::Event, usize::from(done), happened.closed_ms)
        } else {
            let closed_ms = self.ring.oldest().map_or(0, |window| window.period().closed_ms);
            (UpKind::Report, self.admit_window(first_seq, room), closed_ms)
        };
        let messages = u16::try_from(messages).unwrap_or(u16::MAX);
        Event::Admitted { kind, messages, closed_ms, waiting: self.waiting() }
    }

    /// All reports of the oldest window, or none.
    fn admit_window(&mut self, first_seq: u64, room: usize) -> usize {
        let Some(window) = self.ring.oldest() else { return 0 };
        let mut encoder = ReportEncoder::new(self.slot, window);
        let mut scratch = [0; BODY];
        if !encoder.remaining(&mut scratch).is_ok_and(|reports| reports <= room) {
            return 0;
        }
        let mut reports = 0;
        while let Ok(Some(len)) = encoder.next_body(&mut scratch) {
            let key = MessageKey { boot: self.boot, seq: first_seq + reports as u64 };
            let body = Vec::from_slice(scratch.get(..len).unwrap_or(&[])).unwrap_or_default();
            let _ = self.messages.push(Message { key, body });
            reports += 1;
        }
        self.ring.pop();
        reports
    }

    fn store(&mut self, seq: u64, write: impl FnOnce(&Self, &mut [u8]) -> Option<usize>) -> bool {
        let mut scratch = [0; BODY];
        let Some(len) = write(self, &mut scratch) else { return false };
        let key = MessageKey { boot: self.boot, seq };
        let Ok(body) = Vec::from_slice(scratch.get(..len).unwrap_or(&[])) else { return false };
        self.messages.push(Message { key, body }).is_ok()
    }

    fn state(&self, body: &mut [u8]) -> Option<usize> {
        let slots = [SlotState {
            slot: self.slot,
            model: self.monitor.artifact().digest(),
            status: SlotStatus::Running,
            reason: "",
        }];
        let state = State {
            agent_version: env!("CARGO_PKG_VERSION"),
            hardware: self.hardware,
            attributes: List::default(),
            slots: List::from(&slots),
            desired_generation: self.uplink.desired_generation(),
        };
        state.encode(body).ok()
    }

    fn event(&self, happened: &Happened, body: &mut [u8]) -> Option<usize> {
        let Happened { kind, value, unix_s, .. } = *happened;
        dunlin_protocol::Event { unix_s, slot: "", kind, value, detail: "" }.encode(body).ok()
    }

    /// Writes a message as it goes over the network; nothing if there is no such message.
    pub(crate) fn message(&self, envelope: &Envelope, out: &mut [u8]) -> Option<usize> {
        let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
        let message = self.messages.iter().find(|message| message.key == key)?;
        envelope.encode(&message.body, out).ok()
    }

    /// The schedule that the control plane wants; zeros leave it to the device.
    pub(crate) fn set_schedule(&mut self, window_period_s: u32, window_count: u32) {
        let own = self.monitor.schedule();
        self.monitor.set_schedule(Schedule {
            period_ms: if window_period_s == 0 {
                own.period_ms
            } else {
                window_period_s.saturating_mul(1000)
            },
            runs: if window_count == 0 { own.runs } else { window_count },
        });
    }
}
