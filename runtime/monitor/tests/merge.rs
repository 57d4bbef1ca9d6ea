//! Merging windows is the same as counting in one window, in any order and grouping.

use dunlin_monitor::{
    Failure, FeatureKind, Gauge, GaugeKind, Latency, LayoutError, Mark, MergeError, Period, Ring, Shape,
    Totals, Window,
};
use proptest::prelude::*;

type Small = Window<3, 12>;

const LAYOUT: [Shape; 3] = [
    Shape { kind: FeatureKind::Numeric, counters: 5 },
    Shape { kind: FeatureKind::Classes, counters: 3 },
    Shape { kind: FeatureKind::Categories, counters: 4 },
];

fn empty() -> Small {
    Window::new([7; 32], LAYOUT).expect("fits")
}

/// One thing that is counted.
#[derive(Clone, Debug)]
enum Event {
    Inference(u32),
    Failure(u8, u32),
    Latency(u64),
    Count(usize, usize, u32),
    Totals(usize, Totals),
    Gauge(u8, i32),
    Mark(u8, u32),
    Period(Period),
}

fn apply(window: &mut Small, event: &Event) {
    match event {
        Event::Inference(n) => window.add_inferences(*n),
        Event::Failure(code, n) => window.add_failures(Failure::from_code(*code), *n),
        Event::Latency(us) => window.record_latency(*us),
        Event::Count(feature, counter, n) => {
            let exists = LAYOUT.get(*feature).is_some_and(|shape| *counter < usize::from(shape.counters));
            assert_eq!(window.add_count(*feature, *counter, *n), exists);
        }
        Event::Totals(feature, totals) => {
            assert_eq!(window.add_totals(*feature, totals), *feature < LAYOUT.len());
        }
        Event::Gauge(code, reading) => {
            if let Some(kind) = GaugeKind::from_code(*code) {
                window.add_gauge(kind, Gauge::of(*reading));
            }
        }
        Event::Mark(code, bytes) => {
            if let Some(mark) = Mark::from_code(*code) {
                window.raise_mark(mark, *bytes);
            }
        }
        // Windows are merged, so the way to add a period is a window with nothing but a period.
        Event::Period(period) => {
            let mut other = empty();
            other.set_period(*period);
            window.merge(&other).expect("one layout");
        }
    }
}

fn counted(events: &[Event]) -> Small {
    let mut window = empty();
    events.iter().for_each(|event| apply(&mut window, event));
    window
}

fn events(most: u32) -> impl Strategy<Value = Vec<Event>> {
    let real = prop_oneof![Just(0.0f32), Just(-0.0), Just(f32::INFINITY), Just(f32::NAN), any::<f32>()];
    let totals = (0..=most, real.clone(), real, -1_000_000_000i64..1_000_000_000, 0u128..1 << 60)
        .prop_map(|(missing, min, max, sum, squares)| Totals { missing, min, max, sum, squares });
    let period = (0u64..3, 0u32..1_000_000, 0u64..1_000_000, 0u32..3).prop_map(
        |(start_unix_s, duration_ms, closed_ms, windows)| Period {
            start_unix_s,
            duration_ms,
            closed_ms,
            windows,
        },
    );
    let event = prop_oneof![
        (0..=most).prop_map(Event::Inference),
        (0u8..10, 0..=most).prop_map(|(code, n)| Event::Failure(code, n)),
        prop_oneof![0u64..1_000_000, any::<u32>().prop_map(u64::from)].prop_map(Event::Latency),
        (0usize..4, 0usize..6, 0..=most).prop_map(|(feature, counter, n)| Event::Count(feature, counter, n)),
        (0usize..4, totals).prop_map(|(feature, totals)| Event::Totals(feature, totals)),
        (0u8..3, any::<i32>()).prop_map(|(code, reading)| Event::Gauge(code, reading)),
        (0u8..3, any::<u32>()).prop_map(|(code, bytes)| Event::Mark(code, bytes)),
        period.prop_map(Event::Period),
    ];
    proptest::collection::vec(event, 0..24)
}

fn merged(a: &Small, b: &Small) -> Small {
    let mut sum = a.clone();
    sum.merge(b).expect("one layout");
    sum
}

