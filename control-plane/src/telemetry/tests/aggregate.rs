//! Sums are exact whatever the order and grouping, and survive the database.

use dunlin_monitor::{FeatureKind, Latency, Shape, Totals, Window};
use dunlin_protocol::{Report, ReportEncoder};
use proptest::prelude::*;

use crate::telemetry::aggregate::{Aggregate, CodecError, Counts, FeatureKey, ReportError};

/// A report of a random window with random layout: as bytes, so that it went the whole way.
fn report() -> impl Strategy<Value = Vec<u8>> {
    let count = || prop_oneof![3 => Just(0_u32), 5 => 1_u32..1_000, 1 => any::<u32>()];
    let features = prop::collection::vec(
        (prop::sample::select(FeatureKind::ALL.as_slice()), 1_u16..20, count(), -1e9_f32..1e9, any::<i32>()),
        0..4,
    );
    (count(), prop::collection::vec((0..Latency::BUCKETS, count()), 0..6), features, any::<u32>(), 0_u32..3)
        .prop_map(|(inferences, latencies, features, duration_ms, windows)| {
            let shapes = features.iter().map(|feature| Shape { kind: feature.0, counters: feature.1 });
            let mut window: Window<4, 80> = Window::new([1; 32], shapes.collect::<Vec<_>>()).unwrap();
            window.add_inferences(inferences);
            window.add_failures(dunlin_monitor::Failure::Run, inferences / 3);
            for (bucket, n) in latencies {
                assert!(window.add_latencies(bucket, n));
                window.add_latency_sum(u64::from(n), bucket as u32);
            }
            for (index, (_, counters, n, value, sum)) in features.iter().enumerate() {
                assert!(window.add_count(index, (n % u32::from(*counters)) as usize, *n));
                let squares = u128::from(sum.unsigned_abs()).pow(2);
                let totals = Totals { missing: n / 2, min: *value, max: *value, sum: (*sum).into(), squares };
                assert!(window.add_totals(index, &totals));
            }
            window.raise_mark(dunlin_monitor::Mark::Arena, inferences);
            window.add_gauge(
                dunlin_monitor::GaugeKind::Battery,
                dunlin_monitor::Gauge::of(duration_ms as i32 / 2),
            );
            window.set_period(dunlin_monitor::Period { start_unix_s: 0, duration_ms, closed_ms: 0, windows });
            let mut out = vec![0; 4000];
            let len = ReportEncoder::new("s", &window).next_body(&mut out).unwrap().unwrap();
            out.truncate(len);
            out
        })
}

fn of(body: &[u8]) -> Aggregate {
    let report = Report::decode(body).unwrap();
    Aggregate::check(&report).unwrap();
    let mut sum = Aggregate::default();
    sum.add(&report);
    sum
}

fn merged(a: &Aggregate, b: &Aggregate) -> Aggregate {
    let mut sum = a.clone();
    sum.merge(b);
    sum
}

proptest! {
    #[test]
    fn merging_is_associative_and_commutative(a in report(), b in report(), c in report()) {
        let (a, b, c) = (of(&a), of(&b), of(&c));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &Aggregate::default()), a);
    }

    /// Reports in any number of parts, each of which was stored and read again: as if counted one after another.
    #[test]
    fn stored_parts_add_up_to_sequential_counting(
        reports in prop::collection::vec((report(), 0_usize..4), 0..20),
    ) {
        let mut sequential = Aggregate::default();
        let mut parts = vec![Aggregate::default(); 4];
        for (body, part) in &reports {
            sequential.add(&Report::decode(body).unwrap());
            parts[*part].add(&Report::decode(body).unwrap());
            parts[*part] = Aggregate::decode(&parts[*part].encode()).unwrap();
        }
        let sum = parts.iter().rev().fold(Aggregate::default(), |sum, part| merged(&sum, part));
        prop_assert_eq!(sum, sequential);
    }

    #[test]
    fn damaged_rows_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Aggregate::decode(&bytes);
    }

    /// The true quantile lies between the bounds, and the bounds are close to each other.
    #[test]
    fn quantiles_keep_their_bounds(mut values in prop::collection::vec(0_u64..1 << 26, 1..300), q in 0.0_f64..=1.0) {
        let mut latency = crate::telemetry::aggregate::Latency::default();
        for value in &values {
            latency.counts.add(Latency::bucket(*value), 1);
            latency.max_us = latency.max_us.max(*value as u32);
        }
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).max(1);
        let quantile = latency.quantile(q).unwrap();
        prop_assert!((quantile.low_us..=quantile.high_us).contains(&values[rank - 1]));
        prop_assert!((quantile.high_us - quantile.low_us) * 8 <= quantile.low_us.max(8));
    }
}

