//! What the device keeps.

use core::fmt;

use dunlin_agent::flash::FlashError;
use dunlin_agent::update::{self, Bank, Model, Record, Update};
use dunlin_agent::uplink::{self, Action, Event, MessageKey, Uplink};
use dunlin_monitor::{Monitor, Ring, Schedule};
use dunlin_protocol::{
    Ack, Envelope, EventKind, List, ReportEncoder, SlotState, SlotStatus, State, UpKind, limits,
};
use dunlin_trust::{Refused, Trust, Verifier};
use embedded_storage::nor_flash::NorFlash;
use heapless::{Deque, String, Vec};

use crate::belief::Belief;
use crate::store::{Store, Stored};
use crate::update::{Job, Told};

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

/// Text for people, as long as the protocol allows.
pub(crate) type Text = String<{ limits::MAX_DETAIL }>;

/// Something that happened and has no number yet.
#[derive(Clone)]
struct Happened {
    kind: EventKind,
    value: i64,
    detail: Text,
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

/// What a device is, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'d> {
    /// The slot that its models run in.
    pub slot: &'d str,
    /// Its hardware class; releases may be for certain ones only.
    pub hardware: &'d str,
    /// The root that is built in (`dunlin keys export`): who may say what runs here. Without one nothing is installed.
    pub root: Option<&'d [u8]>,
    /// When windows close, unless the control plane says something else.
    pub schedule: Schedule,
    /// Times of the connection.
    pub uplink: uplink::Settings,
    /// Times and bounds of updates; no more bytes than a bank has are ever written.
    pub update: update::Settings,
}

impl Default for Settings<'_> {
    /// The slot `model` of a device that installs nothing.
    fn default() -> Self {
        Settings {
            slot: "model",
            hardware: "",
            root: None,
            schedule: Schedule::default(),
            uplink: uplink::Settings::default(),
            update: update::Settings { save_every_bytes: 16 << 10, ..update::Settings::default() },
        }
    }
}

/// Why a device cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError<E> {
    /// The flash for what the device must not forget.
    Flash(FlashError<E>),
    /// The root that is built in.
    Root(Refused),
}

impl<E: fmt::Debug> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "what must survive a restart cannot be kept: {error}"),
            Self::Root(refused) => write!(f, "the root that is built in cannot be used: {refused}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for StartError<E> {}

/// Everything that a device keeps, in memory of a size that is known at compile time. What it must not forget about
/// models and keys is in flash (`F`); telemetry that is not acknowledged is lost by a restart. A product that must not
/// lose it keeps [`Ring`] and messages in flash (`sequential-storage`), and recovers them into the state machine
/// (`Uplink::recover`).
pub struct Device<'d, F, V> {
    boot: u64,
    pub(crate) slot: &'d str,
    pub(crate) hardware: &'d str,
    /// The schedule of the product, and the one that counts.
    pub(crate) own_schedule: Schedule,
    pub(crate) schedule: Schedule,
    ring: Ring<WINDOWS, 32, 1024>,
    messages: Vec<Message, MESSAGES>,
    events: Deque<Happened, EVENTS>,
    /// The state waits to be reported, since the time in milliseconds.
    state_since_ms: Option<u64>,
    pub(crate) uplink: Uplink<MESSAGES>,
    /// What the network has to do.
    pub(crate) pending: Deque<Action, PENDING>,
    totals: Totals,
    pub(crate) store: Store<F>,
    pub(crate) verifier: V,
    pub(crate) belief: Belief,
    /// Why the newest desired state does not count; empty if it does.
    pub(crate) refused: Text,
    pub(crate) update: Update,
    /// The model that is to run; none for the one that is built in.
    pub(crate) wanted: Option<(Bank, Model)>,
    /// What is to be done beside running a model.
    pub(crate) job: Job,
    /// What holds the update up.
    pub(crate) trouble: &'static str,
    /// The slot's record cannot be stored.
    pub(crate) is_faulty: bool,
    /// The digest of the model that is built in.
    pub(crate) built_in: [u8; 32],
    pub(crate) told: Told,
}

/// Times and randomness of one step.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) ms: u64,
    pub(crate) unix_s: u64,
    pub(crate) random: u32,
}