proptest! {
    #[test]
    fn merging_equals_counting_in_one(a in events(1 << 20), b in events(1 << 20)) {
        let together = counted(&[a.clone(), b.clone()].concat());
        let apart = merged(&counted(&a), &counted(&b));
        prop_assert_eq!(together, apart);
    }

    #[test]
    fn merging_is_commutative_and_associative(a in events(1 << 20), b in events(1 << 20), c in events(1 << 20)) {
        let [a, b, c] = [a, b, c].map(|events| counted(&events));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn so_it_is_when_counters_reach_their_end(a in events(u32::MAX), b in events(u32::MAX), c in events(u32::MAX)) {
        let [a, b, c] = [a, b, c].map(|events| counted(&events));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        let sum = merged(&merged(&a, &b), &c);
        prop_assert_eq!(&sum, &merged(&a, &merged(&b, &c)));
        let exact = !sum.saturated();
        prop_assert!(!exact || (a.fits(&b) && merged(&a, &b).fits(&c)));
        let total = |windows: &[&Small], count: fn(&Small) -> u32| -> u64 {
            windows.iter().map(|window| u64::from(count(window))).sum()
        };
        for count in [Small::inferences as fn(&Small) -> u32, |w| w.failed(Failure::Run), |w| w.feature(0).unwrap().counts[1]] {
            prop_assert_eq!(u64::from(count(&sum)), total(&[&a, &b, &c], count).min(u32::MAX.into()));
        }
    }

    #[test]
    fn an_empty_window_changes_nothing(a in events(u32::MAX)) {
        let a = counted(&a);
        prop_assert_eq!(&merged(&a, &empty()), &a);
    }

    #[test]
    fn a_ring_loses_no_count(windows in proptest::collection::vec(events(1 << 10), 0..12), popped in 0usize..4) {
        let mut ring: Ring<4, 3, 12> = Ring::new();
        let mut left = Vec::new();
        for (index, events) in windows.iter().enumerate() {
            let full = ring.len() == 4;
            prop_assert_eq!(ring.push(counted(events)), Ok(full));
            prop_assert!(ring.len() <= 4);
            if index % 4 < popped {
                left.extend(ring.pop());
            }
        }
        left.extend(std::iter::from_fn(|| ring.pop()));
        let sum = left.iter().fold(None, |sum: Option<Small>, window| {
            Some(sum.map_or(window.clone(), |sum| merged(&sum, window)))
        });
        let expected = windows.iter().map(|events| counted(events)).reduce(|a, b| merged(&a, &b));
        prop_assert_eq!(sum, expected);
    }

    #[test]
    fn no_latency_panics(us: u64) {
        let (low, high) = Latency::bounds(Latency::bucket(us));
        prop_assert!(low <= us && (us < high || high == u64::MAX));
    }
}

#[test]
fn a_layout_must_fit() {
    let needed = LayoutError { features: 3, counters: 12 };
    assert_eq!(Window::<2, 12>::new([0; 32], LAYOUT).unwrap_err(), needed);
    assert_eq!(Window::<3, 11>::new([0; 32], LAYOUT).unwrap_err(), needed);
    let window = Window::<5, 40>::new([0; 32], LAYOUT).unwrap();
    assert_eq!(window.layout().collect::<Vec<_>>(), LAYOUT);
    assert_eq!(window.features().map(|feature| feature.counts.len()).collect::<Vec<_>>(), [5, 3, 4]);
    assert!(window.feature(3).is_none() && window.is_empty());
}

#[test]
fn different_windows_do_not_merge() {
    let mut window = empty();
    let model = Window::new([8; 32], LAYOUT).unwrap();
    assert_eq!(window.merge(&model), Err(MergeError::Model));
    let layout = Window::new([7; 32], LAYOUT.into_iter().take(2)).unwrap();
    assert_eq!(window.merge(&layout), Err(MergeError::Layout));
    assert!(!window.fits(&model) && !window.fits(&layout) && window == empty());
}

/// A full ring merges neighbours of one model only, keeps the order, and gives a window back rather than lose it.
#[test]
fn a_ring_of_several_models() {
    let of = |model: u8, n: u32| {
        let mut window = Small::new([model; 32], LAYOUT).unwrap();
        window.add_inferences(n);
        window
    };
    let shown = |ring: &Ring<3, 3, 12>| -> Vec<(u8, u32)> {
        ring.iter().map(|window| (window.model()[0], window.inferences())).collect()
    };
    let mut ring: Ring<3, 3, 12> = Ring::new();
    for (model, n) in [(1, 1), (2, 2), (2, 3)] {
        assert_eq!(ring.push(of(model, n)), Ok(false));
    }
    assert_eq!(ring.push(of(3, 4)), Ok(true));
    assert_eq!(shown(&ring), [(1, 1), (2, 5), (3, 4)]);
    assert_eq!(ring.push(of(3, 5)), Ok(true));
    assert_eq!(shown(&ring), [(1, 1), (2, 5), (3, 9)]);
    assert_eq!(ring.push(of(4, 6)), Err(of(4, 6)));
    // A count that would end a counter is not merged either.
    assert_eq!(ring.push(of(3, u32::MAX)), Err(of(3, u32::MAX)));
    assert_eq!(ring.pop().map(|window| window.inferences()), Some(1));
    assert_eq!(ring.push(of(4, 6)), Ok(false));
    assert_eq!(shown(&ring), [(2, 5), (3, 9), (4, 6)]);
}
