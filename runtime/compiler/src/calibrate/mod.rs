//! Calibration: runs a finished artifact over sample inputs and adds the baseline.
//!
//! The artifact's own program computes the outputs, and the device's own monitor counts them, so that a device that
//! sees the same samples counts to exactly the same numbers.

mod choose;
mod edges;
#[cfg(test)]
mod fidelity;

use dunlin_artifact::baseline::{Category, Part, Source};
use dunlin_artifact::writer::{Baseline, Bins, Feature, with_baseline};
use dunlin_artifact::{Artifact, DType, FormatError, Tensor, limits};
use dunlin_monitor::{Monitor, Schedule, visit_integers, visit_values};
use dunlin_runtime::Session;

pub use choose::{Choice, What};

use crate::{AlignedBytes, CompileError};
use edges::Grid;

/// Most values that edges are computed from; more are thinned out evenly. 20,000 suffice to fix quantiles, the rest
/// is for the tails.
const MOST_REFERENCE: usize = 1 << 20;
/// Most bytes of outputs that are kept while the samples are counted.
const MOST_OUTPUT_BYTES: usize = 1 << 30;
/// Most categories that get a counter of their own: the most frequent ones.
const MOST_CATEGORIES: usize = 64;
/// Buckets for all other categories.
const OTHER_CATEGORIES: usize = 16;

/// Sample inputs, and what to monitor.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// For every input the bytes of all runs, in the input's own type, one run behind the other.
    pub inputs: Vec<Vec<u8>>,
    /// Runs after which the state of a streaming model starts afresh; 1 for samples that have nothing to do with one
    /// another.
    pub steps: usize,
    /// What to monitor of inputs and outputs; those that no choice names get the default ([`What`]).
    pub choices: Vec<Choice>,
    /// Features that the application will pass to the monitor.
    pub application: Vec<ApplicationFeature>,
}

/// A feature whose values the application passes to the monitor: a raw reading, a string.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationFeature {
    /// Its name.
    pub name: String,
    /// Sample values.
    pub values: ApplicationValues,
}

/// Sample values of an application's feature.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplicationValues {
    /// Real values; what is not a number is missing.
    Real(Vec<f32>),
    /// Categories that are integers.
    Integer(Vec<i64>),
    /// Categories that are strings; `None` is missing.
    Text(Vec<Option<String>>),
}

/// What one feature takes, before its bins are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    name: String,
    source: Source,
    part: Part,
    categories: bool,
}

/// Runs the artifact over the samples and returns it with a baseline. One that is already there is replaced.
///
/// # Errors
/// When the samples do not fit the model's inputs, a choice does not fit the model, or the features exceed a limit of
/// the format.
pub fn calibrate(artifact: &[u8], calibration: &Calibration) -> Result<Vec<u8>, CompileError> {
    let file = AlignedBytes::new(artifact);
    let artifact =
        Artifact::parse(file.as_slice()).map_err(|error| CompileError::Malformed(error.to_string()))?;
    let runs = runs(&artifact, &calibration.inputs)?;
    let outputs = run(&artifact, calibration, runs)?;
    let data = Data { artifact: &artifact, inputs: &calibration.inputs, outputs: &outputs, runs };
    let plans = choose::plans(&data, &calibration.choices)?;
    let mut features: Vec<Feature> = plans.iter().map(|plan| data.feature(plan)).collect::<Result<_, _>>()?;
    features.extend(calibration.application.iter().map(application_feature));
    choose::make_names_unique(&mut features);

    let counters: usize = features.iter().map(|feature| feature.bins.counters()).sum();
    if features.len() > limits::MAX_FEATURES || counters > limits::MAX_COUNTERS {
        return Err(CompileError::Calibration(format!(
            "{} features with {counters} counters are monitored; the limits are {} and {}: monitor fewer",
            features.len(),
            limits::MAX_FEATURES,
            limits::MAX_COUNTERS
        )));
    }
    let samples = u32::try_from(runs).map_err(|_| too_many())?;
    let mut baseline = Baseline { samples, features };
    let uncounted = AlignedBytes::new(&with_baseline(&artifact, &baseline));
    count(&uncounted, &data, &calibration.application, &mut baseline)?;
    Ok(with_baseline(&artifact, &baseline))
}

/// Inputs, outputs and how often the model ran.
pub(crate) struct Data<'a> {
    artifact: &'a Artifact<'a>,
    inputs: &'a [Vec<u8>],
    outputs: &'a [Vec<u8>],
    runs: usize,
}