#[test]
fn rows_of_other_versions_are_told_apart() {
    let mut bytes = of(&super::devices::bodies(&super::devices::window(3, 900, 0), 1000)[0]).encode();
    assert_eq!(bytes[0], 1);
    bytes[0] = 2;
    assert_eq!(Aggregate::decode(&bytes), Err(CodecError::Version(2)));
    assert!(matches!(Aggregate::decode(&[]), Err(CodecError::Damaged(_))));
}

/// The bytes of version 1, which every later version must read.
#[test]
fn rows_of_version_1_stay_readable() {
    let sum = super::devices::sum(&super::devices::bodies(&super::devices::window(3, 900, 0), 1000));
    let hex = hex::encode(sum.encode());
    assert_eq!(hex, RELEASED_1);
    assert_eq!(Aggregate::decode(&hex::decode(RELEASED_1).unwrap()).unwrap(), sum);
}

const RELEASED_1: &str = "010101e0d4030003010101013e038c15840702000008010403010000003f\
    00006144060301010c010003000000807f000080ff00000000";

#[test]
fn contradicting_layouts_are_kept_apart() {
    let mut sum = Aggregate::default();
    for (kind, counters) in [(FeatureKind::Classes, 3), (FeatureKind::Classes, 4), (FeatureKind::Numeric, 3)]
    {
        let mut window: Window<1, 8> = Window::new([1; 32], [Shape { kind, counters }]).unwrap();
        assert!(window.add_count(0, 2, 5));
        let mut out = [0; 500];
        let len = ReportEncoder::new("s", &window).next_body(&mut out).unwrap().unwrap();
        sum.merge(&of(&out[..len]));
    }
    assert_eq!(sum.features.len(), 3);
    let key = FeatureKey { index: 0, kind: FeatureKind::Classes.code(), counters: 4 };
    assert_eq!(sum.features[&key].counts.dense(4), [0, 0, 5, 0]);
    let mut counts = Counts::default();
    counts.add(2, 5);
    assert_eq!(sum.features[&key].counts, counts);
}

/// More features than are kept: the same ones are left in whatever order they come.
#[test]
fn too_many_contradicting_layouts_leave_the_same_ones_in_any_order() {
    let layouts = 3..=3 + u16::try_from(Aggregate::MAX_FEATURES + 40).unwrap();
    let reports: Vec<Aggregate> = layouts
        .map(|counters| {
            let mut window: Window<1, 400> =
                Window::new([1; 32], [Shape { kind: FeatureKind::Classes, counters }]).unwrap();
            assert!(window.add_count(0, 2, counters.into()));
            let mut out = [0; 500];
            let len = ReportEncoder::new("s", &window).next_body(&mut out).unwrap().unwrap();
            of(&out[..len])
        })
        .collect();
    let sum = reports.iter().fold(Aggregate::default(), |sum, report| merged(&sum, report));
    let backwards = reports.iter().rev().fold(Aggregate::default(), |sum, report| merged(&sum, report));
    assert_eq!(sum.features.len(), Aggregate::MAX_FEATURES);
    assert_eq!(sum, backwards);
    let key = FeatureKey { index: 0, kind: FeatureKind::Classes.code(), counters: 3 };
    assert_eq!(sum.features[&key].counts.get(2), 3);
}

#[test]
fn impossible_reports_are_refused() {
    let mut window: Window<2, 20_000> =
        Window::new([1; 32], [Shape { kind: FeatureKind::Classes, counters: 20_000 }]).unwrap();
    assert!(window.add_count(0, 19_999, 1));
    let mut out = [0; 500];
    let len = ReportEncoder::new("s", &window).next_body(&mut out).unwrap().unwrap();
    assert_eq!(Aggregate::check(&Report::decode(&out[..len]).unwrap()), Err(ReportError::Features));
}
