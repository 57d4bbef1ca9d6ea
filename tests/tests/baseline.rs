//! The baseline of real models: a device that sees the calibration data counts to exactly its numbers.

use dunlin_artifact::baseline::{Bins, Part, Source};
use dunlin_artifact::{Artifact, DType, limits};
use dunlin_compiler::{AlignedBytes, Calibration, Options, calibrate, compile};
use dunlin_monitor::{Failure, Monitor, Ring, Scale, Schedule, Window};
use dunlin_runtime::Session;
use dunlin_tests::Array;
use dunlin_tests::reference::{larger_set, own_models};
use dunlin_tests::report::{publish, table};

type Device<'m> = Monitor<'m, { limits::MAX_FEATURES }, { limits::MAX_COUNTERS }>;
type Counted = Window<{ limits::MAX_FEATURES }, { limits::MAX_COUNTERS }>;

/// A calibrated artifact and the samples that it was calibrated with.
struct Calibrated {
    name: String,
    file: AlignedBytes,
    /// Bytes that the baseline adds.
    added: usize,
    calibration: Calibration,
}

impl Calibrated {
    fn new(name: &str, model: &[u8], inputs: Vec<Vec<u8>>, steps: usize) -> Self {
        let options = Options { name: name.into(), ..Options::default() };
        let bare = compile(model, &options).expect("the model compiles").artifact;
        let calibration = Calibration { inputs, steps, ..Calibration::default() };
        let artifact = calibrate(&bare, &calibration).expect("the samples fit the model");
        let added = artifact.len() - bare.len();
        Calibrated { name: name.into(), file: AlignedBytes::new(&artifact), added, calibration }
    }

    /// What a device does: input, run, output, one after the other, in windows of `runs` inferences that wait in a
    /// small ring, and are merged where it is full.
    fn on_a_device(&self, runs: u32) -> Counted {
        let artifact = Artifact::parse(self.file.as_slice()).expect("valid");
        artifact.verify_digest().expect("the digest covers the baseline");
        let mut arena = AlignedBytes::zeroed(artifact.arena_len());
        let mut session: Session<'_, '_> =
            Session::new(artifact, arena.as_mut_slice()).expect("the arena fits");
        let schedule = Schedule { period_ms: u32::MAX, runs };
        let mut monitor = Box::new(Device::new(artifact, schedule, 0).expect("the limits are the format's"));
        let mut ring: Box<Ring<3, _, _>> = Box::default();
        let sizes: Vec<usize> = artifact.inputs().map(|tensor| tensor.bytes()).collect();
        for run in 0..self.calibration.inputs[0].len() / sizes[0] {
            if run.is_multiple_of(self.calibration.steps) {
                session.reset();
            }
            for (index, &size) in sizes.iter().enumerate() {
                let bytes = &self.calibration.inputs[index][run * size..][..size];
                session.input_bytes_mut(index).expect("input").copy_from_slice(bytes);
                monitor.observe_input(index, session.input_bytes_mut(index).expect("input"));
            }
            session.run().expect("the model runs");
            monitor.completed(100);
            for index in 0..artifact.outputs().len() {
                monitor.observe_output(index, session.output_bytes(index).expect("output"));
            }
            if monitor.due(run as u64) {
                assert!(monitor.close_into(&mut ring, run as u64, 0));
            }
        }
        let mut sum = monitor.close(0, 0);
        while let Some(window) = ring.pop() {
            sum.merge(&window).expect("one model");
        }
        sum
    }

    fn check(&self) -> [String; 7] {
        let artifact = Artifact::parse(self.file.as_slice()).expect("valid");
        let baseline = artifact.baseline().expect("it was calibrated");
        let window = self.on_a_device(7);
        let name = &self.name;
        assert_eq!((window.inferences(), window.failed(Failure::Run)), (baseline.samples(), 0), "{name}");
        assert!(baseline.feature_count() > 0 && !window.saturated(), "{name}");
        for (feature, counted) in baseline.features().zip(window.features()) {
            let what = format!("{name}: {}", feature.name);
            assert!(feature.bins.counts().iter().eq(counted.counts.iter().copied()), "{what}: counts");
            assert_eq!(feature.missing, counted.totals.missing, "{what}: missing");
            let values = counted.n() + u64::from(counted.totals.missing);
            let per_run =
                if matches!(feature.part, Part::Max | Part::ArgMax) { 1 } else { feature.observed() };
            assert_eq!(
                values,
                u64::from(baseline.samples()) * per_run,
                "{what}: every value is counted once"
            );
            let Bins::Numeric(numeric) = feature.bins else { continue };
            let totals = counted.totals;
            assert_eq!((numeric.min, numeric.max), (totals.min, totals.max), "{what}: range");
            assert_eq!((numeric.sum, numeric.squares), (totals.sum, totals.squares), "{what}: sums");
            let [first, .., last] = counted.counts else { panic!("{what}: bins") };
            assert_eq!((*first, *last), (0, 0), "{what}: the calibration data lies within its guard edges");
        }
        [
            name.clone(),
            baseline.samples().to_string(),
            baseline.feature_count().to_string(),
            baseline.counter_count().to_string(),
            baseline.features().map(|feature| feature.observed()).sum::<u64>().to_string(),
            self.added.to_string(),
            dunlin_monitor::window_bytes(baseline.feature_count(), baseline.counter_count()).to_string(),
        ]
    }
}

