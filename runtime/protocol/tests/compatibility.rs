//! Messages of a newer version, which appends fields, sections and kinds, read by this one.

mod support;

use dunlin_protocol::{
    Ack, DecodeError, Desired, Envelope, Event, EventKind, Label, LabelCount, Release, Report, Root, Section,
    Signed, SlotStatus, State,
};
use support::{
    ACK, BOOT, ENVELOPE, EVENT, MODEL, SIGNATURES, desired, desired_slots, from_hex, messages, window,
};

/// A part with its length before it, as postcard writes a byte string.
fn part(fields: &[&[u8]]) -> Vec<u8> {
    let bytes = fields.concat();
    assert!(bytes.len() < 0x4000);
    match bytes.len() {
        len @ 0..0x80 => [&[len as u8], &bytes[..]].concat(),
        len => [&[len as u8 | 0x80, (len >> 7) as u8], &bytes[..]].concat(),
    }
}

fn text(text: &str) -> Vec<u8> {
    part(&[text.as_bytes()])
}

fn message(name: &str) -> Vec<u8> {
    messages().into_iter().find(|(other, _)| *other == name).unwrap().1
}

const NEW_FIELDS: [u8; 5] = [0xde, 0xad, 0xbe, 0xef, 0xff];

#[test]
fn an_envelope_with_more_fields() {
    let fields: [&[u8]; 5] = [&BOOT.to_le_bytes(), &[0xac, 0x02], &[2], &[5], &NEW_FIELDS];
    let newer = [&[1][..], &part(&fields), b"body"].concat();
    assert_eq!(Envelope::decode(&newer), Ok((ENVELOPE, &b"body"[..])));
}

#[test]
fn messages_with_more_fields_at_their_end() {
    let longer = |mut message: Vec<u8>| {
        message.extend(NEW_FIELDS);
        message
    };
    let newer = longer(message("event"));
    assert_eq!(Event::decode(Envelope::decode(&newer).unwrap().1).unwrap(), EVENT);
    let newer = longer(message("state"));
    assert_eq!(State::decode(Envelope::decode(&newer).unwrap().1).unwrap(), support::state());
    let newer = longer(message("label"));
    assert_eq!(Label::decode(Envelope::decode(&newer).unwrap().1).unwrap(), support::label());
    assert_eq!(Ack::decode(&longer(message("ack"))).unwrap(), ACK);
    assert_eq!(Desired::decode(&longer(message("desired"))).unwrap(), desired(&desired_slots()));
}

