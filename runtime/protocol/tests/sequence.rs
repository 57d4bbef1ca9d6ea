//! The window against the plain truth: a set of all messages that were ever applied.

use std::collections::BTreeSet;

use dunlin_protocol::limits::{MAX_SEQUENCE, WINDOW};
use dunlin_protocol::{Ack, SequenceWindow, Verdict};
use proptest::prelude::*;

/// What may happen on the way from a device to the server.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The device takes a new number, if its window has room.
    New,
    /// One of the copies in flight arrives; it stays in flight when `doubled`.
    Arrive { which: usize, doubled: bool },
    /// One of the copies in flight is lost.
    Lose { which: usize },
    /// The device sends one of its outstanding messages again.
    Resend { which: usize },
    /// One of the acks on the way arrives, however old.
    Ack { which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>();
    let step = prop_oneof![
        4 => Just(Step::New),
        6 => (which, any::<bool>()).prop_map(|(which, doubled)| Step::Arrive { which, doubled }),
        1 => any::<usize>().prop_map(|which| Step::Lose { which }),
        2 => any::<usize>().prop_map(|which| Step::Resend { which }),
        2 => any::<usize>().prop_map(|which| Step::Ack { which }),
    ];
    prop::collection::vec(step, 0..800)
}

proptest! {
    #[test]
    fn each_message_is_applied_once(first in prop_oneof![Just(0), 0..MAX_SEQUENCE - 10_000], steps in steps()) {
        let mut window = SequenceWindow::from_parts(first, 0);
        let mut applied = BTreeSet::new();
        let mut outstanding = BTreeSet::new();
        let mut next = first;
        let (mut in_flight, mut acks) = (Vec::new(), Vec::new());
        for step in steps {
            let oldest = outstanding.first().copied().unwrap_or(next);
            match step {
                Step::New if next < oldest + WINDOW => {
                    outstanding.insert(next);
                    in_flight.push((next, oldest));
                    next += 1;
                }
                Step::Arrive { which, doubled } if !in_flight.is_empty() => {
                    let which = which % in_flight.len();
                    let (seq, oldest) = in_flight[which];
                    if !doubled {
                        in_flight.swap_remove(which);
                    }
                    let expected = if applied.insert(seq) { Verdict::Fresh } else { Verdict::Duplicate };
                    prop_assert_eq!(window.apply(seq, oldest), expected);
                    acks.push(window.ack(7));
                }
                Step::Lose { which } if !in_flight.is_empty() => {
                    in_flight.swap_remove(which % in_flight.len());
                }
                Step::Resend { which } if !outstanding.is_empty() => {
                    let seq = *outstanding.iter().nth(which % outstanding.len()).unwrap();
                    in_flight.push((seq, oldest));
                }
                Step::Ack { which } if !acks.is_empty() => {
                    let ack: Ack = acks[which % acks.len()];
                    outstanding.retain(|seq| !ack.covers(*seq));
                }
                _ => {}
            }
            // What the device forgot was applied, and the window knows exactly what was applied.
            for seq in first..next {
                prop_assert_eq!(window.contains(seq), applied.contains(&seq));
                prop_assert!(applied.contains(&seq) || outstanding.contains(&seq));
            }
            prop_assert!(!window.contains(next));
            prop_assert!(!window.contains(window.base()));
            prop_assert!(i64::try_from(window.base()).is_ok() && i64::try_from(window.bitmap()).is_ok());
            prop_assert_eq!(SequenceWindow::from_parts(window.base(), window.bitmap()), window);
        }
    }

    #[test]
    fn any_numbers_in_any_order_do_no_harm(calls in prop::collection::vec((any::<u64>(), any::<u64>()), 0..50),
                                           base: u64, bitmap: u64) {
        let mut window = SequenceWindow::from_parts(base, bitmap);
        for (seq, oldest) in calls {
            let before = window;
            let verdict = window.apply(seq, oldest);
            match verdict {
                Verdict::Malformed => prop_assert_eq!(window, before),
                Verdict::Fresh => prop_assert!(!before.contains(seq) && window.contains(seq)),
                Verdict::Duplicate => prop_assert!(window.contains(seq)),
            }
            prop_assert!(window.base() >= before.base());
        }
    }
}

#[test]
fn numbers_outside_of_the_devices_own_window_are_malformed() {
    let mut window = SequenceWindow::default();
    for (seq, oldest) in [(64, 0), (u64::MAX, 0), (3, 4), (MAX_SEQUENCE + 1, MAX_SEQUENCE)] {
        assert_eq!(window.apply(seq, oldest), Verdict::Malformed);
    }
    assert_eq!(window, SequenceWindow::default());
    assert_eq!(window.apply(63, 0), Verdict::Fresh);
    assert_eq!((window.base(), window.bitmap()), (0, 1 << 62));
}

#[test]
fn what_the_device_released_is_a_duplicate() {
    let mut window = SequenceWindow::default();
    assert_eq!(window.apply(100, 90), Verdict::Fresh);
    assert_eq!((window.base(), window.bitmap()), (90, 1 << 9));
    assert_eq!(window.apply(89, 80), Verdict::Duplicate);
    assert_eq!(window.apply(101, 101), Verdict::Fresh);
    assert_eq!((window.base(), window.bitmap()), (102, 0));
}

#[test]
fn the_highest_number_is_not_beyond_the_integers_of_databases() {
    let mut window = SequenceWindow::default();
    assert_eq!(window.apply(MAX_SEQUENCE, MAX_SEQUENCE), Verdict::Fresh);
    assert_eq!(window.apply(MAX_SEQUENCE, MAX_SEQUENCE), Verdict::Duplicate);
    assert!(window.base() <= i64::MAX as u64);
}

#[test]
fn ack_covers_what_the_window_contains() {
    let mut window = SequenceWindow::default();
    for seq in [0, 1, 3, 7, 40] {
        window.apply(seq, 0);
    }
    let mut message = [0; Ack::MAX_LEN];
    let len = window.ack(u64::MAX).encode(&mut message).unwrap();
    let ack = Ack::decode(&message[..len]).unwrap();
    assert_eq!(ack, window.ack(u64::MAX));
    assert!((0..200).all(|seq| ack.covers(seq) == window.contains(seq)));
    assert!((0..200).all(|seq| ack.covers(seq) == [0, 1, 3, 7, 40].contains(&seq)));
}
