//! Running one model.

use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_agent::{Agent, EventKind, Failure as Kind, Slot};
use dunlin_artifact::DType;
use dunlin_compiler::AlignedBytes;
use dunlin_runtime::{Session, verify_golden};

use super::Args;
use super::signals::Signals;
use crate::error::Failure;
use crate::metrics::argmax;
use crate::model::{Model, ModelFile};
use crate::output::count;
use crate::samples::{Arrays, Layout, Samples};

/// Shortest time between two events about failed runs; the counts tell about all of them.
const EVENT_PERIOD: Duration = Duration::from_secs(60);

/// Runs the golden vectors of the artifact that was brought along: a model that computes something else on this machine
/// must not be used. Those that the control plane assigns are proven by the agent.
pub(super) fn prove(agent: &Agent, slot: &str, file: &ModelFile) -> Result<(), Failure> {
    let model = file.parse()?;
    let mut arena = model.arena();
    let proven = verify_golden(&mut model.session(&mut arena)?).map_err(|error| model.run_failure(error))?;
    let Err(mismatch) = proven else { return Ok(()) };
    let reason = format!(
        "golden vector {}: output {} element {} is {:#x} instead of {:#x}",
        mismatch.vector, mismatch.output, mismatch.element, mismatch.actual, mismatch.expected
    );
    agent.failed(slot, model.artifact.digest(), EventKind::GoldenMismatch, &reason);
    Err(Failure::new(reason)
        .file(model.path)
        .way_out("this machine computes the model wrongly: it is not used"))
}

/// How far the runs have come, over all models.
pub(super) struct Pace {
    start: Instant,
    run: u64,
    /// When an event told of a failed run last.
    told: Option<Instant>,
}

/// Why a model does not run on.
pub(super) enum End {
    /// All runs are done, or a signal came.
    Stop,
    /// Another model is to run.
    Changed,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { start: Instant::now(), run: 0, told: None }
    }
}

/// One model with everything that its runs need.
pub(super) struct Task<'a, 's> {
    model: &'a Model<'a>,
    samples: Samples,
    labels: Option<Vec<u32>>,
    session: Session<'a, 's>,
}

impl<'a, 's> Task<'a, 's> {
    /// Binds the inputs to the model.
    pub(super) fn new(
        args: &Args,
        model: &'a Model<'a>,
        arena: &'s mut AlignedBytes,
    ) -> Result<Self, Failure> {
        let layout = if args.sequences { Layout::Sequences } else { Layout::Samples };
        let arrays = Arrays::read(&args.input)?;
        let samples = Samples::bind(model, &args.input, arrays, &[layout], args.quantize_input)?;
        if samples.runs() == 0 {
            return Err(Failure::new("holds no samples").file(&args.input));
        }
        let labels = args.labels.as_deref().map(|path| read_labels(path, model, &samples)).transpose()?;
        let session = model.session(arena)?;
        Ok(Task { model, samples, labels, session })
    }

    /// Runs the model until another one is to run, or there is no more to do.
    pub(super) fn infer(
        &mut self,
        args: &Args,
        agent: &Agent,
        slot: &Slot,
        has_changed: impl Fn() -> bool,
        pace: &mut Pace,
        signals: &Signals,
    ) -> End {
        let total = args.count.unwrap_or(u64::MAX);
        while pace.run < total {
            let run = pace.run;
            if args.rate > 0.0 {
                let due = pace.start + Duration::from_secs_f64(run as f64 / args.rate);
                if signals.wait_until(due) {
                    return End::Stop;
                }
            } else if signals.came() {
                return End::Stop;
            }
            if has_changed() {
                return End::Changed;
            }
            pace.run += 1;
            let sample = usize::try_from(run % self.samples.runs() as u64).unwrap_or(0);
            if let Err((kind, detail)) = self.infer_one(sample, slot) {
                slot.failed(kind);
                if pace.told.is_none_or(|at| at.elapsed() >= EVENT_PERIOD) {
                    pace.told = Some(Instant::now());
                    let number = i64::try_from(run).unwrap_or(i64::MAX);
                    agent.event(slot.name(), EventKind::InferenceFailed, number, &detail);
                }
            }
        }
        End::Stop
    }

    fn infer_one(&mut self, sample: usize, slot: &Slot) -> Result<(), (Kind, String)> {
        let session = &mut self.session;
        let input = |error| (Kind::Input, format!("sample {sample}: {error}"));
        let failed = |error| (Kind::Run, format!("sample {sample}: {error}"));
        self.samples.prepare(sample, session).map_err(input)?;
        for index in 0..self.model.inputs.len() {
            slot.input(index, session.input_bytes_mut(index).map_err(input)?);
        }
        let start = Instant::now();
        session.run().map_err(failed)?;
        let latency = start.elapsed();
        for (index, port) in self.model.outputs.iter().enumerate() {
            let bytes = session.output_bytes(index).map_err(failed)?;
            if port.tensor.dtype == DType::F32 && port.reals(bytes).any(f64::is_nan) {
                return Err((Kind::Output, format!("sample {sample}: output {} is not a number", port.name)));
            }
        }
        for index in 0..self.model.outputs.len() {
            slot.output(index, session.output_bytes(index).map_err(failed)?);
        }
        slot.completed(latency);
        if let (Some(labels), Some(port)) = (&self.labels, self.model.outputs.first()) {
            let bytes = session.output_bytes(0).map_err(failed)?;
            let scores: Vec<f64> = port.reals(bytes).collect();
            let (predicted, confidence) = match scores.as_slice() {
                [score] => (usize::from(*score > 0.5), score.max(1.0 - score)),
                scores => {
                    let predicted = argmax(scores.iter().copied());
                    (predicted, scores.get(predicted).copied().unwrap_or(f64::NAN))
                }
            };
            if let Some(&label) = labels.get(sample / self.samples.steps.max(1)) {
                let predicted = u32::try_from(predicted).unwrap_or(u32::MAX);
                slot.label(predicted, label, Some(confidence as f32));
            }
        }
        Ok(())
    }
}

fn read_labels(path: &Path, model: &Model<'_>, samples: &Samples) -> Result<Vec<u32>, Failure> {
    let array = match Arrays::read(path)? {
        Arrays::One(array) => array,
        Arrays::Named(mut named) if named.len() == 1 => named.remove(0).1,
        Arrays::Named(_) => {
            let failure = Failure::new("holds several arrays").file(path);
            return Err(failure.way_out("give the labels as an .npy file"));
        }
    };
    let labels: Vec<u32> = array.reals().map(|label| label as u32).collect();
    if !array.element.is_integer() || array.reals().any(|label| !(0.0..=f64::from(u32::MAX)).contains(&label))
    {
        let failure = Failure::new(format!("is {}", array.element)).file(path);
        return Err(failure.way_out("labels are class numbers, integers from 0 on"));
    }
    if labels.len() != samples.count {
        let message = format!("holds {} labels for {}", labels.len(), count(samples.count, "sample"));
        return Err(Failure::new(message).file(path).way_out("inputs and labels must belong together"));
    }
    if model.outputs.is_empty() {
        return Err(Failure::new("has no outputs that labels could judge").file(model.path));
    }
    Ok(labels)
}
