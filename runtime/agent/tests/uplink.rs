//! The device's state machine, one promise at a time. The simulation shows that they hold together.

use dunlin_agent::uplink::{Action, DownCause, Event, MessageKey, Settings, Uplink};
use dunlin_protocol::{Ack, Envelope, EventKind, UpKind};

const BOOT: u64 = 0xb007;
const SETTINGS: Settings = Settings {
    connect_timeout_ms: 30_000,
    ack_timeout_ms: 30_000,
    least_pause_ms: 1_000,
    longest_pause_ms: 300_000,
    in_flight: 4,
    report_period_ms: 0,
};

/// A device whose items each become `parts` messages, with a clock of its own and no jitter.
struct Device {
    uplink: Uplink<128>,
    now_ms: u64,
    waiting: u16,
    parts: u16,
    next_seq: u64,
    /// A state waits, before the windows.
    state: bool,
}

impl Device {
    fn new() -> Self {
        Self::with(SETTINGS)
    }

    fn with(settings: Settings) -> Self {
        Self {
            uplink: Uplink::new(settings, BOOT),
            now_ms: 0,
            waiting: 0,
            parts: 1,
            next_seq: 0,
            state: false,
        }
    }

    /// A device that is connected and subscribed, and has reported its state with message 0.
    fn online() -> Self {
        let mut device = Self::new();
        device.go_online();
        device.acked(device.next_seq);
        device
    }

    fn go_online(&mut self) -> Vec<Action> {
        self.step(Event::Tick);
        self.step(Event::Connected);
        self.step(Event::Subscribed)
    }

    /// Performs what only concerns storage, and gives back the rest.
    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut rest = Vec::new();
        let mut event = Some(event);
        while let Some(next) = event.take() {
            for action in self.uplink.step(next, self.now_ms, 0) {
                match action {
                    Action::Admit { first_seq, room } => {
                        assert_eq!(first_seq, self.next_seq);
                        let messages = if self.parts <= room { self.parts } else { 0 };
                        self.next_seq += u64::from(messages);
                        self.waiting -= u16::from(messages > 0);
                        let kind = match std::mem::take(&mut self.state) {
                            true => UpKind::State,
                            false => UpKind::Report,
                        };
                        let closed_ms = self.now_ms;
                        event = Some(Event::Admitted { kind, messages, closed_ms, waiting: self.waiting });
                    }
                    Action::ReportState | Action::Note { .. } => {
                        rest.push(action);
                        self.state |= action == Action::ReportState;
                        self.waiting += 1;
                        event = Some(Event::Waiting { items: self.waiting, urgent: true });
                    }
                    action => rest.push(action),
                }
            }
        }
        rest
    }

    fn windows(&mut self, more: u16) -> Vec<Action> {
        self.waiting += more;
        self.step(Event::Waiting { items: self.waiting, urgent: false })
    }

    fn acked(&mut self, base: u64) -> Vec<Action> {
        self.step(Event::Acked(Ack { boot: BOOT, base, bitmap: 0 }))
    }

    fn after(&mut self, ms: u64) -> Vec<Action> {
        self.now_ms += ms;
        self.step(Event::Tick)
    }

    /// Waits until it wants to do something, and does it; how long that took.
    fn wait(&mut self) -> (u64, Vec<Action>) {
        let at_ms = self.uplink.wake_at_ms().expect("it waits for something");
        let waited_ms = at_ms.saturating_sub(self.now_ms);
        (waited_ms, self.after(waited_ms))
    }
}

/// The envelopes of the messages sent.
fn sent(actions: &[Action]) -> Vec<Envelope> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { envelope, .. } => Some(*envelope),
        _ => None,
    });
    sent.collect()
}

fn numbers(actions: &[Action]) -> Vec<u64> {
    sent(actions).iter().map(|envelope| envelope.seq).collect()
}

#[test]
fn connects_subscribes_and_reports_its_state() {
    let mut device = Device::new();
    assert_eq!(device.step(Event::Tick), [Action::Connect]);
    assert_eq!(device.step(Event::Connected), [Action::Subscribe]);
    assert!(!device.uplink.is_online());
    let actions = device.step(Event::Subscribed);
    assert!(device.uplink.is_online());
    assert_eq!(actions[0], Action::ReportState);
    assert_eq!(sent(&actions), [Envelope { boot: BOOT, seq: 0, oldest: 0, age_s: 0 }]);
}

