//! Any events in any order, at any times, into the device's state machine: it keeps its promises whatever the shell
//! and the network do.
#![no_main]

use std::collections::BTreeSet;

use dunlin_agent::uplink::{Action, DownCause, Event, MessageKey, Settings, Uplink};
use dunlin_protocol::{Ack, UpKind, limits::WINDOW};

const OUTBOX: usize = 96;
const BOOT: u64 = 1;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let mut next = move || bytes.next();
    let Some(settings) = next() else { return };
    let in_flight = settings % 20;
    let mut uplink: Uplink<OUTBOX> = Uplink::new(Settings { in_flight, ..Settings::default() }, BOOT);
    let mut outstanding = BTreeSet::new();
    let (mut now_ms, mut asked) = (0_u64, None);
    while let (Some(choice), Some(a)) = (next(), next()) {
        let key = MessageKey { boot: u64::from(a % 3), seq: u64::from(a / 3) };
        let event = match choice % 16 {
            0 => Event::Tick,
            1 => Event::Connected,
            2 => Event::Subscribed,
            3 => Event::Down(if a < 200 { DownCause::Network } else { DownCause::Refused }),
            4 => Event::NotSent(key),
            5 => Event::Writable,
            6 => {
                let ack = Ack { boot: key.boot, base: key.seq, bitmap: u64::from(choice) };
                outstanding.retain(|key: &MessageKey| key.boot != ack.boot || !ack.covers(key.seq));
                Event::Acked(ack)
            }
            7 => Event::Desired { generation: u64::from(a), report_period_s: u32::from(a) },
            8 => Event::Waiting { items: u16::from(a), urgent: choice > 127 },
            9 | 10 => {
                // An honest shell stores no more than there is room for, under the numbers that it is told.
                let Some((first_seq, room)) = asked.take() else { continue };
                let messages = u16::from(a % 80).min(room);
                for seq in (first_seq..).take(usize::from(messages)) {
                    assert!(outstanding.insert(MessageKey { boot: BOOT, seq }), "a number is given once");
                }
                Event::Admitted {
                    kind: UpKind::Report,
                    messages,
                    closed_ms: now_ms,
                    waiting: u16::from(choice),
                }
            }
            11 => Event::StateChanged,
            12 => {
                outstanding.remove(&key);
                Event::Lost(key)
            }
            13 => Event::ClockSet { by_s: if a < 128 { i64::MAX } else { i64::MIN } },
            14 => Event::Merged { times: u32::MAX / (1 + u32::from(a)) },
            _ if a < 60 => Event::Stop,
            _ if a < 120 => Event::Start,
            _ => {
                if uplink.recover(key, UpKind::Event) {
                    assert!(outstanding.insert(key), "known messages are not taken twice");
                }
                Event::Tick
            }
        };
        now_ms = match choice {
            250.. => now_ms.saturating_mul(2).saturating_add(u64::from(a)),
            249 => now_ms.saturating_sub(u64::from(a)),
            _ => now_ms.saturating_add(u64::from(a) * 100),
        };
        for action in uplink.step(event, now_ms, u32::from(a) << 24) {
            match action {
                Action::Send { envelope, .. } => {
                    let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
                    assert!(outstanding.contains(&key), "only what is outstanding is sent");
                    assert!(envelope.encode(&[], &mut [0; 64]).is_ok(), "every envelope is valid");
                    let oldest = outstanding.iter().find(|other| other.boot == key.boot);
                    assert_eq!(oldest.map(|key| key.seq), Some(envelope.oldest));
                }
                Action::Admit { first_seq, room } => {
                    assert!(asked.replace((first_seq, room)).is_none(), "one item at a time");
                    assert!(usize::from(room) <= OUTBOX && u64::from(room) <= WINDOW);
                }
                _ => {}
            }
        }
        assert_eq!(uplink.outstanding(), outstanding.len());
        std::hint::black_box(uplink.wake_at_ms());
    }
});
