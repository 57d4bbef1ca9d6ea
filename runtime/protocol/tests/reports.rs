//! Windows as reports and back: nothing is lost or counted twice, whatever the budget and the order.

use dunlin_monitor::{
    Failure, FeatureKind, Gauge, GaugeKind, Latency, Mark, MergeError, Period, Scale, Shape, Totals, Window,
};
use dunlin_protocol::limits::{MAX_ENVELOPE, MIN_REPORT_BUDGET, REPORT_BUDGET};
use dunlin_protocol::{EncodeError, Report, ReportEncoder, Section};
use proptest::prelude::*;

const FEATURES: usize = 8;
const COUNTERS: usize = 2048;
type TestWindow = Window<FEATURES, COUNTERS>;

const MODEL: [u8; 32] = [0xd1; 32];

/// All bodies of a window, each within `room` bytes.
fn bodies(slot: &str, window: &TestWindow, room: usize) -> Result<Vec<Vec<u8>>, EncodeError> {
    let mut encoder = ReportEncoder::new(slot, window);
    let mut out = vec![0; room];
    let expected = encoder.remaining(&mut out)?;
    let mut bodies = Vec::new();
    while let Some(len) = encoder.next_body(&mut out)? {
        bodies.push(out[..len].to_vec());
    }
    assert_eq!(bodies.len(), expected);
    Ok(bodies)
}

/// What the receiver makes of them.
fn merged<'b>(like: &TestWindow, bodies: impl IntoIterator<Item = &'b Vec<u8>>) -> TestWindow {
    let mut window = like.clone();
    window.clear();
    for body in bodies {
        Report::decode(body).unwrap().add_to(&mut window).unwrap();
    }
    window
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 4 => 1_u32..200, 2 => 1_u32..100_000, 1 => any::<u32>()]
}

fn shape() -> impl Strategy<Value = Shape> {
    let kind = prop::sample::select(FeatureKind::ALL.as_slice());
    let counters = prop_oneof![4 => 1_u16..64, 1 => 64_u16..256];
    (kind, counters).prop_map(|(kind, counters)| Shape { kind, counters })
}

fn totals(kind: FeatureKind) -> impl Strategy<Value = Totals> {
    let range = -(1_i64 << 55)..1 << 55;
    let number = prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::INFINITE;
    (count(), number, number, range, 0_u128..1 << 78).prop_map(move |(missing, min, max, sum, squares)| {
        match kind {
            FeatureKind::Numeric => Totals { missing, min: min + 0.0, max: max + 0.0, sum, squares },
            _ => Totals { missing, ..Totals::EMPTY },
        }
    })
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(shape(), 0..FEATURES)
}

fn window() -> impl Strategy<Value = TestWindow> {
    shapes().prop_flat_map(window_with)
}

/// Two windows of one layout.
fn windows() -> impl Strategy<Value = (TestWindow, TestWindow)> {
    shapes().prop_flat_map(|shapes| (window_with(shapes.clone()), window_with(shapes)))
}

