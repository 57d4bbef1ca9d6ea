//! From tensors to counts, and from counts to closed windows.

use dunlin_artifact::baseline::{Category, Part, Source};
use dunlin_artifact::writer::{Baseline, Bins, Contents, Feature};
use dunlin_artifact::{Artifact, DType, Manifest, Place, Tensor};
use dunlin_monitor::{Failure, FeatureKind, GaugeKind, Mark, Monitor, Ring, Schedule, Window};
use proptest::prelude::*;

type Small<'m> = Monitor<'m, 8, 64>;

/// An artifact whose inputs have these tensors, at an aligned address.
struct Model(Vec<u128>);

impl Model {
    /// Tensors are given by type, number of elements, scale and zero point.
    fn new(inputs: &[(DType, u32, f32, i32)], features: Vec<Feature>) -> Self {
        let place = |&(dtype, elements, scale, zero_point): &(DType, u32, f32, i32)| {
            Tensor::new(dtype, &[1, elements], Place::Arena(0), scale, zero_point).expect("two axes")
        };
        let manifest = Manifest {
            name: "sample",
            producer: "test",
            target: "generic",
            source_format: "none",
            source_digest: [0; 32],
            macs: 0,
            arena_bound: 64,
            io_names: "",
        };
        let file = Contents {
            manifest,
            tensors: inputs.iter().map(place).collect(),
            program: vec![],
            data: vec![],
            inputs: (0..inputs.len() as u16).collect(),
            outputs: vec![0],
            states: vec![],
            golden: vec![],
            baseline: Some(Baseline { samples: 0, features }),
            arena_len: 64,
            state_len: 0,
            work: 0,
        }
        .write();
        let mut words = vec![0u128; file.len().div_ceil(16)];
        bytemuck::cast_slice_mut(&mut words)[..file.len()].copy_from_slice(&file);
        Model(words)
    }

    fn artifact(&self) -> Artifact<'_> {
        Artifact::parse(bytemuck::cast_slice(&self.0)).expect("valid")
    }

    fn monitor(&self) -> Small<'_> {
        Monitor::new(self.artifact(), Schedule::default(), 0).expect("it fits")
    }
}

fn feature(source: Source, part: Part, bins: Bins) -> Feature {
    Feature { name: "f".into(), source, part, bins, missing: 0 }
}

fn numeric(edges: &[f32], unit: f32) -> Bins {
    let counts = vec![0; edges.len() + 1];
    Bins::Numeric { edges: edges.to_vec(), counts, min: 0.0, max: 0.0, unit, zero: 0.0, sum: 0, squares: 0 }
}

const ALL: Part = Part::Elements { stride: 1 };

fn le<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// The same real values -1, 0, 0.5 and 2 in every type that a tensor can have.
#[test]
fn every_type_is_dequantized() {
    let cases = [
        (DType::I8, 0.5, 3, le(&[1i8, 3, 4, 7])),
        (DType::U8, 0.5, 128, le(&[126u8, 128, 129, 132])),
        (DType::I16, 0.25, 0, le(&[-4i16, 0, 2, 8])),
        (DType::I32, 0.5, -10, le(&[-12i32, -10, -9, -6])),
        (DType::U32, 0.5, 10, le(&[8u32, 10, 11, 14])),
        (DType::I64, 0.5, 0, le(&[-2i64, 0, 1, 4])),
        (DType::F32, 0.0, 0, le(&[-1.0f32, 0.0, 0.5, 2.0])),
    ];
    for (dtype, scale, zero_point, bytes) in cases {
        let bins = numeric(&[-1.0, 0.0, 1.0], 0.5);
        let model = Model::new(&[(dtype, 4, scale, zero_point)], vec![feature(Source::Input(0), ALL, bins)]);
        let mut monitor = model.monitor();
        monitor.observe_input(0, &bytes);
        let counted = monitor.window().feature(0).expect("one feature");
        assert_eq!(counted.counts, [1, 1, 1, 1], "{dtype}");
        assert_eq!((counted.totals.min, counted.totals.max), (-1.0, 2.0), "{dtype}");
        // In units of a half: -2, 0, 1, 4.
        assert_eq!((counted.totals.sum, counted.totals.squares), (3, 21), "{dtype}");
    }
}

