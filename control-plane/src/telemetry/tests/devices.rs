//! Devices that send, and a devices domain that knows all of them but a few.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_monitor::{Failure, FeatureKind, Latency, Period, Shape, Totals, Window};
use dunlin_protocol::{Envelope, ReportEncoder, State};

use crate::bus::{AckToken, DeviceId, UpKind};
use crate::db::{DbError, Tx};
use crate::telemetry::aggregate::Aggregate;
use crate::telemetry::ingest::{Cohort, Received};
use crate::telemetry::neighbours::Devices;

pub(super) const START_US: i64 = crate::testing::START_US;
pub(super) const MODEL: [u8; 32] = [0xab; 32];
pub(super) type TestWindow = Window<2, 20>;

/// Every device whose id does not begin with "stranger" is known.
#[derive(Debug, Default)]
pub(super) struct Everyone;

#[async_trait]
impl Devices for Everyone {
    fn cohort(&self, device: &DeviceId) -> Option<Cohort> {
        let fleet = if device.as_str().ends_with('7') { "north" } else { "south" };
        (!device.as_str().starts_with("stranger")).then(|| cohort(fleet))
    }

    async fn write(
        &self,
        _: &mut Tx,
        _: &BTreeSet<DeviceId>,
        _: &[(DeviceId, &State<'_>)],
        _: i64,
    ) -> Result<Vec<DeviceId>, DbError> {
        Ok(Vec::new())
    }

    fn written(&self, _: &BTreeSet<DeviceId>, _: Vec<DeviceId>, _: i64) {}

    fn renew(self: Arc<Self>, _: DeviceId, _: Bytes, ack: AckToken) {
        ack.done();
    }

    fn fetch(self: Arc<Self>, _: DeviceId, _: Bytes, ack: AckToken) {
        ack.done();
    }
}

pub(super) fn cohort(fleet: &str) -> Cohort {
    Cohort { key: format!("{fleet}/pi").into(), fleet: fleet.into() }
}

/// A window in which `n` inferences took `us` each and one failed.
pub(super) fn window(n: u32, us: u64, start_unix_s: u64) -> TestWindow {
    let shapes = [
        Shape { kind: FeatureKind::Numeric, counters: 8 },
        Shape { kind: FeatureKind::Classes, counters: 12 },
    ];
    let mut window = Window::new(MODEL, shapes).expect("the layout fits");
    window.add_inferences(n);
    window.add_failures(Failure::Input, 1);
    assert!(window.add_latencies(Latency::bucket(us), n));
    window.add_latency_sum(us * u64::from(n), us as u32);
    assert!(window.add_count(0, us as usize % 8, n));
    assert!(window.add_count(1, us as usize % 12, n));
    let totals = Totals { missing: 1, min: 0.5, max: us as f32, sum: i64::from(n), squares: u128::from(n) };
    assert!(window.add_totals(0, &totals));
    window.set_period(Period { start_unix_s, duration_ms: 60_000, closed_ms: 0, windows: 1 });
    window
}

/// The bodies of a window's reports, each of at most `room` bytes.
pub(super) fn bodies(window: &TestWindow, room: usize) -> Vec<Vec<u8>> {
    let mut encoder = ReportEncoder::new("kws", window);
    let mut out = vec![0; room];
    let mut bodies = Vec::new();
    while let Some(len) = encoder.next_body(&mut out).expect("the room suffices") {
        bodies.push(out[..len].to_vec());
    }
    bodies
}

/// A message.
pub(super) fn message(boot: u64, seq: u64, oldest: u64, age_s: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let len = Envelope { boot, seq, oldest, age_s }.encode(body, &mut out).expect("a message");
    out.truncate(len);
    out
}

/// A message as ingest gets it.
pub(super) fn received(device: &str, kind: UpKind, payload: Vec<u8>) -> Received {
    let device = DeviceId::new(device).expect("an id");
    let cohort = Everyone.cohort(&device);
    Received { device, kind, payload: payload.into(), cohort, refused: false }
}

/// The sums of bodies, counted one after another.
pub(super) fn sum<'a>(bodies: impl IntoIterator<Item = &'a Vec<u8>>) -> Aggregate {
    let mut sum = Aggregate::default();
    for body in bodies {
        sum.add(&dunlin_protocol::Report::decode(body).expect("a report"));
    }
    sum
}
