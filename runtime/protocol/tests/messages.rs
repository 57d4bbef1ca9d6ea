//! Every message but the report: written, read, refused.

use dunlin_protocol::limits::{MAX_ENVELOPE, MAX_SEQUENCE, MAX_TOPIC};
use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Chunk, DecodeError, Desired, DesiredSlot, DeviceId, DownKind,
    EncodeError, Envelope, Event, EventKind, Fetch, Label, LabelCount, List, Name, Object, Pair, PublicKey,
    Release, Role, RoleKeys, Root, Signature, Signed, SlotState, SlotStatus, State, Topic, UP_FILTER, UpKind,
    write_signed,
};
use proptest::prelude::*;

const ATTRIBUTES: [Pair; 2] =
    [Pair { key: "site", value: "Łódź" }, Pair { key: "firmware", value: "2.1.0+rc1" }];

/// A type's `encode` into exactly as many bytes as it takes, and into every smaller buffer.
macro_rules! encode {
    ($message:expr) => {{
        let message = $message;
        let mut buffer = [0; 8192];
        let len = message.encode(&mut buffer).unwrap();
        for short in 0..len {
            assert!(matches!(message.encode(&mut vec![0; short]), Err(EncodeError::Full { .. })), "{short}");
        }
        let mut exact = vec![0; len];
        assert_eq!(message.encode(&mut exact), Ok(len));
        assert_eq!(exact, buffer[..len]);
        exact
    }};
}

/// Every proper beginning of the message is refused as too short.
macro_rules! assert_truncation_is_refused {
    ($type:ident, $bytes:expr) => {
        for short in 0..$bytes.len() {
            let result = $type::decode(&$bytes[..short]);
            assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{short}: {result:?}");
        }
    };
}

#[test]
fn state() {
    let slots = [
        SlotState { slot: "kws", model: [7; 32], status: SlotStatus::Running, reason: "" },
        SlotState { slot: "spare", model: [0; 32], status: SlotStatus::Empty, reason: "" },
        SlotState { slot: "x", model: [9; 32], status: SlotStatus::Failed, reason: &"no memory ".repeat(16) },
    ];
    let state = State {
        agent_version: "0.1.0",
        hardware: "cortex-m7",
        attributes: (&ATTRIBUTES).into(),
        slots: (&slots).into(),
        desired_generation: 300,
    };
    let bytes = encode!(state);
    assert_eq!(State::decode(&bytes).unwrap(), state);
    assert_truncation_is_refused!(State, bytes);
    let empty = encode!(State::default());
    assert_eq!(State::decode(&empty).unwrap(), State::default());
}

#[test]
fn event_and_unknown_kinds() {
    let event =
        Event { unix_s: 1_700_000_000, slot: "kws", kind: EventKind::ClockJump, value: -86_400, detail: "" };
    let bytes = encode!(event);
    assert_eq!(Event::decode(&bytes).unwrap(), event);
    assert_truncation_is_refused!(Event, bytes);
    for number in 0..=u16::MAX {
        assert_eq!(EventKind::from_number(number).number(), number);
    }
    for number in 0..=u8::MAX {
        assert_eq!(SlotStatus::from_number(number).number(), number);
    }
}

#[test]
fn label() {
    let entries = [
        LabelCount { predicted: 3, label: 4, confidence_bin: 9, count: 1 },
        LabelCount { predicted: 4, label: 4, confidence_bin: LabelCount::CONFIDENCE_UNKNOWN, count: 70_000 },
    ];
    let label = Label { slot: "kws", model: [1; 32], entries: (&entries).into() };
    let bytes = encode!(label);
    assert_eq!(Label::decode(&bytes).unwrap(), label);
    assert_truncation_is_refused!(Label, bytes);

    let wrong = [LabelCount { confidence_bin: 10, ..entries[0] }];
    let bytes = encode!(Label { entries: (&wrong).into(), ..label });
    assert_eq!(Label::decode(&bytes), Err(DecodeError::Invalid { field: "label.confidence_bin" }));
}

#[test]
fn confidence_bins_are_tenths() {
    for (confidence, bin) in [(0.0, 0), (0.05, 0), (0.1, 1), (0.55, 5), (0.99, 9), (1.0, 9)] {
        assert_eq!(LabelCount::bin(confidence), bin, "{confidence}");
    }
    for nonsense in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        assert_eq!(LabelCount::bin(nonsense), LabelCount::CONFIDENCE_UNKNOWN);
    }
}

