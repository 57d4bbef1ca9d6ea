//! `dunlin eval`: how good is a model on labelled data?

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::array::Array;
use crate::error::Failure;
use crate::metrics::{Confusion, argmax, auc};
use crate::model::{Model, ModelFile, Port};
use crate::output::{Outcome, count, grouped, progress, table};
use crate::samples::{Arrays, Layout, Samples};
use crate::stats::Latency;

/// Largest confusion matrix that is printed; of a larger one the most frequent confusions are listed.
const MAX_PRINTED_CLASSES: usize = 16;
/// Confusions in such a list.
const SHOWN_CONFUSIONS: usize = 10;

/// Evaluate a model on labelled data.
///
/// accuracy: labels are class numbers; the predicted class is the largest value along the output's last axis, or, for
/// an output of one value, whether its real value exceeds 0.5. auc: labels are 0 and 1; the score of a sample is an
/// output of one value, the second of two values, or, when the output has the shape of the input (an autoencoder), the
/// mean squared difference of their real values; an extra axis behind the sample holds windows, over whose scores the
/// mean is taken. mae: labels are real values, as many as the output has. Models with several outputs are judged by
/// the first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin eval kws.dunlin --inputs x.npy --labels y.npy
  dunlin eval anomaly.dunlin --inputs windows.npy --labels y.npy --metric auc --quantize-input")]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "FILE.dunlin")]
    file: PathBuf,
    /// The inputs, as for `dunlin run`.
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// The labels: one per sample for accuracy and auc, the expected outputs for mae.
    #[arg(long, value_name = "Y.npy")]
    labels: PathBuf,
    /// What to compute.
    #[arg(long, value_enum, default_value_t = Metric::Accuracy)]
    metric: Metric,
    /// Quantize float32 arrays for quantized inputs, by the input's scale and zero point.
    #[arg(long)]
    quantize_input: bool,
}

/// The metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Metric {
    /// Share of samples whose class is predicted.
    Accuracy,
    /// Area under the ROC curve.
    Auc,
    /// Mean absolute error.
    Mae,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    metric: Metric,
    value: f64,
    samples: usize,
    /// Correct predictions, for accuracy.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confusion: Option<Confusion>,
    latency: Latency,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let file = ModelFile::read(&args.file)?;
    let model = file.parse_intact()?;
    let Some(output) = model.outputs.first() else {
        return Err(Failure::new("has no outputs to judge").file(&args.file));
    };
    let labels = read_labels(args)?;
    let layouts: &[Layout] =
        if args.metric == Metric::Auc { &[Layout::Samples, Layout::Windows] } else { &[Layout::Samples] };
    let samples =
        Samples::bind(&model, &args.inputs, Arrays::read(&args.inputs)?, layouts, args.quantize_input)?;
    if samples.runs() == 0 {
        return Err(Failure::new("holds no samples").file(&args.inputs));
    }

    let task = Task { args, model: &model, output, samples: &samples, labels: &labels };
    match args.metric {
        Metric::Accuracy => task.accuracy(),
        Metric::Auc => task.auc(),
        Metric::Mae => task.mae(),
    }
}

fn read_labels(args: &Args) -> Result<Array, Failure> {
    match Arrays::read(&args.labels)? {
        Arrays::One(array) => Ok(array),
        Arrays::Named(mut named) if named.len() == 1 => Ok(named.remove(0).1),
        Arrays::Named(_) => Err(Failure::new("holds several arrays")
            .file(&args.labels)
            .way_out("give the labels as an .npy file")),
    }
}

/// What the metrics work with.
struct Task<'a> {
    args: &'a Args,
    model: &'a Model<'a>,
    output: &'a Port,
    samples: &'a Samples,
    labels: &'a Array,
}

