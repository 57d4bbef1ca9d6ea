//! The device's side of the protocol as a pure state machine, for every device.
//!
//! [`Uplink::step`] takes what happened and the time, and says what to do. It knows no clock, no network, no storage
//! and no random source, allocates nothing and never panics; so the same code runs in firmware, in the agent for
//! Linux and in a simulation with thousands of devices. Around it stands a *shell*, which performs the actions.
//!
//! # Who keeps what
//! - The shell keeps **closed windows** (and events, labels, states) that wait: `dunlin_monitor::Ring` in firmware,
//!   a queue on disk elsewhere. They have no number, so when there is no room the two oldest merge.
//! - The shell keeps the **bodies** of numbered messages under their [`MessageKey`], in RAM, flash or on disk. A body
//!   never changes.
//! - The uplink keeps the bookkeeping of numbered messages: which are outstanding, which were sent over this
//!   connection and when, what is acknowledged.
//!
//! # The shell's loop
//! ```
//! use dunlin_agent::uplink::{Action, Event, Settings, Uplink};
//!
//! # struct Shell; impl Shell {
//! #   fn now_ms(&self) -> u64 { 0 } fn random(&mut self) -> u32 { 0 }
//! #   fn perform(&mut self, _: Action) -> Option<Event> { None }
//! #   fn wait(&mut self, _: Option<u64>) -> Option<Event> { None } }
//! # let mut shell = Shell;
//! # let boot = 7;
//! let mut uplink: Uplink<64> = Uplink::new(Settings::default(), boot);
//! // Bodies found in storage: uplink.recover(key, kind) for each.
//! let mut event = Event::Tick;
//! loop {
//!     for action in uplink.step(event, shell.now_ms(), shell.random()) {
//!         // Connect, send, store...; remember what happened as an event for the next step.
//!         shell.perform(action);
//!     }
//!     // Wait for the network, for a closed window or for the time.
//!     match shell.wait(uplink.wake_at_ms()) {
//!         Some(next) => event = next,
//!         None => break,
//!     }
//! }
//! ```
//!
//! # What it guarantees
//! - A message is forgotten only when an [`Ack`] covers it; a broker's PUBACK means nothing here.
//! - After every new session everything outstanding is sent again, from the oldest on, that of earlier boots first,
//!   at most [`Settings::in_flight`] at a time.
//! - At most [`dunlin_protocol::limits::WINDOW`] messages of a boot are outstanding, so that the server's
//!   [`dunlin_protocol::SequenceWindow`] tells every copy apart.
//! - A half-open connection is noticed by missing acks and replaced. Pauses between attempts grow exponentially, with
//!   jitter; only an acknowledgement makes them short again.
//! - Timers use monotonic time only. A jump of the wall clock ([`Event::ClockSet`]) becomes an event message and
//!   changes nothing else.

mod outbox;
mod settings;

pub use outbox::MessageKey;
pub use settings::Settings;

use dunlin_protocol::{Ack, Envelope, EventKind, UpKind, limits::WINDOW};