#[test]
fn desired() {
    let slots = [DesiredSlot {
        slot: "kws",
        version: 12,
        model: [0xab; 32],
        size: 66_112,
        url: "https://dunlin.example/api/v1/models/kws/versions/12/artifact",
        settings: (&ATTRIBUTES).into(),
        name: "kws",
        release: &[7; 300],
    }];
    let desired = Desired {
        generation: 41,
        issued_unix_s: 1_790_000_000,
        expires_unix_s: 0,
        report_period_s: 60,
        window_period_s: 60,
        window_count: 0,
        slots: (&slots).into(),
        device: "pump-7",
        root: 3,
    };
    let bytes = encode!(desired);
    let decoded = Desired::decode(&bytes).unwrap();
    assert_eq!(decoded, desired);
    assert_eq!(decoded.slots.iter().next().unwrap().settings.iter().next(), Some(ATTRIBUTES[0]));
    // An older writer stops before the part about the authority: see compatibility.rs.
    for short in (0..bytes.len()).filter(|short| *short != bytes.len() - 9) {
        let result = Desired::decode(&bytes[..short]);
        assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{short}: {result:?}");
    }
}

#[test]
fn signed_messages() {
    let signatures = [Signature { key: [1; 32], signature: [2; 64] }; 8];
    let hardware = [Name("cortex-m4"), Name("x86_64")];
    let release = Release {
        model: "kws",
        version: 12,
        digest: [0xab; 32],
        size: 66_112,
        issued_unix_s: 1_790_000_000,
        expires_unix_s: 0,
        floor: 9,
        hardware: (&hardware).into(),
    };
    let bytes = encode!(release);
    let mut message = [0; 4096];
    for count in 0..=signatures.len() {
        let signatures = List::from(&signatures[..count]);
        let len = write_signed(&bytes, signatures, &mut message).unwrap();
        let signed: Signed<'_, Release<'_>> = Signed::decode(&message[..len]).unwrap();
        assert_eq!((signed.message, signed.bytes, signed.signatures), (release, &bytes[..], signatures));
        // Without any signature the message is whole, too; cut in between it is not.
        for short in (0..len).filter(|short| *short != bytes.len()) {
            let result = Signed::<Release<'_>>::decode(&message[..short]);
            assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{short}: {result:?}");
        }
    }
    let many = [signatures[0]; 9];
    let refused = write_signed(&bytes, (&many).into(), &mut message);
    assert_eq!(refused, Err(EncodeError::Limit { field: "signatures" }));

    let keys = [PublicKey([4; 32]), PublicKey([5; 32])];
    let role = |role, threshold| RoleKeys { role, threshold, keys: (&keys).into() };
    let roles =
        [role(Role::Root, 2), role(Role::Release, 1), role(Role::Director, 1), role(Role::Other(9), 1)];
    let root = Root { number: 3, issued_unix_s: 5, expires_unix_s: 6, roles: (&roles).into() };
    let bytes = encode!(root);
    assert_eq!(Signed::<Root<'_>>::decode(&bytes).unwrap().message, root);
    for number in 0..=u8::MAX {
        assert_eq!(Role::from_number(number).number(), number);
    }
}

#[test]
fn certificates() {
    let request = CertificateRequest { der: &[0x30, 0x82, 1, 2] };
    let bytes = encode!(request);
    assert_eq!(CertificateRequest::decode(&bytes).unwrap(), request);
    assert_truncation_is_refused!(CertificateRequest, bytes);
    let certificate = Certificate { device: &[1; 700], authority: &[2; 500] };
    let bytes = encode!(certificate);
    assert_eq!(Certificate::decode(&bytes).unwrap(), certificate);
    assert_truncation_is_refused!(Certificate, bytes);
}

#[test]
fn fetching() {
    for object in [Object::Artifact([7; 32]), Object::Root(300)] {
        let fetch = Fetch { object, offset: 70_000, len: 4096 };
        let bytes = encode!(fetch);
        assert_eq!(Fetch::decode(&bytes), Ok(fetch));
        assert_truncation_is_refused!(Fetch, bytes);
        let chunk = Chunk { object, offset: 70_000, total: 75_000, retry_after_s: 3, bytes: &[9; 4096] };
        let bytes = encode!(chunk);
        assert_eq!(Chunk::decode(&bytes), Ok(chunk));
        assert_truncation_is_refused!(Chunk, bytes);
        let long = Chunk { bytes: &[0; 4097], ..chunk };
        assert_eq!(long.encode(&mut [0; 8192]), Err(EncodeError::Limit { field: "chunk.bytes" }));
    }
    let unknown = [1, 2, 9, 0, 0, 0];
    assert_eq!(Fetch::decode(&unknown), Err(DecodeError::Invalid { field: "object.kind" }));
}

#[test]
fn envelope() {
    let widest = Envelope {
        boot: u64::MAX,
        seq: MAX_SEQUENCE,
        oldest: MAX_SEQUENCE - 63,
        age_s: Envelope::AGE_UNKNOWN,
    };
    let first = Envelope { boot: 0, seq: 0, oldest: 0, age_s: 0 };
    for envelope in [first, widest] {
        let mut message = [0; MAX_ENVELOPE + 4];
        let len = envelope.encode(b"body", &mut message).unwrap();
        assert_eq!(Envelope::decode(&message[..len]), Ok((envelope, &b"body"[..])));
        for short in 0..len - 4 {
            assert!(matches!(Envelope::decode(&message[..short]), Err(DecodeError::Truncated { .. })));
        }
    }
    for (seq, oldest) in [(64, 0), (3, 4), (MAX_SEQUENCE + 1, MAX_SEQUENCE + 1)] {
        let refused = Envelope { seq, oldest, ..first }.encode(&[], &mut [0; 64]);
        assert!(matches!(refused, Err(EncodeError::Limit { .. })));
    }
    assert!(matches!(first.encode(&[0; 4096], &mut [0; 8192]), Err(EncodeError::Limit { field: "body" })));
}

#[test]
fn other_versions_are_named() {
    assert_eq!(Envelope::decode(&[2, 0]), Err(DecodeError::Version { found: 2 }));
    assert_eq!(Ack::decode(&[9; 40]), Err(DecodeError::Version { found: 9 }));
    assert_eq!(Desired::decode(&[0; 40]), Err(DecodeError::Version { found: 0 }));
}

#[test]
fn topics_are_written_and_parsed() {
    let device = DeviceId::new("0192f8a0-7c1e-7000-8000-000000000001").unwrap();
    for kind in UpKind::ALL {
        assert_eq!(Topic::parse(&device.up(kind)), Some(Topic::Up { device, kind }));
        assert_eq!(device.up(kind), *format!("d/{device}/up/{}", kind.as_str()));
    }
    for kind in DownKind::ALL {
        assert_eq!(Topic::parse(&device.down(kind)), Some(Topic::Down { device, kind }));
    }
    assert_eq!(device.down_filter(), "d/0192f8a0-7c1e-7000-8000-000000000001/down/#");
    let longest = "x".repeat(64);
    assert_eq!(DeviceId::new(&longest).unwrap().down(DownKind::Desired).len(), MAX_TOPIC);
    let foreign = [
        "",
        "d/",
        "d//up/report",
        "d/a/up",
        "d/a/up/",
        "d/a/up/report/x",
        "d/a/sideways/report",
        "d/a+/up/report",
        "e/a/up/report",
        "/d/a/up/report",
        "d/a/down/report",
        UP_FILTER,
    ];
    for topic in foreign {
        assert_eq!(Topic::parse(topic), None, "{topic}");
    }
}

#[test]
fn device_ids_are_one_harmless_topic_level() {
    let too_long = "x".repeat(65);
    for id in ["", "a/b", "+", "#", "$SYS", "a b", "ä", "a\0", &too_long] {
        assert!(DeviceId::new(id).is_err(), "{id:?}");
    }
    for id in ["a", "Z9", "pump-7", "a.b_c", &too_long[..64]] {
        assert_eq!(DeviceId::new(id).unwrap().as_str(), id);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Envelope::decode(&bytes), State::decode(&bytes).map(|state| state.slots.iter().count()));
        let _ = (Event::decode(&bytes), Ack::decode(&bytes), Label::decode(&bytes), Desired::decode(&bytes));
        let _ = dunlin_protocol::Report::decode(&bytes).map(|report| report.sections().count());
        let signed = (Signed::<Root<'_>>::decode(&bytes), Signed::<Release<'_>>::decode(&bytes));
        let _ = (signed, Signed::<Desired<'_>>::decode(&bytes));
    }

    #[test]
    fn every_text_within_the_limits_comes_back(
        slot in "\\PC{0,8}", reason in "\\PC{0,40}", key in "\\PC{0,8}", value in "\\PC{0,16}", generation: u64,
    ) {
        // A character takes up to four bytes, and limits are in bytes.
        let pairs = [Pair { key: &key, value: &value }; 16];
        let slots = [SlotState { slot: &slot, model: [3; 32], status: SlotStatus::Trial, reason: &reason }; 8];
        let state = State {
            agent_version: &value, hardware: &key, attributes: (&pairs).into(), slots: (&slots).into(),
            desired_generation: generation,
        };
        let mut buffer = [0; 4096];
        let len = state.encode(&mut buffer).unwrap();
        prop_assert_eq!(State::decode(&buffer[..len]).unwrap(), state);
    }
}
