//! `dunlin compile`: from a model file to an artifact.

use std::path::PathBuf;

use clap::ValueEnum;
use dunlin_compiler::{Compiled, Options, Report, Target};
use serde::Serialize;

use crate::baseline::BaselineReport;
use crate::calibration::CalibrationArgs;
use crate::error::{Failure, read_file, write_file};
use crate::model::ModelFile;
use crate::output::{Outcome, grouped};

/// Largest model file: the format's own limit.
const MAX_MODEL: u64 = 2 << 30;

/// Compile a model into an artifact.
///
/// The artifact holds everything a device needs: weights, multipliers, the memory plan, and golden vectors to prove
/// that the device computes what this machine computes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin compile kws.tflite -o kws.dunlin
  dunlin compile kws.tflite -o kws.dunlin --name keyword-spotting --golden 4 --report kws.json
  dunlin compile kws.tflite -o kws.dunlin --calibrate x.npy --monitor in0=values --monitor out0=class,confidence")]
pub(crate) struct Args {
    /// The model, a .tflite file.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The artifact to write.
    #[arg(short, long, value_name = "OUT.dunlin")]
    output: PathBuf,
    /// What the artifact is for.
    #[arg(long, value_enum, default_value_t = TargetName::Generic)]
    target: TargetName,
    /// The model's name in the artifact [default: the model file's name].
    #[arg(long)]
    name: Option<String>,
    /// Number of golden vectors: the first from a seeded input, the second from zeros, more from other seeds.
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=256))]
    golden: u16,
    /// Also write what the compiler did, as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Make every intermediate tensor an output, for debugging layer by layer.
    #[arg(long)]
    expose_intermediates: bool,
    #[command(flatten)]
    calibration: CalibrationArgs,
}

/// The targets by their names.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetName {
    /// Runs everywhere.
    Generic,
}

#[derive(Serialize)]
struct Summary<'a> {
    model: PathBuf,
    output: PathBuf,
    #[serde(flatten)]
    report: &'a Report,
    /// `null` without `--calibrate`.
    baseline: Option<BaselineReport>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut read = args.calibration.files();
    read.push(args.model.clone());
    if read.contains(&args.output)
        || args.report.as_ref().is_some_and(|report| read.contains(report) || *report == args.output)
    {
        return Err(
            Failure::usage("the files to read and to write are the same").way_out("choose different names")
        );
    }
    let model = read_file(&args.model, MAX_MODEL)?;
    let stem =
        || args.model.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    let options = Options {
        name: args.name.clone().unwrap_or_else(stem),
        target: match args.target {
            TargetName::Generic => Target::Generic,
        },
        golden: args.golden.into(),
        expose_intermediates: args.expose_intermediates,
        ..Options::default()
    };
    let Compiled { artifact, mut report } = dunlin_compiler::compile(&model, &options)
        .map_err(|error| Failure::new(error.to_string()).file(&args.model))?;
    let artifact = args.calibration.apply(&args.output, artifact)?;
    report.artifact_bytes = artifact.len();
    write_file(&args.output, &artifact)?;
    if let Some(path) = &args.report {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new(error.to_string()).file(path))?;
        write_file(path, (json + "\n").as_bytes())?;
    }
    let file = ModelFile::new(&args.output, &artifact);
    let baseline = BaselineReport::of(&file.parse()?.artifact);
    let text = text(args, &report, baseline.as_ref());
    let summary =
        Summary { model: args.model.clone(), output: args.output.clone(), report: &report, baseline };
    Ok(Outcome::new(&summary, text))
}

fn text(args: &Args, report: &Report, baseline: Option<&BaselineReport>) -> String {
    let number = |n: usize| grouped(n as u64);
    let operators: usize = report.source_operators.values().sum();
    let by_name: Vec<String> =
        report.source_operators.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let above = report.arena_bytes.saturating_sub(report.arena_bound_bytes);
    let bound = match above * 1000 / report.arena_bound_bytes.max(1) {
        _ if above == 0 => "the least that any plan needs".to_owned(),
        per_mille => format!(
            "{}.{} % above {}, the least that any plan needs",
            per_mille / 10,
            per_mille % 10,
            number(report.arena_bound_bytes)
        ),
    };
    let state = match report.state_bytes {
        0 => String::new(),
        bytes => format!(", of which {} hold state", number(bytes)),
    };
    // Without a baseline the summary does not speak of it: monitoring is a choice.
    let baseline =
        baseline.map_or_else(String::new, |baseline| format!("  baseline    {}\n", baseline.summary()));
    format!(
        "{} -> {}\n\
         \x20 operators   {operators}: {}\n\
         \x20 program     {} instructions, {} multiply-accumulates\n\
         \x20 kernels     {}\n\
         \x20 arena       {} bytes{state}; {bound}\n\
         \x20 artifact    {} bytes, {} of them constants; the model file has {}\n{baseline}",
        args.model.display(),
        args.output.display(),
        by_name.join(", "),
        report.operators.len(),
        grouped(report.macs),
        report.kernels.join(", "),
        number(report.arena_bytes),
        number(report.artifact_bytes),
        number(report.constant_bytes),
        number(report.source_bytes),
    )
}