use crate::actions;
use crate::pause::pause_ms;
use outbox::Outbox;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time has passed ([`Uplink::wake_at_ms`]).
    Tick,
    /// The broker has accepted the connection.
    Connected,
    /// The broker has answered the subscription.
    Subscribed,
    /// There is no connection any more, or none could be made.
    Down(DownCause),
    /// A message was not sent as the transport has no room: it waits for [`Event::Writable`].
    NotSent(MessageKey),
    /// The transport has room again.
    Writable,
    /// `down/ack` came.
    Acked(Ack),
    /// `down/desired` came, is not expired, and could be decoded.
    Desired {
        /// Its generation.
        generation: u64,
        /// Its report period in seconds; 0 leaves [`Settings::report_period_ms`].
        report_period_s: u32,
    },
    /// What waits without a number has become more.
    Waiting {
        /// How many windows, events, labels and states wait now.
        items: u16,
        /// Some of them should not wait for the report period: events, states.
        urgent: bool,
    },
    /// The answer to [`Action::Admit`]: an item that waited is now stored under numbers.
    Admitted {
        /// What kind of messages it became.
        kind: UpKind,
        /// How many; they are stored under `first_seq` and the numbers that follow, at most `room` of the action. 0
        /// when the item needs more room, or nothing waits.
        messages: u16,
        /// When the item was closed, in milliseconds of the monotonic clock.
        closed_ms: u64,
        /// How many items wait now.
        waiting: u16,
    },
    /// The device runs something else than before: the state has to be reported.
    StateChanged,
    /// Windows that wait were merged, as there was no room.
    Merged {
        /// How many times.
        times: u32,
    },
    /// The body of a numbered message cannot be read any more.
    Lost(MessageKey),
    /// The wall clock was set.
    ClockSet {
        /// By how many seconds, forward positive.
        by_s: i64,
    },
    /// Disconnect and stay so, for example to sleep. What waits is kept.
    Stop,
    /// Connect again after [`Event::Stop`].
    Start,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// Network, TLS or protocol.
    Network,
    /// The broker does not accept the device's credential: the next attempt waits for the longest pause.
    Refused,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the broker; answer with [`Event::Connected`] or [`Event::Down`]. What there was before of a
    /// connection is dropped.
    Connect,
    /// Subscribe to `d/{id}/down/#` with QoS 1; answer with [`Event::Subscribed`].
    Subscribe,
    /// Drop the connection, without waiting for anything. No [`Event::Down`] is expected.
    Disconnect,
    /// Send the body that is kept under `boot` and `seq` of the envelope, with this envelope before it, QoS 1, to
    /// `d/{id}/up/{kind}`. Answer with [`Event::NotSent`] when that is not possible now, with [`Event::Lost`] when
    /// there is no such body.
    Send {
        /// The topic.
        kind: UpKind,
        /// What goes before the body.
        envelope: Envelope,
    },
    /// Delete the bodies that the ack covers, if there are any.
    Release(Ack),
    /// Take the item that has waited longest and store the messages it becomes under consecutive numbers of this
    /// boot, beginning with `first_seq`: all of them or none, and if the storage outlives a restart, in one step with
    /// removing the item. Answer with [`Event::Admitted`].
    Admit {
        /// The number of the first message.
        first_seq: u64,
        /// Most messages that there is room for.
        room: u16,
    },
    /// Put a state message ([`dunlin_protocol::State`], with [`Uplink::desired_generation`]) to what waits, in the
    /// place of an older one that waits; then [`Event::Waiting`].
    ReportState,
    /// Put an event message to what waits; then [`Event::Waiting`].
    Note {
        /// What happened.
        kind: EventKind,
        /// How much or how often.
        value: i64,
    },
    /// The desired state that was passed last is newer than all before: keep it and begin to bring it about.
    ApplyDesired {
        /// Its generation.
        generation: u64,
    },
}

/// What one step asks for, to be performed in this order.
pub type Actions = actions::Actions<Action, MAX_ACTIONS>;

/// Most messages that one step sends; the rest follows in the next step, at once.
const MAX_SENDS: usize = 8;
/// Besides sending: one for the event, and state, three notes and admission.
const MAX_ACTIONS: usize = MAX_SENDS + 6;

/// The state of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Before the first step.
    New,
    /// Without a connection, until the time in milliseconds.
    Paused { until_ms: u64 },
    /// Being made, until the time in milliseconds.
    Connecting { until_ms: u64, accepted: bool },
    /// Connected and subscribed.
    Online,
    /// [`Event::Stop`].
    Stopped,
}

/// The state machine. `OUTBOX` is the most numbered messages over all boots: 64 suffice for a device that keeps
/// nothing over a restart, others need more, so that those of earlier boots leave room. One entry takes 56 bytes, the
/// rest less than 256, and a step's [`Actions`] less than 1 KiB of stack.
#[derive(Clone, Debug)]
pub struct Uplink<const OUTBOX: usize> {
    settings: Settings,
    link: Link,
    /// Attempts in a row that led to nothing.
    attempts: u32,
    outbox: Outbox<OUTBOX>,
    /// Since when something is sent and nothing acknowledged, in milliseconds.
    silent_since_ms: Option<u64>,
    /// The transport has no room.
    blocked: bool,
    /// There is more to send than fitted into the last step.
    more: bool,
    waiting: u16,
    /// [`Action::Admit`] has not been answered.
    admitting: bool,
    /// The item that is next does not fit at present.
    no_room: bool,
    /// When windows that wait may be sent, in milliseconds.
    report_due_ms: u64,
    report_period_ms: u64,
    desired_generation: u64,
    /// The state must be reported.
    state_due: bool,
    merged: u32,
    lost: u32,
    clock_jump_s: i64,
    /// Numbers for [`Uplink::counters`].
    counters: Counters,
}