fn window_with(shapes: Vec<Shape>) -> impl Strategy<Value = TestWindow> {
    let features: Vec<_> = shapes
        .into_iter()
        .map(|shape| {
            let counts = prop::collection::vec(count(), usize::from(shape.counters));
            (Just(shape), prop_oneof![totals(shape.kind), Just(Totals::EMPTY)], counts)
        })
        .collect();
    let general = (any::<u64>(), any::<u32>(), any::<u32>(), count(), any::<bool>());
    let failures = prop::collection::vec(count(), Failure::ALL.len());
    let latency = (prop::collection::vec(count(), Latency::BUCKETS), 0_u64..1 << 56, any::<u32>());
    let gauge =
        prop_oneof![
            Just(Gauge::EMPTY),
            (1_u32.., any::<i32>(), any::<i32>(), -(1_i64 << 55)..1 << 55)
                .prop_map(|(n, min, max, sum)| Gauge { n, min, max, sum })
        ];
    let gauges = prop::collection::vec(gauge, GaugeKind::ALL.len());
    let marks = prop::collection::vec(count(), Mark::ALL.len());
    let latency = prop_oneof![latency, Just((vec![0; Latency::BUCKETS], 0, 0))];
    (features, general, failures, latency, gauges, marks).prop_map(
        |(features, general, failures, latency, gauges, marks)| {
            let mut window = TestWindow::new(MODEL, features.iter().map(|(shape, ..)| *shape)).unwrap();
            let (start_unix_s, duration_ms, windows, inferences, saturated) = general;
            window.set_period(Period { start_unix_s, duration_ms, closed_ms: 0, windows });
            window.add_inferences(inferences);
            if saturated {
                window.set_saturated();
            }
            for (kind, n) in Failure::ALL.into_iter().zip(failures) {
                window.add_failures(kind, n);
            }
            let (buckets, sum_us, max_us) = latency;
            for (bucket, n) in buckets.into_iter().enumerate() {
                assert!(window.add_latencies(bucket, n));
            }
            window.add_latency_sum(sum_us, max_us);
            for (kind, gauge) in GaugeKind::ALL.into_iter().zip(gauges) {
                window.add_gauge(kind, gauge);
            }
            for (mark, bytes) in Mark::ALL.into_iter().zip(marks) {
                window.raise_mark(mark, bytes);
            }
            for (index, (_, totals, counts)) in features.into_iter().enumerate() {
                assert!(window.add_totals(index, &totals));
                for (counter, n) in counts.into_iter().enumerate() {
                    assert!(window.add_count(index, counter, n));
                }
            }
            window
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn split_and_added_up_a_window_is_itself(
        window in window(),
        budget in MIN_REPORT_BUDGET..=4096,
        slot in "[a-z]{0,32}",
        order in any::<prop::sample::Index>(),
    ) {
        let room = budget - MAX_ENVELOPE;
        let mut bodies = bodies(&slot, &window, room).unwrap();
        prop_assert!(bodies.iter().all(|body| body.len() <= room));
        for (part, body) in bodies.iter().enumerate() {
            let report = Report::decode(body).unwrap();
            prop_assert_eq!(report.header().slot, &slot);
            prop_assert_eq!(usize::from(report.header().part), part);
        }
        let middle = order.index(bodies.len());
        bodies.rotate_left(middle);
        bodies.reverse();
        prop_assert_eq!(merged(&window, &bodies), window);
    }

    #[test]
    fn reports_of_several_windows_add_like_the_windows(windows in windows(), budget in MIN_REPORT_BUDGET..2048) {
        let (a, b) = windows;
        let mut all = bodies("s", &a, budget).unwrap();
        all.extend(bodies("s", &b, budget).unwrap());
        let mut sum = a.clone();
        sum.merge(&b).unwrap();
        prop_assert_eq!(merged(&a, &all), sum);
    }

    #[test]
    fn small_buffers_are_refused_or_suffice(window in window(), room in 0_usize..300) {
        match bodies("kws", &window, room) {
            Ok(bodies) => prop_assert_eq!(merged(&window, &bodies), window),
            Err(error) => {
                prop_assert!(matches!(error, EncodeError::Full { .. }), "{}", error);
                prop_assert!(room < MIN_REPORT_BUDGET - MAX_ENVELOPE);
            }
        }
    }

    #[test]
    fn damaged_reports_are_refused_or_differ_harmlessly(window in window(), at: prop::sample::Index, bit in 0_u32..8) {
        let mut body = bodies("kws", &window, 4000).unwrap().swap_remove(0);
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;
        let mut sum = window.clone();
        if let Ok(report) = Report::decode(&body) {
            let _ = report.add_to(&mut sum);
            prop_assert!(report.sections().count() <= 256);
        }
        prop_assert!(Report::decode(&body[..at]).is_err() || at > 0);
    }
}

/// A small generator of numbers in [0, 1), so that the sizes below are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// A window of `n` inferences: `numeric` features with `counters` counters, of which the middle ones are used alike
/// (the baseline's quantiles), one feature with 12 classes and one with the confidence.
fn typical(n: u32, numeric: usize, counters: u16) -> TestWindow {
    let mut numbers = Numbers(1);
    let kind = FeatureKind::Numeric;
    let shapes = (0..numeric)
        .map(|_| Shape { kind, counters })
        .chain([Shape { kind: FeatureKind::Classes, counters: 12 }, Shape { kind, counters: 24 }]);
    let mut window = TestWindow::new(MODEL, shapes.collect::<Vec<_>>()).unwrap();
    window.set_period(Period { start_unix_s: 1_795_000_000, duration_ms: 60_000, closed_ms: 0, windows: 1 });
    window.add_inferences(n);
    window.add_failures(Failure::Input, 2);
    window.add_gauge(GaugeKind::Temperature, Gauge { n: 6, min: 21_500, max: 22_250, sum: 131_000 });
    window.add_gauge(GaugeKind::Battery, Gauge { n: 6, min: 87_000, max: 87_100, sum: 522_300 });
    window.raise_mark(Mark::Arena, 22_112);
    window.raise_mark(Mark::Stack, 3_480);
    let scale = Scale { unit: 0.001, zero: 0.0 };
    for _ in 0..n {
        window.record_latency((9_400.0 + 300.0 * numbers.normal()) as u64);
        for feature in 0..numeric + 2 {
            let bins = [counters, 12, 24][(feature + 1).saturating_sub(numeric).min(2)];
            let value = numbers.next();
            assert!(window.add_count(feature, (value * f64::from(bins)) as usize, 1));
            if feature != numeric {
                let fixed = i64::from(scale.fixed(value as f32));
                let (min, max) = (value as f32, value as f32);
                let totals = Totals { missing: 0, min, max, sum: fixed, squares: (fixed * fixed) as u128 };
                assert!(window.add_totals(feature, &totals));
            }
        }
    }
    window
}

#[test]
fn typical_reports_fit_the_default_budget() {
    println!("inferences | numeric features x counters | reports | bytes, with the longest envelope");
    let room = REPORT_BUDGET - MAX_ENVELOPE;
    for (n, numeric, counters, reports) in [
        (60, 6, 32, 1),
        (600, 6, 32, 1),
        (6_000, 6, 32, 1),
        (60_000, 6, 32, 1),
        (6_000, 6, 64, 2),
        (600, 1, 32, 1),
    ] {
        let window = typical(n, numeric, counters);
        let bodies = bodies("kws", &window, room).unwrap();
        let sizes: Vec<usize> = bodies.iter().map(|body| body.len() + MAX_ENVELOPE).collect();
        println!("{n} | {numeric} x {counters} | {} | {sizes:?}", bodies.len());
        assert_eq!(bodies.len(), reports, "{n} {numeric} {counters}");
        assert_eq!(merged(&window, &bodies), window);
    }
}

#[test]
fn an_empty_window_is_one_small_report() {
    let window = TestWindow::new(MODEL, [Shape { kind: FeatureKind::Numeric, counters: 40 }]).unwrap();
    let bodies = bodies("kws", &window, 230).unwrap();
    assert_eq!(bodies.len(), 1);
    let report = Report::decode(&bodies[0]).unwrap();
    let sections: Vec<Section> = report.sections().collect();
    assert!(matches!(sections[..], [Section::Counts(counts)] if counts.inferences == 0), "{sections:?}");
}

#[test]
fn reports_of_other_models_and_layouts_change_nothing() {
    let numeric = |counters| [Shape { kind: FeatureKind::Numeric, counters }];
    let mut window = TestWindow::new(MODEL, numeric(40)).unwrap();
    window.add_inferences(1);
    assert!(window.add_count(0, 39, 1));
    let bodies = bodies("kws", &window, 400).unwrap();
    let report = Report::decode(&bodies[0]).unwrap();

    let mut other = TestWindow::new([0; 32], numeric(40)).unwrap();
    assert_eq!(report.add_to(&mut other), Err(MergeError::Model));
    let classes = [Shape { kind: FeatureKind::Classes, counters: 40 }];
    for layout in [numeric(39), numeric(41), classes] {
        let mut other = TestWindow::new(MODEL, layout).unwrap();
        assert_eq!(report.add_to(&mut other), Err(MergeError::Layout));
        assert!(other.is_empty());
    }
    let mut other = TestWindow::new(MODEL, []).unwrap();
    assert_eq!(report.add_to(&mut other), Err(MergeError::Layout));
}