#[test]
fn what_is_not_a_number_is_missing() {
    let model = Model::new(
        &[(DType::F32, 4, 0.0, 0)],
        vec![
            feature(Source::Input(0), ALL, numeric(&[0.0], 1.0)),
            feature(Source::Input(0), Part::Max, numeric(&[0.0], 1.0)),
            feature(Source::Input(0), Part::ArgMax, Bins::Classes { counts: vec![0; 4] }),
            feature(Source::Input(0), Part::Element(1), numeric(&[0.0], 1.0)),
        ],
    );
    let seen = |monitor: &Small<'_>| -> Vec<(Vec<u32>, u32)> {
        let features = monitor.window().features();
        features.map(|feature| (feature.counts.to_vec(), feature.totals.missing)).collect()
    };
    let mut monitor = model.monitor();
    monitor.observe_input(0, &le(&[f32::NAN, 7.0, f32::NEG_INFINITY, 7.0]));
    let expected = [(vec![1, 2], 1), (vec![0, 1], 0), (vec![0, 1, 0, 0], 0), (vec![0, 1], 0)];
    assert_eq!(seen(&monitor), expected);
    // An infinite value is limited in the sums.
    assert_eq!(
        monitor.window().feature(0).expect("there").totals.sum,
        14 - i64::from(dunlin_monitor::Scale::LIMIT)
    );
    monitor.observe_input(0, &le(&[f32::NAN; 4]));
    let expected = [(vec![1, 2], 5), (vec![0, 1], 1), (vec![0, 1, 0, 0], 1), (vec![0, 1], 1)];
    assert_eq!(seen(&monitor), expected);
    // Elements that are not there are missing as well, and what is too much is not looked at.
    monitor.observe_input(0, &le(&[1.0f32]));
    let expected = [(vec![1, 3], 8), (vec![0, 2], 1), (vec![1, 1, 0, 0], 1), (vec![0, 1], 2)];
    assert_eq!(seen(&monitor), expected);
    monitor.observe_input(0, &le(&[-1.0f32, -2.0, -3.0, -4.0, 9.0]));
    let expected = [(vec![5, 3], 8), (vec![1, 2], 1), (vec![2, 1, 0, 0], 1), (vec![1, 1], 2)];
    assert_eq!(seen(&monitor), expected);
}

#[test]
fn strides_and_categories() {
    let mut known = [5, -1].map(|value| Category::Integer(value).hash());
    known.sort_unstable();
    let categories = || Bins::Categories { known: known.to_vec(), counts: vec![0; 4] };
    let model = Model::new(
        &[(DType::I32, 7, 0.0, 0), (DType::I8, 7, 1.0, 0)],
        vec![
            feature(Source::Input(0), ALL, categories()),
            feature(Source::Input(1), Part::Elements { stride: 3 }, numeric(&[0.0], 1.0)),
            feature(Source::Application, Part::Element(0), categories()),
            feature(Source::Application, Part::Element(0), numeric(&[0.0], 1.0)),
        ],
    );
    let mut monitor = model.monitor();
    monitor.observe_input(0, &le(&[5i32, -1, 5, 100, 200, 5, 300]));
    let counted = monitor.window().feature(0).expect("there");
    let at =
        |value: i64| known.iter().position(|hash| *hash == Category::Integer(value).hash()).expect("known");
    assert_eq!((counted.counts[at(5)], counted.counts[at(-1)]), (3, 1));
    assert_eq!(counted.counts[2] + counted.counts[3], 3);
    assert_eq!(counted.kind, FeatureKind::Categories);

    monitor.observe_input(1, &le(&[1i8, 0, 0, -1, 0, 0, 1]));
    assert_eq!(monitor.window().feature(1).expect("there").counts, [1, 2]);

    assert!(monitor.observe_category(2, Category::Integer(5)) && monitor.observe_missing(2));
    assert!(monitor.observe_category(2, Category::Text("elsewhere")));
    assert!(monitor.observe_value(3, -2.0) && monitor.observe_value(3, f32::NAN));
    let counted = monitor.window().feature(2).expect("there");
    assert_eq!((counted.counts[at(5)], counted.n(), counted.totals.missing), (1, 2, 1));
    let counted = monitor.window().feature(3).expect("there");
    assert_eq!((counted.counts, counted.totals.missing), (&[1, 0][..], 1));
    // Another kind, another source, no such feature.
    assert!(!monitor.observe_value(2, 1.0) && !monitor.observe_category(3, Category::Integer(1)));
    assert!(!monitor.observe_missing(0) && !monitor.observe_missing(9));
}

#[test]
fn windows_close_by_time_or_count() {
    let model = Model::new(&[(DType::I8, 1, 1.0, 0)], vec![]);
    let schedule = Schedule { period_ms: 1_000, runs: 3 };
    let mut monitor: Monitor<'_, 0, 0> = Monitor::new(model.artifact(), schedule, 500).expect("no features");
    // A window in which nothing happened is not closed.
    assert!(!monitor.due(10_000));
    monitor.completed(250);
    assert!(!monitor.due(1_499) && monitor.due(1_500));
    // A clock that jumps back closes nothing.
    assert!(!monitor.due(0));
    monitor.failed(Failure::Deadline);
    monitor.failed(Failure::Run);
    assert!(monitor.due(501));
    monitor.reading(GaugeKind::Temperature, -40_000);
    monitor.reading(GaugeKind::Temperature, 21_500);
    monitor.mark(Mark::Stack, 900);
    monitor.mark(Mark::Stack, 700);

    let window = monitor.close(4_500, 1_000_004);
    let period = window.period();
    assert_eq!((period.start_unix_s, period.duration_ms), (1_000_000, 4_000));
    assert_eq!((period.closed_ms, period.windows), (4_500, 1));
    assert_eq!((window.inferences(), window.failures(), window.failed(Failure::Deadline)), (1, 2, 1));
    assert_eq!((window.latency().sum_us(), window.latency().max_us()), (250, 250));
    let gauge = window.gauge(GaugeKind::Temperature);
    assert_eq!((gauge.n, gauge.min, gauge.max, gauge.sum), (2, -40_000, 21_500, -18_500));
    assert_eq!((window.mark(Mark::Stack), window.mark(Mark::Arena)), (900, 0));
    assert_eq!(window.model(), &model.artifact().digest());

    assert!(monitor.window().is_empty());
    monitor.completed(1);
    assert!(!monitor.due(5_499) && monitor.due(5_500));
    // A device that does not know the time says so.
    assert_eq!(monitor.close(5_500, 0).period().start_unix_s, 0);
}