/// What an uplink has done since it was made, for logs and status pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Attempts to connect.
    pub connects: u32,
    /// Connections that were given up as nothing was acknowledged.
    pub silent: u32,
    /// Messages sent, each time counted.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Windows that were merged as there was no room ([`Event::Merged`]).
    pub merged: u32,
    /// Messages whose body could not be read any more.
    pub lost: u32,
}

impl<const OUTBOX: usize> Uplink<OUTBOX> {
    /// A device that has just started. `boot` must be a fresh random number: a repeated one would make the server
    /// take new messages for old ones.
    pub fn new(settings: Settings, boot: u64) -> Self {
        Self {
            settings,
            link: Link::New,
            attempts: 0,
            outbox: Outbox::new(boot),
            silent_since_ms: None,
            blocked: false,
            more: false,
            waiting: 0,
            admitting: false,
            no_room: false,
            report_due_ms: 0,
            report_period_ms: u64::from(settings.report_period_ms),
            desired_generation: 0,
            state_due: true,
            merged: 0,
            lost: 0,
            clock_jump_s: 0,
            counters: Counters::default(),
        }
    }

    /// Takes note of a message of an earlier boot that was found in storage. `false` when the message is known
    /// already, or there is no room for it now (the outbox is full, or an [`Action::Admit`] is not answered yet): try
    /// again after acks have come.
    pub fn recover(&mut self, key: MessageKey, kind: UpKind) -> bool {
        !self.admitting && self.outbox.recover(key, kind)
    }

    /// Sets the generation of the desired state that was found in storage, so that an older one is not applied.
    pub fn recover_desired(&mut self, generation: u64) {
        self.desired_generation = self.desired_generation.max(generation);
    }

    /// The generation of the newest desired state that was seen; 0 when there was none.
    pub fn desired_generation(&self) -> u64 {
        self.desired_generation
    }

    /// Whether there is a connection with a subscription.
    pub fn is_online(&self) -> bool {
        matches!(self.link, Link::Online)
    }