const HEADER: [&str; 7] =
    ["model", "samples", "features", "counters", "values a run", "baseline bytes", "window bytes"];

#[test]
fn own() {
    let models = own_models().expect("the repository's models are readable");
    let mut rows = Vec::new();
    for model in &models {
        let steps = if model.stateful { model.inputs[0].shape[1] } else { 1 };
        let inputs = model.inputs.iter().map(|array| array.bytes.clone()).collect();
        rows.push(Calibrated::new(&model.name, &model.model, inputs, steps).check());
    }
    publish("own-baselines", &table(HEADER, &rows));
    assert!(rows.len() >= 8, "the repository's models");
}

#[test]
fn larger() {
    let Some(folder) = larger_set() else {
        println!("SKIPPED: there is no larger set of models (DUNLIN_MODELS)");
        return;
    };
    let mut rows = Vec::new();
    for (model, data) in [("kws_ref_int8", "kws01"), ("ic_resnet8_int8", "ic01")] {
        let file = std::fs::read(folder.join(format!("models/{model}.tflite"))).expect("the model is there");
        let x = std::fs::read(folder.join(format!("data/{data}/x.npy"))).expect("the samples are there");
        let x = Array::from_npy(&x).expect("an array");
        // Images are stored as 0 to 255.
        let bytes = match x.dtype {
            DType::U8 => x.bytes.iter().map(|byte| byte ^ 0x80).collect(),
            _ => x.bytes.clone(),
        };
        rows.push(Calibrated::new(model, &file, vec![bytes], 1).check());
    }
    publish("larger-baselines", &table(HEADER, &rows));
}

/// The reference numbers of one model, computed from the arrays without bins.
#[test]
fn the_baseline_says_what_the_data_say() {
    let models = own_models().expect("the repository's models are readable");
    let model = models.iter().find(|model| model.name == "digits_resnet_int8").expect("it is there");
    let Array { bytes, shape, .. } = &model.inputs[0];
    let calibrated = Calibrated::new("digits", &model.model, vec![bytes.clone()], 1);
    let artifact = Artifact::parse(calibrated.file.as_slice()).expect("valid");
    let features: Vec<_> = artifact.baseline().expect("it was calibrated").features().collect();
    let [input, class, confidence] = features.as_slice() else { panic!("{features:?}") };
    assert_eq!((input.source, input.part), (Source::Input(0), Part::Elements { stride: 1 }));
    assert_eq!((class.source, class.part), (Source::Output(0), Part::ArgMax));
    assert_eq!((confidence.source, confidence.part), (Source::Output(0), Part::Max));

    let tensor = artifact.inputs().next().expect("input");
    let reals: Vec<f64> = bytes
        .iter()
        .map(|byte| f64::from(tensor.scale) * (f64::from(byte.cast_signed()) - f64::from(tensor.zero_point)))
        .collect();
    let Bins::Numeric(numeric) = input.bins else { panic!("{input:?}") };
    let n = reals.len() as u64;
    assert_eq!(u64::from(numeric.counts.iter().sum::<u32>()), n);
    let totals = dunlin_monitor::Totals {
        sum: numeric.sum,
        squares: numeric.squares,
        ..dunlin_monitor::Totals::EMPTY
    };
    let scale = Scale::of(&numeric);
    let mean = reals.iter().sum::<f64>() / n as f64;
    let variance = reals.iter().map(|real| (real - mean).powi(2)).sum::<f64>() / n as f64;
    let close = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() < 1e-9);
    assert!(close(scale.mean(n, &totals), mean) && close(scale.variance(n, &totals), variance));
    for (bin, edge) in numeric.edges.iter().enumerate() {
        let below = reals.iter().filter(|real| **real <= f64::from(edge) + 1e-6).count();
        let counted: u32 = numeric.counts.iter().take(bin + 1).sum();
        assert_eq!(counted as usize, below, "up to {edge}");
    }

    // The classes are those of the reference outputs.
    let scores = &model.outputs[0];
    let mut expected = vec![0; 10];
    for run in scores.bytes.chunks(10) {
        let largest = run.iter().map(|byte| byte.cast_signed()).max().expect("ten scores");
        expected[run.iter().position(|byte| byte.cast_signed() == largest).expect("there")] += 1;
    }
    assert_eq!(class.bins.counts().iter().collect::<Vec<u32>>(), expected);
    assert_eq!(expected.iter().sum::<u32>() as usize, shape[0]);
}
