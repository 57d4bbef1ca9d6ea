//! Messages of made-up devices.

use dunlin_monitor::{FeatureKind, Period, Shape, Window};
use dunlin_protocol::{Envelope, ReportEncoder};

/// A report of a made-up device: so many inferences, in one class.
pub(crate) fn report(inferences: u32) -> Vec<u8> {
    let shape = Shape { kind: FeatureKind::Classes, counters: 10 };
    let mut window: Window<1, 10> = Window::new([7; 32], [shape]).expect("a layout");
    window.set_period(Period { start_unix_s: 0, duration_ms: 1_000, closed_ms: 1_000, windows: 1 });
    window.add_inferences(inferences);
    assert!(window.add_count(0, 3, inferences));
    let mut body = [0; 512];
    let len =
        ReportEncoder::new("made-up", &window).next_body(&mut body).expect("it fits").expect("a report");
    body[..len].to_vec()
}

/// A message of boot 1.
pub(crate) fn message(seq: u64, oldest: u64, body: &[u8]) -> Vec<u8> {
    let mut out = [0; 1024];
    let envelope = Envelope { boot: 1, seq, oldest, age_s: 0 };
    let len = envelope.encode(body, &mut out).expect("it fits");
    out[..len].to_vec()
}
