//! `dunlin compile --calibrate`: sample inputs, and what is to be monitored.

use std::path::{Path, PathBuf};

use dunlin_artifact::baseline::Source;
use dunlin_compiler::Calibration;
use dunlin_compiler::calibrate::{ApplicationFeature, ApplicationValues, Choice, What};

use crate::array::Array;
use crate::error::{Failure, read_file};
use crate::model::{Model, ModelFile};
use crate::samples::{Arrays, Layout, Samples};

/// Largest file of strings.
const MAX_TEXT: u64 = 1 << 30;

/// The part of `compile`'s arguments that is about calibration.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Monitoring")]
pub(crate) struct CalibrationArgs {
    /// Sample inputs, as for `dunlin run`: the compiled model runs over them, and the artifact gets a baseline that
    /// devices count against.
    #[arg(long, value_name = "X.npy|IN.npz")]
    calibrate: Option<PathBuf>,
    /// What to monitor of an input or output: values, elements, class, confidence, categories or nothing, of one
    /// element or all of them [default: every element of a small tensor; all values of a large one or of a streaming
    /// model; class and confidence of a classifier's output].
    #[arg(long, value_name = "in0=values|out0=class,confidence|in0[3]=categories", requires = "calibrate")]
    #[arg(value_parser = parse_choices)]
    monitor: Vec<Choices>,
    /// A feature that the application will pass to the monitor. Its samples are the array NAME of the .npz file (real
    /// numbers are counted in bins, integers as categories) or the lines of FILE (strings; an empty line is missing).
    #[arg(long, value_name = "NAME[=FILE]", requires = "calibrate")]
    application: Vec<String>,
    /// The sample's first two axes are sequence and step: state is carried from step to step.
    #[arg(long, requires = "calibrate")]
    sequences: bool,
    /// Quantize float32 samples for quantized inputs, by the input's scale and zero point.
    #[arg(long, requires = "calibrate")]
    quantize_input: bool,
}

/// What one `--monitor` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choices(Vec<Choice>);

impl CalibrationArgs {
    /// The files that are read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let texts = self.application.iter().filter_map(|feature| feature.split_once('='));
        self.calibrate.iter().cloned().chain(texts.map(|(_, file)| PathBuf::from(file))).collect()
    }

    /// The artifact with a baseline, if one was asked for.
    pub(crate) fn apply(&self, output: &Path, artifact: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let Some(path) = &self.calibrate else { return Ok(artifact) };
        let file = ModelFile::new(output, &artifact);
        let model = file.parse()?;
        let mut arrays = Arrays::read(path)?;
        let application = self.application(&mut arrays, path)?;
        let layout = if self.sequences { Layout::Sequences } else { Layout::Samples };
        let samples = Samples::bind(&model, path, arrays, &[layout], self.quantize_input)?;
        if samples.runs() == 0 {
            return Err(Failure::new("holds no samples").file(path));
        }
        let calibration = Calibration {
            inputs: inputs(&model, &samples),
            steps: samples.steps,
            choices: self.monitor.iter().flat_map(|choices| choices.0.iter().copied()).collect(),
            application,
        };
        dunlin_compiler::calibrate(&artifact, &calibration)
            .map_err(|error| Failure::new(error.to_string()).file(path))
    }

    fn application(&self, arrays: &mut Arrays, path: &Path) -> Result<Vec<ApplicationFeature>, Failure> {
        let one = |feature: &String| -> Result<ApplicationFeature, Failure> {
            if let Some((name, file)) = feature.split_once('=') {
                let values = ApplicationValues::Text(lines(Path::new(file))?);
                return Ok(ApplicationFeature { name: name.to_owned(), values });
            }
            let Some(array) = arrays.take(feature) else {
                let message = format!("holds no array named {feature:?}");
                return Err(Failure::new(message).file(path).way_out(
                    "give an .npz file that has it beside the model's inputs, or --application NAME=FILE",
                ));
            };
            Ok(ApplicationFeature { name: feature.clone(), values: values(&array) })
        };
        self.application.iter().map(one).collect()
    }
}

/// The bytes of every input over all runs.
fn inputs(model: &Model<'_>, samples: &Samples) -> Vec<Vec<u8>> {
    let input = |(index, port): (usize, &crate::model::Port)| {
        let size = port.tensor.bytes();
        let mut bytes = vec![0; size * samples.runs()];
        for (run, chunk) in bytes.chunks_exact_mut(size.max(1)).enumerate() {
            samples.fill(index, run, chunk);
        }
        bytes
    };
    model.inputs.iter().enumerate().map(input).collect()
}

/// Integers are categories, everything else is counted in bins.
fn values(array: &Array) -> ApplicationValues {
    if array.element.is_integer() {
        // Beyond 2^53 nearby integers become one category.
        ApplicationValues::Integer(array.reals().map(|value| value as i64).collect())
    } else {
        ApplicationValues::Real(array.reals().map(|value| value as f32).collect())
    }
}

fn lines(path: &Path) -> Result<Vec<Option<String>>, Failure> {
    let bytes = read_file(path, MAX_TEXT)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new("is not UTF-8 text").file(path))?;
    Ok(text.lines().map(|line| (!line.is_empty()).then(|| line.to_owned())).collect())
}

/// Reads `in0=values`, `out0=class,confidence`, `in1[3]=elements`.
fn parse_choices(text: &str) -> Result<Choices, String> {
    let wrong = || {
        format!(
            "{text:?} is not understood; expected is for example in0=values, out0=class,confidence, in0[3]=values"
        )
    };
    let (tensor, whats) = text.split_once('=').ok_or_else(wrong)?;
    let (tensor, element) = match tensor.split_once('[') {
        None => (tensor, None),
        Some((tensor, rest)) => {
            let element = rest.strip_suffix(']').and_then(|element| element.parse().ok());
            (tensor, Some(element.ok_or_else(wrong)?))
        }
    };
    let index = |prefix: &str| tensor.strip_prefix(prefix).and_then(|index| index.parse().ok());
    let source =
        index("in").map(Source::Input).or_else(|| index("out").map(Source::Output)).ok_or_else(wrong)?;
    let what = |name: &str| {
        What::ALL.into_iter().find(|what| what.name() == name).ok_or_else(|| {
            let names: Vec<&str> = What::ALL.iter().map(|what| what.name()).collect();
            format!("{name:?} cannot be monitored; it is one of {}", names.join(", "))
        })
    };
    let choice = |name: &str| what(name).map(|what| Choice { source, element, what });
    Ok(Choices(whats.split(',').map(choice).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read() {
        let choice = |source, element, what| Choice { source, element, what };
        let cases = [
            ("in0=values", vec![choice(Source::Input(0), None, What::Values)]),
            ("in12[3]=categories", vec![choice(Source::Input(12), Some(3), What::Categories)]),
            (
                "out1=class,confidence",
                vec![
                    choice(Source::Output(1), None, What::Class),
                    choice(Source::Output(1), None, What::Confidence),
                ],
            ),
        ];
        for (text, choices) in cases {
            assert_eq!(parse_choices(text), Ok(Choices(choices)), "{text}");
        }
        for text in ["", "in0", "in=values", "x0=values", "in0[=values", "in0[x]=values", "in0=", "in0=mean"]
        {
            assert!(parse_choices(text).is_err(), "{text}");
        }
    }
}