impl Data<'_> {
    /// A tensor and its bytes over all runs.
    fn tensor(&self, source: Source) -> Option<(Tensor, &[u8])> {
        match source {
            Source::Input(index) => {
                Some((self.artifact.inputs().nth(index.into())?, self.inputs.get(usize::from(index))?))
            }
            Source::Output(index) => {
                Some((self.artifact.outputs().nth(index.into())?, self.outputs.get(usize::from(index))?))
            }
            Source::Application => None,
        }
    }

    /// A feature with bins that nothing was counted in yet.
    fn feature(&self, plan: &Plan) -> Result<Feature, CompileError> {
        let (tensor, bytes) = self
            .tensor(plan.source)
            .ok_or_else(|| CompileError::Internal(format!("{} is not there", plan.name)))?;
        let size = tensor.bytes().max(1);
        let bins = if plan.part == Part::ArgMax {
            Bins::Classes { counts: vec![0; tensor.elements()] }
        } else if plan.categories {
            let mut values = Vec::new();
            bytes
                .chunks_exact(size)
                .for_each(|run| visit_integers(&tensor, plan.part, run, |v| values.push(v)));
            categories(values.into_iter().map(|value| Category::Integer(value).hash()))
        } else {
            let per_run = match plan.part {
                Part::Elements { stride } => tensor.elements().div_ceil(stride as usize),
                _ => 1,
            };
            let mut sample = Thinned::new(per_run.saturating_mul(self.runs));
            bytes
                .chunks_exact(size)
                .for_each(|run| visit_values(&tensor, plan.part, run, |v| sample.push(v)));
            numeric(&sample.values, grid(&tensor))
        };
        Ok(Feature { name: plan.name.clone(), source: plan.source, part: plan.part, bins, missing: 0 })
    }
}

/// Every so many-th of a known number of values.
struct Thinned {
    values: Vec<f32>,
    every: usize,
    seen: usize,
}

impl Thinned {
    fn new(total: usize) -> Self {
        // An odd step does not run in step with the rows of a tensor.
        let every = total.div_ceil(MOST_REFERENCE);
        Thinned { values: Vec::new(), every: if every > 1 { every | 1 } else { 1 }, seen: 0 }
    }

    fn push(&mut self, value: f32) {
        if self.seen.is_multiple_of(self.every) {
            self.values.push(value);
        }
        self.seen += 1;
    }
}

/// How often the model is to run.
fn runs(artifact: &Artifact<'_>, inputs: &[Vec<u8>]) -> Result<usize, CompileError> {
    let tensors: Vec<Tensor> = artifact.inputs().collect();
    if tensors.is_empty() || tensors.len() != inputs.len() || tensors.iter().any(|tensor| tensor.bytes() == 0)
    {
        return Err(CompileError::Calibration(format!(
            "the model has {} inputs, and samples were given for {}",
            tensors.len(),
            inputs.len()
        )));
    }
    let runs = inputs[0].len() / tensors[0].bytes();
    let fits = |(tensor, bytes): (&Tensor, &Vec<u8>)| tensor.bytes().checked_mul(runs) == Some(bytes.len());
    if runs == 0 || !tensors.iter().zip(inputs).all(fits) {
        return Err(CompileError::Calibration(
            "the samples are no whole number of runs, or not the same number for every input".into(),
        ));
    }
    Ok(runs)
}

/// Runs the model over all samples; the bytes of every output, one run behind the other.
fn run(
    artifact: &Artifact<'_>,
    calibration: &Calibration,
    runs: usize,
) -> Result<Vec<Vec<u8>>, CompileError> {
    let failed = |error| CompileError::Internal(format!("{error}"));
    if artifact.io_len().1.saturating_mul(runs) > MOST_OUTPUT_BYTES {
        return Err(too_many());
    }
    let mut arena = AlignedBytes::zeroed(artifact.arena_len());
    let mut session: Session<'_, '_> = Session::new(*artifact, arena.as_mut_slice()).map_err(failed)?;
    let mut outputs = vec![Vec::new(); artifact.outputs().len()];
    for run in 0..runs {
        if run.is_multiple_of(calibration.steps.max(1)) {
            session.reset();
        }
        for (index, samples) in calibration.inputs.iter().enumerate() {
            let input = session.input_bytes_mut(index).map_err(failed)?;
            let len = input.len();
            input.copy_from_slice(&samples[run * len..][..len]);
        }
        session.run().map_err(failed)?;
        for (index, bytes) in outputs.iter_mut().enumerate() {
            bytes.extend_from_slice(session.output_bytes(index).map_err(failed)?);
        }
    }
    Ok(outputs)
}