#[test]
fn a_fleet_that_starts_at_once_spreads() {
    for random in [0, 1 << 30, u32::MAX] {
        let mut uplink: Uplink<64> = Uplink::new(SETTINGS, BOOT);
        let first = uplink.step(Event::Tick, 5_000, random).count();
        let expected_ms = 5_000 + ((1_000 * u64::from(random)) >> 32);
        assert_eq!(
            (first, uplink.wake_at_ms()),
            (
                usize::from(random == 0),
                match random {
                    0 => Some(35_000),
                    _ => Some(expected_ms),
                }
            )
        );
    }
}

#[test]
fn pauses_grow_until_something_is_acknowledged() {
    let mut device = Device::new();
    device.step(Event::Tick);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert!(device.step(Event::Down(DownCause::Network)).is_empty());
        let (waited_ms, actions) = device.wait();
        assert_eq!(actions, [Action::Connect]);
        pauses.push(waited_ms / 1000);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);

    // A connection alone proves nothing: the broker may be up and the control plane down.
    device.step(Event::Connected);
    device.step(Event::Subscribed);
    device.step(Event::Down(DownCause::Network));
    assert_eq!(device.wait().0, 300_000);
    device.step(Event::Connected);
    device.step(Event::Subscribed);
    device.acked(1);
    device.step(Event::Down(DownCause::Network));
    assert_eq!(device.wait().0, 1_000);
}

#[test]
fn a_refused_credential_waits_for_the_longest_pause() {
    let mut device = Device::new();
    device.step(Event::Tick);
    device.step(Event::Down(DownCause::Refused));
    assert_eq!(device.wait(), (300_000, vec![Action::Connect]));
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    let mut device = Device::new();
    device.step(Event::Tick);
    device.step(Event::Connected);
    let (waited_ms, actions) = device.wait();
    assert_eq!((waited_ms, actions), (30_000, vec![Action::Disconnect]));
    // What comes too late is refused.
    assert_eq!(device.step(Event::Connected), [Action::Disconnect]);
    assert!(device.step(Event::Subscribed).is_empty());
    assert!(!device.uplink.is_online());
}

#[test]
fn a_half_open_connection_is_noticed_by_missing_acks() {
    let mut device = Device::online();
    assert_eq!(numbers(&device.windows(2)), [1, 2]);
    // First the messages are repeated: the ack may have been lost.
    let (waited_ms, actions) = device.wait();
    assert_eq!((waited_ms, numbers(&actions)), (30_000, vec![1, 2]));
    let (waited_ms, actions) = device.wait();
    assert_eq!((waited_ms, actions), (30_000, vec![Action::Disconnect]));
    assert_eq!(device.uplink.counters().silent, 1);
    // A control plane that takes its time but answers is alive.
    let mut device = Device::online();
    device.windows(2);
    for _ in 0..20 {
        device.after(29_000);
        device.acked(2);
    }
    assert_eq!(device.uplink.counters().silent, 0);
    assert!(device.uplink.is_online());
}

#[test]
fn an_idle_connection_is_left_alone() {
    let mut device = Device::online();
    assert_eq!(device.uplink.wake_at_ms(), None);
    assert!(device.after(86_400_000).is_empty());
}

#[test]
fn only_an_ack_releases() {
    let mut device = Device::online();
    assert_eq!(numbers(&device.windows(4)), [1, 2, 3, 4]);
    assert_eq!(device.uplink.outstanding(), 4);
    // 2 is missing.
    let ack = Ack { boot: BOOT, base: 2, bitmap: 0b11 };
    assert_eq!(device.step(Event::Acked(ack)), [Action::Release(ack)]);
    assert_eq!(device.uplink.outstanding(), 1);
    // An old one changes nothing, one of another boot neither.
    device.acked(1);
    device.step(Event::Acked(Ack { boot: BOOT + 1, base: 100, bitmap: u64::MAX }));
    assert_eq!(device.uplink.outstanding(), 1);
    device.acked(3);
    assert_eq!((device.uplink.outstanding(), device.uplink.counters().acknowledged), (0, 5));
}