impl<'d, F: NorFlash, V: Verifier> Device<'d, F, V> {
    /// A device that has just started. `flash` is for what it must not forget about models and keys (four pages of
    /// 1,280 bytes or more); banks of `bank_bytes` each are for the models. `boot` is a fresh random number.
    ///
    /// # Errors
    /// [`StartError`]. What is stored and cannot be read is no error: the device tells it and goes on.
    pub fn new(
        settings: Settings<'d>,
        flash: F,
        bank_bytes: usize,
        verifier: V,
        boot: u64,
        now_ms: u64,
    ) -> Result<Self, StartError<F::Error>> {
        let mut store = Store::open(flash).map_err(StartError::Flash)?;
        let (record, is_lost) = match store.record() {
            Stored::Value(record) => (record, false),
            Stored::Nothing => (Record::default(), false),
            Stored::Damaged => (Record::default(), true),
        };
        let belief = match (store.trust(), settings.root) {
            (Stored::Value(trust), _) => Belief::Rooted(trust),
            (Stored::Damaged, _) => Belief::Damaged,
            // Stored with the first thing that is believed; until then it is pinned again.
            (Stored::Nothing, Some(root)) => {
                Belief::Rooted(Trust::pin(root, &verifier).map_err(StartError::Root)?)
            }
            (Stored::Nothing, None) => Belief::Rootless,
        };
        let bank_bytes = u32::try_from(bank_bytes).unwrap_or(u32::MAX).min(settings.update.bank_bytes);
        let (update, actions) = Update::start(update::Settings { bank_bytes, ..settings.update }, record);
        // The client has room for so many messages without a PUBACK.
        let in_flight = settings.uplink.in_flight.min(crate::mqtt::IN_FLIGHT);
        let mut device = Device {
            boot,
            slot: settings.slot,
            hardware: settings.hardware,
            own_schedule: settings.schedule,
            schedule: settings.schedule,
            ring: Ring::new(),
            messages: Vec::new(),
            events: Deque::new(),
            state_since_ms: None,
            uplink: Uplink::new(uplink::Settings { in_flight, ..settings.uplink }, boot),
            pending: Deque::new(),
            totals: Totals::default(),
            store,
            verifier,
            belief,
            refused: Text::new(),
            update,
            wanted: None,
            job: Job::Nothing,
            trouble: "",
            is_faulty: false,
            built_in: [0; 32],
            told: Told::default(),
        };
        let now = Now { ms: now_ms, unix_s: 0, random: 0 };
        device.note(EventKind::Restarted, 0, "", now);
        if is_lost {
            device.note(EventKind::StorageLost, 1, "which models the slot has", now);
        }
        device.follow(actions, now);
        Ok(device)
    }

    /// The model that the control plane has put into the slot and that runs there; none if it is the one that is built
    /// in.
    pub fn model(&self) -> Option<Model> {
        self.wanted.map(|(_, model)| model)
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
    pub(crate) fn close(&mut self, monitor: &mut Counted<'_>, force: bool, now: Now) {
        let window = monitor.window();
        if !(monitor.due(now.ms) || (force && !window.is_empty())) {
            return;
        }
        let (inferences, failures) = (window.inferences(), window.failures());
        let before = self.ring.len();
        if monitor.close_into(&mut self.ring, now.ms, now.unix_s) {
            self.totals.inferences += u64::from(inferences);
            self.totals.failures += failures;
            self.totals.windows += 1;
            if self.ring.len() == before {
                self.step(Event::Merged { times: 1 }, now);
            }
            self.step(Event::Waiting { items: self.waiting(), urgent: false }, now);
            let failures = u32::try_from(failures).unwrap_or(u32::MAX);
            self.update(update::Event::Window { inferences, failures }, now);
        }
    }

    /// Tells the control plane that something happened, as soon as that is possible.
    pub(crate) fn note(&mut self, kind: EventKind, value: i64, detail: &str, now: Now) {
        let noted = self.keep(kind, value, detail, now);
        self.step(noted, now);
    }

    fn keep(&mut self, kind: EventKind, value: i64, detail: &str, now: Now) -> Event {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let mut text = Text::new();
        // What is longer than the protocol allows is left out; nothing here is.
        let _ = text.push_str(detail);
        let happened = Happened { kind, value, detail: text, unix_s: now.unix_s, closed_ms: now.ms };
        let _ = self.events.push_back(happened);
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
            Action::Note { kind, value } => Some(self.keep(kind, value, "", now)),
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
        } else if let Some(happened) = self.events.front().cloned() {
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
        let Told { model, status, reason } = self.slot_state();
        let status = status.unwrap_or(SlotStatus::Empty);
        let slots = [SlotState { slot: self.slot, model, status, reason: &reason }];
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
        let Happened { kind, value, unix_s, detail, .. } = happened;
        let (unix_s, kind, value) = (*unix_s, *kind, *value);
        let slot = if detail.is_empty() { "" } else { self.slot };
        dunlin_protocol::Event { unix_s, slot, kind, value, detail }.encode(body).ok()
    }

    /// Writes a message as it goes over the network; nothing if there is no such message.
    pub(crate) fn message(&self, envelope: &Envelope, out: &mut [u8]) -> Option<usize> {
        let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
        let message = self.messages.iter().find(|message| message.key == key)?;
        envelope.encode(&message.body, out).ok()
    }
}