    /// Numbered messages that are not acknowledged.
    pub fn outstanding(&self) -> usize {
        self.outbox.len()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes note of what happened, and says what to do.
    ///
    /// `now_ms` is the monotonic clock in milliseconds, from any beginning; a value below that of the step before
    /// counts as no time passed. `random` is used for jitter only; all 32 bits should be random.
    pub fn step(&mut self, event: Event, now_ms: u64, random: u32) -> Actions {
        let mut actions = Actions::default();
        self.note(event, now_ms, random, &mut actions);
        self.drive(now_ms, random, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due if nothing happens before, in milliseconds; `None` when only an event can change
    /// anything.
    pub fn wake_at_ms(&self) -> Option<u64> {
        match self.link {
            Link::New => Some(0),
            Link::Stopped => None,
            Link::Paused { until_ms } | Link::Connecting { until_ms, .. } => Some(until_ms),
            Link::Online if self.more => Some(0),
            Link::Online => {
                let again = self.outbox.entries().filter_map(|entry| entry.sent_ms).min();
                let again = again
                    .filter(|_| !self.blocked)
                    .map(|sent_ms| sent_ms.saturating_add(self.ack_timeout_ms()));
                let silent =
                    self.silent_since_ms.map(|since_ms| since_ms.saturating_add(2 * self.ack_timeout_ms()));
                let admit = self.wants_to_admit().then_some(self.report_due_ms);
                [again, silent, admit].into_iter().flatten().min()
            }
        }
    }

    fn ack_timeout_ms(&self) -> u64 {
        u64::from(self.settings.ack_timeout_ms.max(1))
    }

    fn note(&mut self, event: Event, now_ms: u64, random: u32, actions: &mut Actions) {
        match event {
            Event::Tick => {}
            Event::Connected => match &mut self.link {
                Link::Connecting { accepted, .. } => {
                    *accepted = true;
                    actions.push(Action::Subscribe);
                }
                Link::Online => {}
                // Too late: it was given up.
                _ => actions.push(Action::Disconnect),
            },
            Event::Subscribed => {
                if let Link::Connecting { accepted: true, .. } = self.link {
                    self.begin_session(now_ms);
                }
            }
            Event::Down(cause) => self.down(cause, now_ms, random),
            Event::NotSent(key) => {
                self.blocked = true;
                let sent = self.outbox.entries_mut().find(|entry| entry.key == key);
                if let Some(entry) = sent {
                    entry.sent_ms = None;
                }
            }
            Event::Writable => self.blocked = false,
            Event::Acked(ack) => {
                let released = self.outbox.acknowledge(&ack);
                actions.push(Action::Release(ack));
                self.counters.acknowledged += released as u64;
                self.no_room = self.no_room && released == 0;
                self.attempts = 0;
                let in_flight = self.outbox.entries().any(|entry| entry.sent_ms.is_some());
                self.silent_since_ms = in_flight.then_some(now_ms);
            }
            Event::Desired { generation, report_period_s } => {
                if generation > self.desired_generation {
                    self.desired_generation = generation;
                    self.set_report_period(report_period_s, now_ms);
                    self.state_due = true;
                    actions.push(Action::ApplyDesired { generation });
                }
            }
            Event::Waiting { items, urgent } => {
                self.waiting = items;
                self.no_room = false;
                if urgent {
                    self.report_due_ms = self.report_due_ms.min(now_ms);
                }
            }
            Event::Admitted { kind, messages, closed_ms, waiting } => {
                self.admitting = false;
                self.waiting = waiting;
                self.no_room = messages == 0;
                for _ in 0..messages {
                    self.outbox.add(kind, closed_ms);
                }
                if waiting == 0 {
                    self.report_due_ms = now_ms.saturating_add(self.report_period_ms);
                }
            }
            Event::StateChanged => self.state_due = true,
            Event::Merged { times } => {
                self.merged = self.merged.saturating_add(times);
                self.counters.merged = self.counters.merged.saturating_add(times);
            }
            Event::Lost(key) => {
                if self.outbox.remove(key) {
                    self.lost = self.lost.saturating_add(1);
                    self.counters.lost = self.counters.lost.saturating_add(1);
                }
            }
            Event::ClockSet { by_s } => self.clock_jump_s = self.clock_jump_s.saturating_add(by_s),
            Event::Stop => {
                if matches!(self.link, Link::Connecting { .. } | Link::Online) {
                    actions.push(Action::Disconnect);
                }
                self.end_session();
                self.link = Link::Stopped;
            }
            Event::Start => {
                if self.link == Link::Stopped {
                    self.link = Link::New;
                }
            }
        }
    }

    /// What the time and the state ask for.
    fn drive(&mut self, now_ms: u64, random: u32, actions: &mut Actions) {
        if self.link == Link::New {
            // After a power cut a whole fleet starts at the same moment.
            let spread = u64::from(self.settings.least_pause_ms).saturating_mul(u64::from(random)) >> 32;
            self.link = Link::Paused { until_ms: now_ms.saturating_add(spread) };
        }
        match self.link {
            Link::Paused { until_ms } if now_ms >= until_ms => {
                let limit = u64::from(self.settings.connect_timeout_ms);
                self.link = Link::Connecting { until_ms: now_ms.saturating_add(limit), accepted: false };
                self.counters.connects = self.counters.connects.saturating_add(1);
                actions.push(Action::Connect);
            }
            Link::Connecting { until_ms, .. } if now_ms >= until_ms => {
                actions.push(Action::Disconnect);
                self.down(DownCause::Network, now_ms, random);
            }
            Link::Online if self.is_silent(now_ms) => {
                self.counters.silent = self.counters.silent.saturating_add(1);
                actions.push(Action::Disconnect);
                self.down(DownCause::Network, now_ms, random);
            }
            Link::Online => {
                self.send(now_ms, actions);
                self.ask_for_messages(actions);
                self.admit(now_ms, actions);
            }
            _ => {}
        }
    }

    fn is_silent(&self, now_ms: u64) -> bool {
        let silent_ms = self.silent_since_ms.map(|since_ms| now_ms.saturating_sub(since_ms));
        silent_ms.is_some_and(|silent_ms| silent_ms >= 2 * self.ack_timeout_ms())
    }

    fn begin_session(&mut self, now_ms: u64) {
        self.end_session();
        self.link = Link::Online;
        self.report_due_ms = self.report_due_ms.min(now_ms);
        // One that is outstanding still tells the truth, as a change makes a new one.
        self.state_due |= !self.outbox.own_entries().any(|entry| entry.kind == UpKind::State);
    }

    fn end_session(&mut self) {
        self.outbox.entries_mut().for_each(|entry| entry.sent_ms = None);
        self.silent_since_ms = None;
        self.blocked = false;
        self.more = false;
        self.no_room = false;
    }

    fn down(&mut self, cause: DownCause, now_ms: u64, random: u32) {
        if !matches!(self.link, Link::Connecting { .. } | Link::Online) {
            return;
        }
        let attempts = match cause {
            DownCause::Network => self.attempts,
            DownCause::Refused => u32::MAX,
        };
        let Settings { least_pause_ms, longest_pause_ms, .. } = self.settings;
        let pause_ms = pause_ms(least_pause_ms, longest_pause_ms, attempts, random);
        self.attempts = self.attempts.saturating_add(1);
        self.end_session();
        self.link = Link::Paused { until_ms: now_ms.saturating_add(pause_ms) };
    }

    /// Sends what is due, from the oldest message on.
    fn send(&mut self, now_ms: u64, actions: &mut Actions) {
        self.more = false;
        if self.blocked {
            return;
        }
        let timeout_ms = self.ack_timeout_ms();
        let limit = usize::from(self.settings.in_flight.clamp(1, Settings::MAX_IN_FLIGHT));
        let mut in_flight = self.outbox.entries().filter(|entry| entry.sent_ms.is_some()).count();
        let mut sends = 0;
        for place in 0..self.outbox.len() {
            let Some(entry) = self.outbox.entries().nth(place).copied() else { break };
            let due = match entry.sent_ms {
                Some(sent_ms) => now_ms.saturating_sub(sent_ms) >= timeout_ms,
                None => in_flight < limit,
            };
            if !due {
                continue;
            }
            let envelope = self.outbox.envelope(&entry, now_ms);
            // Damaged storage may hold numbers that lie too far apart: the higher ones wait for the lower ones.
            if envelope.seq - envelope.oldest >= WINDOW {
                continue;
            }
            if sends == MAX_SENDS {
                self.more = true;
                break;
            }
            actions.push(Action::Send { kind: entry.kind, envelope });
            in_flight += usize::from(entry.sent_ms.is_none());
            sends += 1;
            self.counters.sent += 1;
            self.silent_since_ms.get_or_insert(now_ms);
            if let Some(entry) = self.outbox.entries_mut().nth(place) {
                entry.sent_ms = Some(now_ms);
            }
        }
    }

    /// Has the state and what was counted here put to what waits.
    fn ask_for_messages(&mut self, actions: &mut Actions) {
        if core::mem::take(&mut self.state_due) {
            actions.push(Action::ReportState);
        }
        let notes = [
            (EventKind::QueueMerged, i64::from(core::mem::take(&mut self.merged))),
            (EventKind::StorageLost, i64::from(core::mem::take(&mut self.lost))),
            (EventKind::ClockJump, core::mem::take(&mut self.clock_jump_s)),
        ];
        for (kind, value) in notes.into_iter().filter(|(_, value)| *value != 0) {
            actions.push(Action::Note { kind, value });
        }
    }

    /// Has the next item numbered, once everything that has a number is sent: until then it can still be merged.
    fn admit(&mut self, now_ms: u64, actions: &mut Actions) {
        if self.wants_to_admit() && now_ms >= self.report_due_ms {
            self.admitting = true;
            let room = u16::try_from(self.outbox.room()).unwrap_or(u16::MAX);
            actions.push(Action::Admit { first_seq: self.outbox.next_seq(), room });
        }
    }

    fn wants_to_admit(&self) -> bool {
        let limit = usize::from(self.settings.in_flight.clamp(1, Settings::MAX_IN_FLIGHT));
        self.waiting > 0
            && !self.admitting
            && !self.no_room
            && !self.blocked
            && self.outbox.room() > 0
            && self.outbox.entries().all(|entry| entry.sent_ms.is_some())
            && self.outbox.len() < limit
    }

    fn set_report_period(&mut self, period_s: u32, now_ms: u64) {
        self.report_period_ms = match period_s {
            0 => u64::from(self.settings.report_period_ms),
            period_s => u64::from(period_s) * 1000,
        };
        self.report_due_ms = self.report_due_ms.min(now_ms.saturating_add(self.report_period_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_documented() {
        assert_eq!(size_of::<outbox::Entry>(), 56);
        assert!(size_of::<Uplink<64>>() <= 64 * 56 + 256, "{}", size_of::<Uplink<64>>());
        assert!(size_of::<Actions>() <= 1024, "{}", size_of::<Actions>());
    }
}