#[test]
fn after_a_new_session_everything_is_sent_again_from_the_oldest_on() {
    let mut device = Device::new();
    let earlier =
        [MessageKey { boot: 9, seq: 70 }, MessageKey { boot: 9, seq: 68 }, MessageKey { boot: 5, seq: 3 }];
    assert!(earlier.iter().all(|key| device.uplink.recover(*key, UpKind::Report)));
    assert!(!device.uplink.recover(earlier[0], UpKind::Report));
    let actions = device.go_online();
    let sent_first: Vec<(u64, u64, u64)> = sent(&actions).iter().map(|e| (e.boot, e.seq, e.oldest)).collect();
    assert_eq!(sent_first, [(5, 3, 3), (9, 68, 68), (9, 70, 68), (BOOT, 0, 0)]);
    assert!(sent(&actions)[..3].iter().all(|envelope| envelope.age_s == Envelope::AGE_UNKNOWN));

    device.step(Event::Acked(Ack { boot: 9, base: 69, bitmap: 0 }));
    device.step(Event::Down(DownCause::Network));
    device.wait();
    device.step(Event::Connected);
    let again: Vec<(u64, u64, u64)> =
        sent(&device.step(Event::Subscribed)).iter().map(|e| (e.boot, e.seq, e.oldest)).collect();
    assert_eq!(again, [(5, 3, 3), (9, 70, 70), (BOOT, 0, 0)]);
}

#[test]
fn a_few_messages_are_in_flight_and_the_rest_waits_without_numbers() {
    let mut device = Device::online();
    assert_eq!(numbers(&device.windows(100)), [1, 2, 3, 4]);
    assert_eq!(device.waiting, 96);
    assert_eq!(numbers(&device.acked(3)), [5, 6]);
    assert_eq!((device.uplink.outstanding(), device.waiting), (4, 94));
}

#[test]
fn no_more_than_the_window_is_outstanding() {
    let mut device = Device::online();
    device.parts = 30;
    device.windows(10);
    // While the first of a window is outstanding, its number bounds all others.
    for _ in 0..5 {
        let oldest = device.next_seq - device.uplink.outstanding() as u64;
        device.acked(oldest + 28);
        assert!(device.uplink.outstanding() <= 64);
    }
    // What does not fit waits until there is room.
    device.parts = 64;
    device.acked(device.next_seq - 1);
    assert_eq!(device.uplink.outstanding(), 1);
    let waiting = device.waiting;
    device.acked(device.next_seq);
    assert_eq!((device.waiting, device.uplink.outstanding()), (waiting - 1, 64));
}

#[test]
fn the_age_is_measured_by_the_monotonic_clock() {
    let mut device = Device::online();
    device.windows(1);
    device.step(Event::ClockSet { by_s: -3_600 });
    let actions = device.after(30_000);
    assert_eq!(sent(&actions)[0].age_s, 30);
}

#[test]
fn what_happened_here_is_told_once_when_there_is_a_connection() {
    let mut device = Device::new();
    device.step(Event::Merged { times: 2 });
    device.step(Event::Merged { times: 1 });
    device.step(Event::ClockSet { by_s: 90 });
    device.step(Event::ClockSet { by_s: -30 });
    let lost = MessageKey { boot: 1, seq: 1 };
    assert!(device.uplink.recover(lost, UpKind::Report));
    device.step(Event::Lost(lost));
    device.step(Event::Lost(lost));
    let actions = device.go_online();
    let notes: Vec<(EventKind, i64)> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Note { kind, value } => Some((*kind, *value)),
            _ => None,
        })
        .collect();
    assert_eq!(notes, [(EventKind::QueueMerged, 3), (EventKind::StorageLost, 1), (EventKind::ClockJump, 60)]);
    device.acked(device.next_seq);
    assert!(device.step(Event::Tick).is_empty());
    assert_eq!((device.uplink.counters().merged, device.uplink.counters().lost), (3, 1));
}