#[test]
fn list_items_with_more_fields_and_unknown_states() {
    let slot = part(&[&text("kws"), &MODEL, &[77], &text("asleep"), &NEW_FIELDS]);
    let pair = part(&[&text("k"), &text("v"), &NEW_FIELDS]);
    let newer =
        [text("9.0"), text("quantum"), vec![2], pair.clone(), pair, vec![2], slot.clone(), slot, vec![7]];
    let newer = newer.concat();
    let state = State::decode(&newer).unwrap();
    assert_eq!((state.attributes.len(), state.slots.len(), state.desired_generation), (2, 2, 7));
    for slot in state.slots.iter() {
        assert_eq!((slot.slot, slot.status, slot.reason), ("kws", SlotStatus::Other(77), "asleep"));
        assert_eq!(slot.status.as_str(), "unknown");
    }

    let entry = part(&[&[3, 4, 9, 20], &NEW_FIELDS]);
    let newer = [&text("kws")[..], &MODEL, &[1], &entry].concat();
    let label = Label::decode(&newer).unwrap();
    let expected = LabelCount { predicted: 3, label: 4, confidence_bin: 9, count: 20 };
    assert_eq!(label.entries.iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn an_unknown_kind_of_event_keeps_its_number() {
    let newer = [&[0][..], &text(""), &[0xe8, 0x07], &[2], &text("something new"), &NEW_FIELDS].concat();
    let event = Event::decode(&newer).unwrap();
    assert_eq!((event.kind, event.kind.number(), event.value), (EventKind::Other(1000), 1000, 1));
    assert_eq!(event.detail, "something new");
}

#[test]
fn a_report_with_more_fields_and_sections() {
    let numeric: [&[u8]; 6] = [
        &[0, 40, 1],
        &from_hex("000080bf 00002040"),
        &[0xcf, 0x0f],
        &[0xf0, 0xa2, 0x04],
        &part(&[&[0, 1, 4, 0xc7, 1]]),
        &NEW_FIELDS,
    ];
    // A kind of failure, a gauge and a mark that are not known here.
    let counts: [&[u8]; 4] = [&[0xc8, 1], &[0], &part(&[&[1, 2, 100, 3]]), &NEW_FIELDS];
    let gauges: [&[u8]; 3] = [&[2], &part(&[&[200, 1, 2, 2, 2], &NEW_FIELDS]), &part(&[&[1, 1, 2, 2, 2]])];
    let marks: [&[u8]; 2] = [&[1], &part(&[&[99, 5]])];
    let newer = [
        part(&[&text("kws"), &MODEL, &[0], &[100], &[1], &[0], &NEW_FIELDS]),
        vec![1],
        part(&counts),
        vec![200],
        part(&[&[0x55; 300]]),
        vec![3],
        part(&numeric),
        vec![6],
        part(&gauges),
        vec![7],
        part(&marks),
    ];
    let newer = newer.concat();
    let report = Report::decode(&newer).unwrap();
    assert_eq!((report.header().slot, report.header().duration_ms), ("kws", 100));
    let sections: Vec<Section> = report.sections().collect();
    assert_eq!(sections.len(), 5);
    assert!(matches!(sections[1], Section::Unknown { tag: 200, bytes: [0x55, ..] }));
    assert!(
        matches!(sections[2], Section::Numeric(section) if section.bins.total() == 200 && section.sum == -1000)
    );

    // What is known counts; an unknown kind of failure is still a failure.
    let mut sum = window();
    sum.clear();
    report.add_to(&mut sum).unwrap();
    assert_eq!((sum.inferences(), sum.failures(), sum.failed(dunlin_monitor::Failure::Other)), (200, 5, 3));
    assert_eq!(sum.feature(0).unwrap().n(), 200);
    assert_eq!(sum.gauge(dunlin_monitor::GaugeKind::Temperature).n, 1);
}

#[test]
fn a_newer_desired_state() {
    let known: [&[u8]; 6] = [&text("kws"), &[4], &MODEL, &[0xc0, 0x84, 0x04], &text("u"), &[0]];
    let newer = part(&[&known[..], &[&text("wake word"), &part(&[&[7, 8]]), &NEW_FIELDS]].concat());
    let authority = part(&[&text("pump-7"), &[2], &NEW_FIELDS]);
    let signatures = [&[1][..], &part(&[&[0xbb; 32], &[0xcc; 64], &NEW_FIELDS])].concat();
    let head = [1, 12, 0, 0, 60, 60, 0, 1];
    let newer = [&head[..], &newer, &authority, &signatures, &NEW_FIELDS].concat();
    let signed: Signed<'_, Desired<'_>> = Signed::decode(&newer).unwrap();
    assert_eq!(Desired::decode(&newer).unwrap(), signed.message);
    let slot = signed.message.slots.iter().next().unwrap();
    assert_eq!((slot.slot, slot.version, slot.size, slot.settings.len()), ("kws", 4, 66_112, 0));
    assert_eq!((slot.name, slot.release), ("wake word", &[7, 8][..]));
    assert_eq!((signed.message.device, signed.message.root), ("pump-7", 2));
    assert_eq!(signed.signatures, (&SIGNATURES).into());
    // What is signed includes what a newer writer has put into a part.
    assert_eq!(signed.bytes.len(), newer.len() - signatures.len() - NEW_FIELDS.len());

    // A writer that does not know of signatures.
    let older = [&head[..], &part(&known)].concat();
    let signed: Signed<'_, Desired<'_>> = Signed::decode(&older).unwrap();
    let slot = signed.message.slots.iter().next().unwrap();
    assert_eq!((slot.slot, slot.name, slot.release), ("kws", "", &[][..]));
    assert_eq!((signed.message.device, signed.message.root, signed.signatures.len()), ("", 0, 0));
}

#[test]
fn a_known_field_that_is_cut_off_is_named() {
    for (name, message) in messages() {
        let read = |bytes: &[u8]| -> Result<(), DecodeError> {
            match name {
                "ack" => Ack::decode(bytes).map(drop),
                "desired" => Signed::<Desired<'_>>::decode(bytes).map(drop),
                "root" => Signed::<Root<'_>>::decode(bytes).map(drop),
                "release" => Signed::<Release<'_>>::decode(bytes).map(drop),
                "fetch" => dunlin_protocol::Fetch::decode(bytes).map(drop),
                "chunk" => dunlin_protocol::Chunk::decode(bytes).map(drop),
                "csr" => dunlin_protocol::CertificateRequest::decode(bytes).map(drop),
                "cert" => dunlin_protocol::Certificate::decode(bytes).map(drop),
                "state" => Envelope::decode(bytes).and_then(|(_, body)| State::decode(body).map(drop)),
                "event" => Envelope::decode(bytes).and_then(|(_, body)| Event::decode(body).map(drop)),
                "label" => Envelope::decode(bytes).and_then(|(_, body)| Label::decode(body).map(drop)),
                "report" => Envelope::decode(bytes).and_then(|(_, body)| Report::decode(body).map(drop)),
                name => panic!("{name} is not tested"),
            }
        };
        read(&message).unwrap();
        // A message without its signatures is whole, and so is one of an older writer without an authority.
        let signatures = 1 + 1 + 32 + 64;
        let parts: &[usize] = match name {
            "desired" => &[signatures, signatures + 1 + (1 + "pump-7".len()) + 1],
            "root" | "release" => &[signatures],
            _ => &[],
        };
        let is_whole = |len: usize| parts.contains(&(message.len() - len));
        for len in 0..message.len() {
            match read(&message[..len]) {
                Err(error @ DecodeError::Truncated { .. }) => {
                    assert!(error.to_string().contains("ends within"))
                }
                // A report may end after any section; MQTT states the length of the whole.
                Ok(()) if name == "report" || is_whole(len) => {}
                other => panic!("{name}, {len} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    for (name, mut message) in messages() {
        message[0] = 2;
        let refused = Envelope::decode(&message).map(drop);
        assert_eq!(refused, Err(DecodeError::Version { found: 2 }), "{name}");
        assert!(refused.unwrap_err().to_string().contains("version 2"));
    }
}