/// A ring that has no room for a window of another model: nothing is lost, the window stays open.
#[test]
fn a_window_that_finds_no_room_stays_open() {
    let (first, second) =
        (Model::new(&[(DType::I8, 1, 1.0, 0)], vec![]), Model::new(&[(DType::I8, 2, 1.0, 0)], vec![]));
    let mut ring: Ring<1, 8, 64> = Ring::new();
    let mut monitor = first.monitor();
    monitor.completed(5);
    assert!(monitor.close_into(&mut ring, 10, 0));
    let mut monitor = second.monitor();
    monitor.completed(6);
    assert!(!monitor.close_into(&mut ring, 20, 0));
    assert_eq!(monitor.window().inferences(), 1);
    monitor.completed(7);
    assert!(ring.pop().is_some() && monitor.close_into(&mut ring, 30, 0));
    let window = ring.pop().expect("it went in");
    assert_eq!((window.inferences(), window.period().duration_ms), (2, 30));
}

/// The schedule's limit keeps the counters of tensors exact.
#[test]
fn a_window_is_due_before_a_counter_can_end() {
    let observed = dunlin_artifact::limits::MAX_OBSERVED;
    assert!(u64::from(Schedule::MAX_RUNS) * observed <= u64::from(u32::MAX));
    let model = Model::new(&[(DType::I8, 1, 1.0, 0)], vec![]);
    let schedule = Schedule { period_ms: u32::MAX, runs: u32::MAX };
    let mut monitor: Small<'_> = Monitor::new(model.artifact(), schedule, 0).expect("it fits");
    (1..Schedule::MAX_RUNS).for_each(|_| monitor.failed(Failure::Other));
    assert!(!monitor.due(1));
    monitor.completed(0);
    assert!(monitor.due(1));
}

#[test]
fn a_baseline_must_fit_into_the_monitor() {
    let model = Model::new(
        &[(DType::I8, 1, 1.0, 0)],
        vec![feature(Source::Input(0), ALL, numeric(&[0.0, 1.0], 1.0))],
    );
    let error =
        Monitor::<'_, 1, 2>::new(model.artifact(), Schedule::default(), 0).expect_err("three counters");
    assert_eq!((error.features, error.counters), (1, 3));
    assert!(error.to_string().contains("1 features and 3 counters"));
    assert!(Monitor::<'_, 1, 3>::new(model.artifact(), Schedule::default(), 0).is_ok());
}

proptest! {
    /// Observing in two windows and merging them is observing in one, whatever the bytes.
    #[test]
    fn observing_apart_is_observing_together(
        runs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20), split in 0usize..20,
    ) {
        let model = Model::new(
            &[(DType::F32, 8, 0.0, 0), (DType::I16, 16, 0.1, 5)],
            vec![
                feature(Source::Input(0), ALL, numeric(&[-1.0, 0.0, 1.0, 1e10], 0.125)),
                feature(Source::Input(0), Part::ArgMax, Bins::Classes { counts: vec![0; 8] }),
                feature(Source::Input(1), Part::Max, numeric(&[0.0], 0.1)),
                feature(Source::Input(1), Part::Elements { stride: 5 }, Bins::Categories { known: vec![1], counts: vec![0; 3] }),
            ],
        );
        let count = |runs: &[Vec<u8>]| -> Window<8, 64> {
            let mut monitor = model.monitor();
            for bytes in runs {
                monitor.observe_input(0, bytes);
                monitor.observe_input(1, bytes);
                monitor.observe_input(2, bytes);
                monitor.completed(bytes.len() as u64);
            }
            monitor.window().clone()
        };
        let split = split.min(runs.len());
        let mut apart = count(&runs[..split]);
        apart.merge(&count(&runs[split..])).expect("one model");
        let together = count(&runs);
        prop_assert_eq!(&apart, &together);
        // Nothing is counted twice or left out.
        let values: Vec<u64> =
            together.features().map(|feature| feature.n() + u64::from(feature.totals.missing)).collect();
        prop_assert_eq!(values, [8, 1, 1, 4].map(|each| each * runs.len() as u64));
    }
}
