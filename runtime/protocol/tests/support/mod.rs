//! The messages of version 1, with values that a reader recognizes. `released/v1` and `PROTOCOL.md` hold their bytes.

use dunlin_monitor::{Failure, FeatureKind, Gauge, GaugeKind, Mark, Period, Shape, Totals, Window};
use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Chunk, Desired, DesiredSlot, EncodeError, Envelope, Event,
    EventKind, Fetch, Label, LabelCount, List, Name, Object, Pair, PublicKey, Release, ReportEncoder, Role,
    RoleKeys, Root, Signature, SlotState, SlotStatus, State, write_signed,
};

pub(crate) const BOOT: u64 = 0x0807_0605_0403_0201;
pub(crate) const MODEL: [u8; 32] = [0xaa; 32];
pub(crate) const EVENT: Event =
    Event { unix_s: 1_795_000_000, slot: "kws", kind: EventKind::QueueMerged, value: 3, detail: "" };
pub(crate) const ATTRIBUTES: [Pair; 1] = [Pair { key: "site", value: "hall 2" }];
pub(crate) const SLOTS: [SlotState; 1] =
    [SlotState { slot: "kws", model: MODEL, status: SlotStatus::Running, reason: "" }];
pub(crate) const ENTRIES: [LabelCount; 2] = [
    LabelCount { predicted: 3, label: 3, confidence_bin: 9, count: 20 },
    LabelCount { predicted: 3, label: 7, confidence_bin: LabelCount::CONFIDENCE_UNKNOWN, count: 1 },
];
pub(crate) const SETTINGS: [Pair; 1] = [Pair { key: "threshold", value: "0.8" }];
pub(crate) const FETCH: Fetch = Fetch { object: Object::Artifact(MODEL), offset: 4096, len: 1024 };
pub(crate) const CHUNK: Chunk =
    Chunk { object: Object::Root(2), offset: 0, total: 300, retry_after_s: 0, bytes: &[0x01, 0x02, 0xac] };
pub(crate) const ACK: Ack = Ack { boot: BOOT, base: 300, bitmap: 0b101 };
pub(crate) const ENVELOPE: Envelope = Envelope { boot: BOOT, seq: 300, oldest: 298, age_s: 5 };

pub(crate) fn desired_slots() -> [DesiredSlot<'static>; 1] {
    [DesiredSlot {
        slot: "kws",
        version: 4,
        model: MODEL,
        size: 66_112,
        url: "https://dunlin.example/a",
        settings: (&SETTINGS).into(),
        name: "wake word",
        release: &[0x01, 0x02],
    }]
}

pub(crate) const SIGNATURES: [Signature; 1] = [Signature { key: [0xbb; 32], signature: [0xcc; 64] }];
pub(crate) const KEYS: [PublicKey; 2] = [PublicKey([0xbb; 32]), PublicKey([0xdd; 32])];
pub(crate) const HARDWARE: [Name; 1] = [Name("cortex-m7")];

pub(crate) fn roles() -> [RoleKeys<'static>; 2] {
    let keys = |role, threshold, keys: &'static [PublicKey]| RoleKeys { role, threshold, keys: keys.into() };
    [keys(Role::Root, 1, &KEYS[..1]), keys(Role::Release, 2, &KEYS)]
}

pub(crate) fn root<'a>(roles: &'a [RoleKeys<'a>]) -> Root<'a> {
    Root { number: 2, issued_unix_s: 1_795_000_000, expires_unix_s: 0, roles: roles.into() }
}

pub(crate) fn release() -> Release<'static> {
    Release {
        model: "wake word",
        version: 4,
        digest: MODEL,
        size: 66_112,
        issued_unix_s: 1_795_000_000,
        expires_unix_s: 0,
        floor: 2,
        hardware: (&HARDWARE).into(),
    }
}

/// What `encode` writes, with [`SIGNATURES`].
pub(crate) fn signed(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let message = bytes(encode);
    bytes(|out| write_signed(&message, List::from(&SIGNATURES), out))
}

pub(crate) fn state() -> State<'static> {
    State {
        agent_version: "0.1.0",
        hardware: "cortex-m7",
        attributes: (&ATTRIBUTES).into(),
        slots: (&SLOTS).into(),
        desired_generation: 12,
    }
}

pub(crate) fn label() -> Label<'static> {
    Label { slot: "kws", model: MODEL, entries: (&ENTRIES).into() }
}

pub(crate) fn desired<'a>(slots: &'a [DesiredSlot<'a>]) -> Desired<'a> {
    Desired {
        generation: 12,
        issued_unix_s: 1_795_000_000,
        expires_unix_s: 0,
        report_period_s: 60,
        window_period_s: 60,
        window_count: 0,
        slots: slots.into(),
        device: "pump-7",
        root: 2,
    }
}

/// A window with something in every section.
pub(crate) fn window() -> Window<3, 60> {
    let shapes = [(FeatureKind::Numeric, 40), (FeatureKind::Classes, 12), (FeatureKind::Categories, 8)];
    let shapes = shapes.map(|(kind, counters)| Shape { kind, counters });
    let mut window = Window::new(MODEL, shapes).unwrap();
    window.set_period(Period { start_unix_s: 1_795_000_000, duration_ms: 60_000, closed_ms: 0, windows: 1 });
    window.add_inferences(200);
    window.add_failures(Failure::Input, 2);
    window.add_gauge(GaugeKind::Temperature, Gauge { n: 2, min: -500, max: 21_500, sum: 21_000 });
    window.raise_mark(Mark::Arena, 22_112);
    assert!(window.add_latencies(100, 199) && window.add_latencies(103, 1));
    window.add_latency_sum(3_000_000, 23_000);
    assert!(window.add_count(0, 0, 1) && window.add_count(0, 5, 199));
    let totals = Totals { missing: 1, min: -1.0, max: 2.5, sum: -1_000, squares: 70_000 };
    assert!(window.add_totals(0, &totals));
    assert!(window.add_count(1, 3, 150) && window.add_count(1, 11, 50));
    assert!(window.add_count(2, 7, 200));
    window
}

fn bytes<E: std::fmt::Debug>(write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    let len = write(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// Every message of version 1 with its name in `released/v1`.
pub(crate) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let in_envelope = |body: Vec<u8>| bytes(|out| ENVELOPE.encode(&body, out));
    let slots = desired_slots();
    let window = window();
    let mut reports = ReportEncoder::new("kws", &window);
    let report = bytes(|out| reports.next_body(out).map(Option::unwrap));
    vec![
        ("report", in_envelope(report)),
        ("state", in_envelope(bytes(|out| state().encode(out)))),
        ("event", in_envelope(bytes(|out| EVENT.encode(out)))),
        ("label", in_envelope(bytes(|out| label().encode(out)))),
        ("csr", bytes(|out| CertificateRequest { der: &[0x30, 0x01, 0x00] }.encode(out))),
        ("desired", signed(|out| desired(&slots).encode(out))),
        ("root", signed(|out| root(&roles()).encode(out))),
        ("release", signed(|out| release().encode(out))),
        ("fetch", bytes(|out| FETCH.encode(out))),
        ("chunk", bytes(|out| CHUNK.encode(out))),
        ("ack", bytes(|out| ACK.encode(out))),
        (
            "cert",
            bytes(|out| Certificate { device: &[0x30, 0x01, 0x00], authority: &[0x30, 0x00] }.encode(out)),
        ),
    ]
}

/// Bytes from text: two digits each; spaces, and lines that begin with `#`, do not count.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> = lines.flat_map(str::bytes).filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert_eq!(digits.len() % 2, 0, "half a byte");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
