//! The bytes of every released version are read for ever, and version 1 is still written as it was released.

mod support;

use std::path::Path;

use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Chunk, Desired, Envelope, Event, Fetch, Label, Release, Report,
    Root, Signed, State,
};
use support::{
    ACK, CHUNK, ENVELOPE, EVENT, FETCH, MODEL, SIGNATURES, desired, desired_slots, from_hex, label, messages,
    release, roles, root, state, window,
};

fn released(version: &str, name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("released").join(version).join(name);
    from_hex(&std::fs::read_to_string(file.with_extension("hex")).unwrap())
}

/// The body of a released message, after its envelope.
fn body(message: &[u8]) -> &[u8] {
    let (envelope, body) = Envelope::decode(message).unwrap();
    assert_eq!(envelope, ENVELOPE);
    body
}

#[test]
fn messages_of_version_1_are_read() {
    assert_eq!(State::decode(body(&released("v1", "state"))).unwrap(), state());
    assert_eq!(Event::decode(body(&released("v1", "event"))).unwrap(), EVENT);
    assert_eq!(Label::decode(body(&released("v1", "label"))).unwrap(), label());
    assert_eq!(CertificateRequest::decode(&released("v1", "csr")).unwrap().der, [0x30, 0x01, 0x00]);
    assert_eq!(Desired::decode(&released("v1", "desired")).unwrap(), desired(&desired_slots()));
    let message = released("v1", "desired");
    let signed: Signed<'_, Desired<'_>> = Signed::decode(&message).unwrap();
    assert_eq!((signed.message, signed.signatures), (desired(&desired_slots()), (&SIGNATURES).into()));
    let message = released("v1", "root");
    let signed: Signed<'_, Root<'_>> = Signed::decode(&message).unwrap();
    assert_eq!((signed.message, signed.signatures), (root(&roles()), (&SIGNATURES).into()));
    let message = released("v1", "release");
    let signed: Signed<'_, Release<'_>> = Signed::decode(&message).unwrap();
    assert_eq!((signed.message, signed.signatures), (release(), (&SIGNATURES).into()));
    assert_eq!(Fetch::decode(&released("v1", "fetch")).unwrap(), FETCH);
    assert_eq!(Chunk::decode(&released("v1", "chunk")).unwrap(), CHUNK);
    assert_eq!(Ack::decode(&released("v1", "ack")).unwrap(), ACK);
    let message = released("v1", "cert");
    let certificate = Certificate::decode(&message).unwrap();
    assert_eq!((certificate.device, certificate.authority), (&[0x30, 0x01, 0x00][..], &[0x30, 0x00][..]));

    let message = released("v1", "report");
    let report = Report::decode(body(&message)).unwrap();
    let header = report.header();
    assert_eq!((header.slot, header.model, header.start_unix_s), ("kws", MODEL, 1_795_000_000));
    assert_eq!((header.duration_ms, header.windows, header.part), (60_000, 1, 0));
    let mut sum = window();
    sum.clear();
    report.add_to(&mut sum).unwrap();
    assert_eq!(sum, window());
}

#[test]
fn messages_of_version_1_are_written_as_they_were_released() {
    let hex = |bytes: &[u8]| {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.chunks(32).map(|line| line.join(" ") + "\n").collect::<String>()
    };
    for (name, message) in messages() {
        assert!(released("v1", name) == message, "{name} is now\n{}", hex(&message));
    }
}

#[test]
fn each_released_message_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("released/v1");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut names: Vec<&str> = messages().iter().map(|(name, _)| *name).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}