#[test]
fn only_a_newer_desired_state_is_applied_and_answered() {
    let mut device = Device::online();
    let desired = |generation| Event::Desired { generation, report_period_s: 0 };
    let actions = device.step(desired(7));
    assert_eq!(actions[..2], [Action::ApplyDesired { generation: 7 }, Action::ReportState]);
    assert!(device.step(desired(7)).is_empty());
    assert!(device.step(desired(6)).is_empty());
    assert_eq!(device.uplink.desired_generation(), 7);
    let mut restarted = Device::new();
    restarted.uplink.recover_desired(7);
    restarted.go_online();
    assert!(restarted.step(desired(7)).is_empty());
}

#[test]
fn the_state_is_reported_on_change_and_on_connect_unless_it_is_on_its_way() {
    let mut device = Device::online();
    assert_eq!(device.step(Event::StateChanged)[0], Action::ReportState);
    device.acked(device.next_seq);
    device.step(Event::Down(DownCause::Network));
    device.wait();
    device.step(Event::Connected);
    assert_eq!(device.step(Event::Subscribed)[0], Action::ReportState);

    // Many short connections do not fill the outbox with states.
    let mut uplink: Uplink<64> = Uplink::new(SETTINGS, BOOT);
    let mut now_ms = 0;
    for round in 0..50 {
        let mut reports = 0;
        for event in [Event::Tick, Event::Connected, Event::Subscribed] {
            let mut event = Some(event);
            while let Some(next) = event.take() {
                for action in uplink.step(next, now_ms, 0) {
                    match action {
                        Action::ReportState => {
                            reports += 1;
                            event = Some(Event::Waiting { items: 1, urgent: true });
                        }
                        Action::Admit { .. } => {
                            let kind = UpKind::State;
                            event = Some(Event::Admitted { kind, messages: 1, closed_ms: 0, waiting: 0 });
                        }
                        _ => {}
                    }
                }
            }
        }
        assert_eq!(reports, u32::from(round == 0), "{round}");
        uplink.step(Event::Down(DownCause::Network), now_ms, 0);
        now_ms = uplink.wake_at_ms().unwrap();
    }
    assert_eq!(uplink.outstanding(), 1);
}

#[test]
fn windows_wait_for_the_report_period_and_urgent_messages_do_not() {
    let mut device = Device::with(Settings { report_period_ms: 60_000, ..SETTINGS });
    device.go_online();
    device.acked(1);
    assert!(device.windows(3).is_empty());
    let (waited_ms, actions) = device.wait();
    assert_eq!((waited_ms, numbers(&actions)), (60_000, vec![1, 2, 3]));
    device.acked(4);
    device.now_ms += 1_000;
    device.waiting += 1;
    let urgent = device.step(Event::Waiting { items: device.waiting, urgent: true });
    assert_eq!(numbers(&urgent), [4]);
    device.acked(5);

    // The control plane sets another period.
    device.step(Event::Desired { generation: 1, report_period_s: 10 });
    device.acked(device.next_seq);
    assert!(device.windows(1).is_empty());
    assert_eq!(device.wait().0, 10_000);
}

#[test]
fn a_transport_without_room_is_waited_for() {
    let mut device = Device::online();
    assert_eq!(numbers(&device.windows(2)), [1, 2]);
    assert!(device.step(Event::NotSent(MessageKey { boot: BOOT, seq: 2 })).is_empty());
    assert!(device.windows(1).is_empty());
    assert_eq!(numbers(&device.step(Event::Writable)), [2, 3]);
}

#[test]
fn stop_keeps_everything_and_start_goes_on() {
    let mut device = Device::online();
    device.windows(2);
    assert_eq!(device.step(Event::Stop), [Action::Disconnect]);
    assert_eq!(device.uplink.wake_at_ms(), None);
    assert!(device.windows(1).is_empty());
    assert!(device.after(1_000_000).is_empty());
    assert_eq!(device.step(Event::Start), [Action::Connect]);
    device.step(Event::Connected);
    assert_eq!(numbers(&device.step(Event::Subscribed)), [1, 2, 3, 4]);
}

#[test]
fn a_clock_that_goes_back_counts_as_no_time() {
    let mut device = Device::online();
    device.now_ms = 100_000;
    device.windows(1);
    device.now_ms = 50_000;
    assert!(device.step(Event::Tick).is_empty());
    device.now_ms = 130_000;
    assert_eq!(numbers(&device.step(Event::Tick)), [1]);
}