impl Task<'_> {
    fn accuracy(&self) -> Result<Outcome, Failure> {
        let classes = match self.output.tensor.shape().last() {
            Some(&last) if self.output.tensor.elements() > 1 => last as usize,
            _ => 1,
        };
        let rows = self.output.tensor.elements() / classes.max(1);
        let labels = self.class_labels(rows * self.samples.count, if classes == 1 { 2 } else { classes })?;
        let mut pairs = Vec::new();
        let mut labels = labels.into_iter();
        let latency = self.infer(|_, output| {
            for row in output.chunks(classes.max(1)) {
                let predicted =
                    if classes == 1 { usize::from(row[0] > 0.5) } else { argmax(row.iter().copied()) };
                pairs.extend(labels.next().map(|label| (label, predicted)));
            }
        })?;
        let confusion = Confusion::of(&pairs);
        let correct = confusion.correct();
        self.outcome(
            correct as f64 / pairs.len().max(1) as f64,
            Some((correct, pairs.len(), confusion)),
            latency,
        )
    }

    fn auc(&self) -> Result<Outcome, Failure> {
        let labels = self.class_labels(self.samples.count, 2)?;
        let input = &self.model.inputs[0];
        let elements = self.output.tensor.elements();
        let same_shape = input.tensor.shape() == self.output.tensor.shape();
        let reconstructs = self.model.inputs.len() == 1 && same_shape && elements > 1;
        if !reconstructs && elements != 1 && elements != 2 {
            let message = format!("output {} has shape {:?}", self.output.name, self.output.tensor.shape());
            let expected =
                "for auc an output of one value, of two values, or of the input's shape is expected";
            return Err(Failure::new(message).file(&self.args.file).way_out(expected));
        }
        let mut scores = vec![0.0; self.samples.count];
        let latency = self.infer(|run, output| {
            let score = if reconstructs {
                mean_squared_difference(&self.samples.reals(self.model, 0, run), output)
            } else {
                output.last().copied().unwrap_or(0.0)
            };
            scores[run / self.samples.steps] += score / self.samples.steps as f64;
        })?;
        let labelled: Vec<(f64, bool)> =
            scores.into_iter().zip(labels).map(|(score, label)| (score, label == 1)).collect();
        let value = auc(&labelled).ok_or_else(|| {
            let failure = Failure::new("holds only one class").file(&self.args.labels);
            failure.way_out("auc needs samples of class 0 and of class 1")
        })?;
        self.outcome(value, None, latency)
    }

    fn mae(&self) -> Result<Outcome, Failure> {
        let labels = self.label_values(self.output.tensor.elements() * self.samples.count)?;
        let mut labels = labels.iter();
        let (mut sum, mut count) = (0.0, 0usize);
        let latency = self.infer(|_, output| {
            for (value, label) in output.iter().zip(&mut labels) {
                sum += (value - label).abs();
                count += 1;
            }
        })?;
        self.outcome(sum / count.max(1) as f64, None, latency)
    }

    /// Runs everything and hands the real values of the first output to `each`.
    fn infer(&self, mut each: impl FnMut(usize, &[f64])) -> Result<Latency, Failure> {
        let mut arena = self.model.arena();
        let mut session = self.model.session(&mut arena)?;
        let mut durations: Vec<Duration> = Vec::new();
        let progress = progress(self.samples.runs(), "runs");
        self.samples.run(self.model, &mut session, &progress, |run, session, duration| {
            durations.push(duration);
            let bytes = session.output_bytes(0).map_err(|error| self.model.run_failure(error))?;
            each(run, &self.output.reals(bytes).collect::<Vec<_>>());
            Ok(())
        })?;
        Latency::of(&mut durations).ok_or_else(|| Failure::new("nothing was run").file(&self.args.file))
    }

    /// The labels as numbers; there must be `expected` of them.
    fn label_values(&self, expected: usize) -> Result<Vec<f64>, Failure> {
        let values: Vec<f64> = self.labels.reals().collect();
        if values.len() == expected {
            return Ok(values);
        }
        let message = format!(
            "has shape {:?}, {} labels; {} samples need {expected}",
            self.labels.shape,
            values.len(),
            self.samples.count
        );
        Err(Failure::new(message).file(&self.args.labels).way_out("inputs and labels must belong together"))
    }

    /// The labels as class numbers below `classes`.
    fn class_labels(&self, expected: usize, classes: usize) -> Result<Vec<usize>, Failure> {
        let refuse = |message: String| {
            let way_out =
                format!("for this metric and model the labels are integers from 0 to {}", classes - 1);
            Failure::new(message).file(&self.args.labels).way_out(way_out)
        };
        if !self.labels.element.is_integer() {
            return Err(refuse(format!("is {}", self.labels.element)));
        }
        let values = self.label_values(expected)?;
        match values.iter().position(|&value| !(0.0..classes as f64).contains(&value)) {
            Some(at) => Err(refuse(format!("label {at} is {}", values[at]))),
            None => Ok(values.into_iter().map(|value| value as usize).collect()),
        }
    }

    fn outcome(
        &self,
        value: f64,
        confusion: Option<(usize, usize, Confusion)>,
        latency: Latency,
    ) -> Result<Outcome, Failure> {
        let (metric, samples) = (self.args.metric, self.samples.count);
        let mut text = match (metric, &confusion) {
            (Metric::Accuracy, Some((correct, total, _))) => {
                format!("accuracy {value:.4} ({} of {})\n", grouped(*correct as u64), grouped(*total as u64))
            }
            (Metric::Mae, _) => format!("mean absolute error {value} over {}\n", count(samples, "sample")),
            _ => format!("auc {value:.5} over {}\n", count(samples, "sample")),
        };
        text += &format!("latency {latency} a run\n");
        if let Some((_, _, confusion)) = &confusion {
            text += &confusion_text(confusion);
        }
        let (correct, confusion) = confusion.map(|(correct, _, confusion)| (correct, confusion)).unzip();
        let file = self.args.file.clone();
        Ok(Outcome::new(&Report { file, metric, value, samples, correct, confusion, latency }, text))
    }
}

fn mean_squared_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len().max(1) as f64
}

/// The matrix, or the most frequent confusions of a large one.
fn confusion_text(confusion: &Confusion) -> String {
    let Confusion { classes, counts } = confusion;
    if classes.len() <= MAX_PRINTED_CLASSES {
        let mut header = vec!["label".to_owned()];
        header.extend(classes.iter().map(usize::to_string));
        header.push("recall".into());
        let rows = classes.iter().zip(counts).enumerate().map(|(index, (class, row))| {
            let total: usize = row.iter().sum();
            let recall = row[index] as f64 / total.max(1) as f64;
            let mut cells = vec![class.to_string()];
            cells.extend(row.iter().map(usize::to_string));
            cells.push(if total == 0 { String::new() } else { format!("{recall:.3}") });
            cells
        });
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        return format!("\nConfusion: a row per label, a column per prediction\n{}", table(&header, rows, 0));
    }
    let mut wrong: Vec<(usize, usize, usize)> = Vec::new();
    for (i, row) in counts.iter().enumerate() {
        let pairs = row.iter().enumerate().filter(|&(j, &count)| i != j && count > 0);
        wrong.extend(pairs.map(|(j, &count)| (count, classes[i], classes[j])));
    }
    wrong.sort_by(|a, b| b.cmp(a));
    wrong.truncate(SHOWN_CONFUSIONS);
    let rows = wrong
        .iter()
        .map(|(count, label, predicted)| vec![label.to_string(), predicted.to_string(), count.to_string()]);
    format!("\nMost frequent confusions\n{}", table(&["label", "prediction", "samples"], rows, 0))
}
