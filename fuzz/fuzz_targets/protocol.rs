//! Any bytes as every message: reading may fail, and nothing else; what was read is written and read again as the
//! same.
#![no_main]

use dunlin_monitor::{FeatureKind, Shape, Window};
use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Chunk, Desired, Envelope, Event, Fetch, Label, Release, Report,
    ReportEncoder, Root, SequenceWindow, Signed, State, Topic, Verdict, write_signed,
};
use dunlin_trust::{Time, Trust, Verifier};

/// Believes every signature: what comes after the check is fuzzed as well.
struct Gullible;

impl Verifier for Gullible {
    fn verify(&self, _: &[u8; 32], _: &[u8; 32], _: &[u8; 64]) -> bool {
        true
    }
}

/// Reads a message that somebody signed, writes it again with its signatures, and reads that.
macro_rules! signed {
    ($type:ident, $bytes:expr) => {
        if let Ok(signed) = Signed::<$type<'_>>::decode($bytes)
            && !signed.signatures.is_empty()
        {
            let mut buffer = vec![0; 16 * 1024];
            let len = write_signed(signed.bytes, signed.signatures, &mut buffer).expect("what was read fits");
            let again: Signed<'_, $type<'_>> = Signed::decode(&buffer[..len]).expect("valid");
            assert_eq!((again.message, again.bytes), (signed.message, signed.bytes));
        }
    };
}

/// Writes a message that was read, and reads it again.
macro_rules! read_write_read {
    ($type:ident, $bytes:expr) => {
        if let Ok(message) = $type::decode($bytes) {
            let mut buffer = vec![0; 16 * 1024];
            let len = message.encode(&mut buffer).expect("what was read fits");
            assert_eq!($type::decode(&buffer[..len]).expect("what was written is valid"), message);
        }
    };
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_body(bytes);
    if let Ok((envelope, body)) = Envelope::decode(bytes) {
        let mut buffer = vec![0; bytes.len() + 64];
        if let Ok(len) = envelope.encode(body, &mut buffer) {
            assert_eq!(Envelope::decode(&buffer[..len]), Ok((envelope, body)));
        }
        let mut window = SequenceWindow::from_parts(envelope.boot, envelope.seq);
        if window.apply(envelope.seq, envelope.oldest) == Verdict::Fresh {
            assert!(window.ack(envelope.boot).covers(envelope.seq));
            assert_eq!(window.apply(envelope.seq, envelope.oldest), Verdict::Duplicate);
        }
        read_body(body);
    }
    read_write_read!(Ack, bytes);
    read_write_read!(Desired, bytes);
    read_write_read!(CertificateRequest, bytes);
    read_write_read!(Certificate, bytes);
    read_write_read!(Fetch, bytes);
    read_write_read!(Chunk, bytes);
    signed!(Root, bytes);
    signed!(Release, bytes);
    signed!(Desired, bytes);
    believe(bytes);
    if let Some(Topic::Up { device, kind }) = std::str::from_utf8(bytes).ok().and_then(Topic::parse) {
        assert_eq!(device.up(kind).as_bytes(), bytes);
    }
});

/// A root, then the rest of the bytes as an assignment.
fn believe(bytes: &[u8]) {
    if let Ok(trust) = Trust::decode(bytes) {
        assert_eq!(Trust::decode(&trust.encode()).as_ref(), Ok(&trust));
    }
    let Some((&[len], bytes)) = bytes.split_first_chunk() else { return };
    let (root, message) = bytes.split_at(bytes.len().min(4 * usize::from(len)));
    let Ok(mut trust) = Trust::pin(root, &Gullible) else { return };
    let before = trust.generation();
    let Ok(assigned) = trust.assignment(message, "pump-7", Time::Unknown, &Gullible) else { return };
    trust.keep(&assigned);
    assert!(trust.generation() >= before);
    for slot in assigned.desired.slots.iter() {
        if let Ok(release) = trust.release(&slot, "cortex-m4", Time::Unknown, &Gullible) {
            assert_eq!((release.digest, release.size), (slot.model, slot.size));
        }
    }
    assert_eq!(Trust::decode(&trust.encode()).as_ref(), Ok(&trust));
}

fn read_body(body: &[u8]) {
    read_write_read!(State, body);
    read_write_read!(Event, body);
    read_write_read!(Label, body);
    let Ok(report) = Report::decode(body) else { return };
    std::hint::black_box(format!("{:?}", report.sections().collect::<Vec<_>>()));

    // Into a window of a usual layout, and from there into reports again.
    let shapes = [FeatureKind::Numeric, FeatureKind::Classes, FeatureKind::Categories];
    let shapes = shapes.map(|kind| Shape { kind, counters: 40 });
    let mut window: Window<3, 120> = Window::new(report.header().model, shapes).expect("120 counters fit");
    if report.add_to(&mut window).is_err() {
        return;
    }
    let mut again = window.clone();
    again.clear();
    let mut encoder = ReportEncoder::new(report.header().slot, &window);
    let mut buffer = [0; 400];
    while let Some(len) = encoder.next_body(&mut buffer).expect("400 bytes are enough") {
        let report = Report::decode(&buffer[..len]).expect("what was written is valid");
        report.add_to(&mut again).expect("same layout");
    }
    assert_eq!(again, window);
}