/// Counts everything with the device's monitor and puts the counts into the baseline.
fn count(
    uncounted: &AlignedBytes,
    data: &Data<'_>,
    application: &[ApplicationFeature],
    baseline: &mut Baseline,
) -> Result<(), CompileError> {
    let internal = |error: &dyn std::fmt::Display| CompileError::Internal(error.to_string());
    let artifact = Artifact::parse(uncounted.as_slice()).map_err(|error| match error {
        FormatError::Limit => CompileError::Calibration(format!(
            "the monitor would look at more than {} elements in every run: monitor fewer",
            limits::MAX_OBSERVED
        )),
        error => internal(&error),
    })?;
    let mut monitor =
        Monitor::<{ limits::MAX_FEATURES }, { limits::MAX_COUNTERS }>::new(artifact, Schedule::default(), 0)
            .map_err(|error| internal(&error))?;
    for (index, tensor) in artifact.inputs().enumerate() {
        let runs = data.inputs[index].chunks_exact(tensor.bytes().max(1));
        runs.for_each(|bytes| monitor.observe_input(index, bytes));
    }
    for (index, tensor) in artifact.outputs().enumerate() {
        let runs = data.outputs[index].chunks_exact(tensor.bytes().max(1));
        runs.for_each(|bytes| monitor.observe_output(index, bytes));
    }
    let first = baseline.features.len() - application.len();
    for (index, feature) in (first..).zip(application) {
        match &feature.values {
            ApplicationValues::Real(values) => values.iter().for_each(|&value| {
                monitor.observe_value(index, value);
            }),
            ApplicationValues::Integer(values) => values.iter().for_each(|&value| {
                monitor.observe_category(index, Category::Integer(value));
            }),
            ApplicationValues::Text(values) => values.iter().for_each(|value| {
                match value {
                    Some(text) => monitor.observe_category(index, Category::Text(text)),
                    None => monitor.observe_missing(index),
                };
            }),
        }
    }
    let window = monitor.window();
    if window.saturated() {
        return Err(too_many());
    }
    for (feature, counted) in baseline.features.iter_mut().zip(window.features()) {
        feature.missing = counted.totals.missing;
        match &mut feature.bins {
            Bins::Numeric { counts, min, max, sum, squares, .. } => {
                counts.copy_from_slice(counted.counts);
                (*min, *max) = (counted.totals.min, counted.totals.max);
                (*sum, *squares) = (counted.totals.sum, counted.totals.squares);
            }
            Bins::Classes { counts } | Bins::Categories { counts, .. } => {
                counts.copy_from_slice(counted.counts)
            }
        }
    }
    Ok(())
}

fn application_feature(feature: &ApplicationFeature) -> Feature {
    let bins = match &feature.values {
        ApplicationValues::Real(values) => {
            let mut sample = Thinned::new(values.len());
            values.iter().for_each(|&value| sample.push(value));
            numeric(&sample.values, None)
        }
        ApplicationValues::Integer(values) => {
            categories(values.iter().map(|&value| Category::Integer(value).hash()))
        }
        ApplicationValues::Text(values) => {
            categories(values.iter().flatten().map(|text| Category::Text(text).hash()))
        }
    };
    let (source, part) = (Source::Application, Part::Element(0));
    Feature { name: feature.name.clone(), source, part, bins, missing: 0 }
}

/// Bins for real values, with nothing counted.
fn numeric(sample: &[f32], grid: Option<Grid>) -> Bins {
    let edges = edges::edges(sample, grid);
    let (unit, zero) = edges::scale(sample, grid);
    let counts = vec![0; edges.len() + 1];
    let (min, max) = (f32::INFINITY, f32::NEG_INFINITY);
    Bins::Numeric { edges, counts, min, max, unit, zero, sum: 0, squares: 0 }
}

/// Counters for the most frequent categories and buckets for the others, with nothing counted.
fn categories(hashes: impl Iterator<Item = u32>) -> Bins {
    let mut frequency = std::collections::BTreeMap::<u32, usize>::new();
    hashes.for_each(|hash| *frequency.entry(hash).or_default() += 1);
    let mut known: Vec<(u32, usize)> = frequency.into_iter().collect();
    known.sort_by_key(|&(hash, count)| (std::cmp::Reverse(count), hash));
    known.truncate(MOST_CATEGORIES);
    let mut known: Vec<u32> = known.into_iter().map(|(hash, _)| hash).collect();
    known.sort_unstable();
    let counts = vec![0; known.len() + OTHER_CATEGORIES];
    Bins::Categories { known, counts }
}

/// The values that a tensor can hold, if they are multiples of a scale.
fn grid(tensor: &Tensor) -> Option<Grid> {
    let (low, high) = match tensor.dtype {
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::U8 => (0, u8::MAX.into()),
        DType::I16 => (i16::MIN.into(), i16::MAX.into()),
        _ => return None,
    };
    let (scale, zero_point) = if tensor.scale == 0.0 { (1.0, 0) } else { (tensor.scale, tensor.zero_point) };
    let real = |stored: i32| stored.wrapping_sub(zero_point) as f32 * scale;
    (scale.is_normal() && scale > 0.0).then(|| Grid { scale, low: real(low), high: real(high) })
}

fn too_many() -> CompileError {
    CompileError::Calibration("there are too many samples to be counted: give fewer".into())
}
