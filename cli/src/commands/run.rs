//! `dunlin run`: arrays in, arrays out.

use std::path::{Path, PathBuf};

use dunlin_artifact::DType;
use serde::Serialize;

use crate::array::{Array, Element};
use crate::error::{Failure, write_file};
use crate::model::{Model, ModelFile, Port};
use crate::output::{Outcome, count, printable, progress};
use crate::samples::{Arrays, Layout, Samples};
use crate::{npz, stats};

/// Run a model on arrays.
///
/// The first axis of an array is the sample; the rest is the shape of the model's input, of which a batch axis of 1
/// may be left out (the outputs then have none either). Values are raw, in the input's own type. An .npz file holds
/// one array per input, named like the model's inputs, or in_0, in_1, …; outputs are written under the names of the
/// model's outputs. State is reset before each sample.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin run kws.dunlin --input x.npy --output scores.npy
  dunlin run kws.dunlin --input mfcc_float.npy --quantize-input --dequantize --output scores.npz
  dunlin run wakeword.dunlin --input frames.npy --sequences --output scores.npy")]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "FILE.dunlin")]
    file: PathBuf,
    /// The inputs: an .npy file, or an .npz file with one array per input.
    #[arg(long, value_name = "X.npy|IN.npz")]
    input: PathBuf,
    /// Where the outputs go: an .npy file if the model has one output, or an .npz file.
    #[arg(long, value_name = "OUT.npy|OUT.npz", value_parser = output_file)]
    output: PathBuf,
    /// The first two axes are sequence and step: state is carried from step to step and reset before each sequence.
    #[arg(long)]
    sequences: bool,
    /// Quantize float32 arrays for quantized inputs, by the input's scale and zero point.
    #[arg(long)]
    quantize_input: bool,
    /// Write the real values (float32) of quantized outputs.
    #[arg(long)]
    dequantize: bool,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    input: PathBuf,
    output: PathBuf,
    /// Samples, or sequences with `--sequences`.
    samples: usize,
    /// Steps of each sequence; 1 for samples.
    steps: usize,
    outputs: Vec<OutputReport>,
    latency: Option<stats::Latency>,
}

#[derive(Serialize)]
struct OutputReport {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let file = ModelFile::read(&args.file)?;
    let model = file.parse_intact()?;
    let single = !is_npz(&args.output);
    if single && model.outputs.len() != 1 {
        let message = format!("one .npy file cannot hold the model's {} outputs", model.outputs.len());
        return Err(Failure::new(message)
            .file(&args.output)
            .way_out("give --output a name that ends in .npz"));
    }
    let layout = if args.sequences { Layout::Sequences } else { Layout::Samples };
    let arrays = Arrays::read(&args.input)?;
    let samples = Samples::bind(&model, &args.input, arrays, &[layout], args.quantize_input)?;
    let (outputs, latency) = infer(&model, &samples)?;
    let outputs: Vec<(String, Array)> = model
        .output_keys()
        .into_iter()
        .zip(model.outputs.iter().zip(outputs))
        .map(|(key, (port, bytes))| (key, to_array(port, &samples, bytes, args.dequantize)))
        .collect();
    let bytes = match outputs.as_slice() {
        [(_, array)] if single => array.to_npy(),
        all => npz::write(all).map_err(|error| Failure::new(error).file(&args.output))?,
    };
    write_file(&args.output, &bytes)?;

    let describe = |(name, array): &(String, Array)| OutputReport {
        name: name.clone(),
        dtype: array.element.to_string(),
        shape: array.shape.clone(),
    };
    let report = Report {
        file: args.file.clone(),
        input: args.input.clone(),
        output: args.output.clone(),
        samples: samples.count,
        steps: samples.steps,
        outputs: outputs.iter().map(describe).collect(),
        latency,
    };
    let text = text(&report, args.sequences);
    Ok(Outcome::new(&report, text))
}

/// Runs everything; returns the bytes of every output over all samples.
fn infer(model: &Model<'_>, samples: &Samples) -> Result<(Vec<Vec<u8>>, Option<stats::Latency>), Failure> {
    let mut arena = model.arena();
    let mut session = model.session(&mut arena)?;
    let mut outputs = vec![Vec::new(); model.outputs.len()];
    let mut durations = Vec::new();
    let progress = progress(samples.runs(), "runs");
    samples.run(model, &mut session, &progress, |_, session, duration| {
        durations.push(duration);
        for (index, output) in outputs.iter_mut().enumerate() {
            output.extend_from_slice(session.output_bytes(index).map_err(|error| model.run_failure(error))?);
        }
        Ok(())
    })?;
    Ok((outputs, stats::Latency::of(&mut durations)))
}

fn to_array(port: &Port, samples: &Samples, bytes: Vec<u8>, dequantize: bool) -> Array {
    let shape = samples.output_shape(port);
    if dequantize && port.quantization().is_some() {
        let reals = port.reals(&bytes).flat_map(|real| (real as f32).to_le_bytes()).collect();
        return Array::new(Element::Tensor(DType::F32), shape, reals);
    }
    Array::new(Element::Tensor(port.tensor.dtype), shape, bytes)
}

fn text(report: &Report, sequences: bool) -> String {
    let mut text = if sequences {
        format!("{} of {}", count(report.samples, "sequence"), count(report.steps, "step"))
    } else {
        count(report.samples, "sample")
    };
    if let Some(latency) = &report.latency {
        text += &format!("; {latency} a run");
    }
    text += "\n";
    for output in &report.outputs {
        let (name, dtype, shape) = (printable(&output.name), &output.dtype, &output.shape);
        text += &format!("{}: {name} {dtype} {shape:?}\n", report.output.display());
    }
    text
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// The form of the output follows from its name, so the name must tell.
fn output_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let npy = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    if npy || is_npz(&path) { Ok(path) } else { Err("the name must end in .npy or .npz".into()) }
}
