//! `dunlin inspect`: what is in an artifact.

use std::path::PathBuf;

use dunlin_artifact::{GoldenInput, Pattern};
use serde::Serialize;

use crate::baseline::BaselineReport;
use crate::error::Failure;
use crate::model::{Model, ModelFile, Port, PortReport};
use crate::output::{Outcome, count, grouped, printable, table};
use crate::plan::{Plan, Stay};
use crate::program::{InstructionReport, KernelReport, by_kernel, instructions};

/// Show what is in an artifact.
///
/// Manifest, inputs and outputs, operators and their work, memory plan, kernels, golden vectors, baseline and digest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin inspect kws.dunlin
  dunlin inspect kws.dunlin --json | jq .arena.bytes")]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "FILE.dunlin")]
    file: PathBuf,
    /// List every instruction.
    #[arg(long)]
    instructions: bool,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    file_bytes: usize,
    name: String,
    producer: String,
    target: String,
    source_format: String,
    source_digest: String,
    digest: String,
    digest_verified: bool,
    inputs: Vec<PortReport>,
    outputs: Vec<PortReport>,
    macs: u64,
    weight_bytes: usize,
    arena: ArenaReport,
    kernels: Vec<KernelReport>,
    instructions: Vec<InstructionReport>,
    golden: Vec<GoldenReport>,
    /// `null` for a model that was not calibrated.
    baseline: Option<BaselineReport>,
    firmware: String,
}

#[derive(Serialize)]
struct ArenaReport {
    bytes: usize,
    /// No plan can need less.
    bound_bytes: u32,
    state_bytes: usize,
    /// `null` when the program has kernels that this version does not know, or is absurdly large.
    plan: Option<Vec<Stay>>,
}

#[derive(Serialize)]
struct GoldenReport {
    input: String,
    steps: u16,
    output_bytes: usize,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let file = ModelFile::read(&args.file)?;
    let model = file.parse()?;
    let artifact = &model.artifact;
    let instructions = instructions(artifact);
    let plan = Plan::of(artifact, &instructions);
    let picture = plan.as_ref().map(|plan| plan.picture(artifact));
    let report = Report {
        file: args.file.clone(),
        file_bytes: artifact.bytes().len(),
        name: model.manifest.name.to_owned(),
        producer: model.manifest.producer.to_owned(),
        target: model.manifest.target.to_owned(),
        source_format: model.manifest.source_format.to_owned(),
        source_digest: hex(&model.manifest.source_digest),
        digest: hex(&artifact.digest()),
        digest_verified: artifact.verify_digest().is_ok(),
        inputs: model.inputs.iter().map(Port::report).collect(),
        outputs: model.outputs.iter().map(Port::report).collect(),
        macs: model.manifest.macs,
        weight_bytes: artifact.data_len(),
        arena: ArenaReport {
            bytes: artifact.arena_len(),
            bound_bytes: model.manifest.arena_bound,
            state_bytes: artifact.state_len(),
            plan: plan.map(|plan| plan.stays(artifact)),
        },
        kernels: by_kernel(&instructions),
        instructions,
        golden: golden(&model),
        baseline: BaselineReport::of(artifact),
        firmware: firmware_line(&model, args),
    };
    let text = text(&report, picture.as_deref(), args.instructions);
    Ok(Outcome::new(&report, text))
}

fn golden(model: &Model<'_>) -> Vec<GoldenReport> {
    let describe = |golden: dunlin_artifact::Golden<'_>| GoldenReport {
        input: match golden.input {
            GoldenInput::Pattern(Pattern::Zeros) => "zeros".into(),
            GoldenInput::Pattern(Pattern::Lcg(seed)) => format!("seed {seed}"),
            GoldenInput::Stored(bytes) => format!("{} bytes stored", bytes.len()),
        },
        steps: golden.steps,
        output_bytes: golden.outputs.len(),
    };
    model.artifact.golden().map(describe).collect()
}

/// The line that puts the model into a firmware, with a name that Rust accepts.
fn firmware_line(model: &Model<'_>, args: &Args) -> String {
    let lower = model
        .manifest
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let name: String = lower.collect();
    let name =
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("model_{name}") };
    let file = args.file.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    format!("dunlin_runtime::model!({name}, {file:?});")
}

fn text(report: &Report, picture: Option<&str>, all_instructions: bool) -> String {
    let number = |n: usize| grouped(n as u64);
    let digest = if report.digest_verified {
        "verified"
    } else {
        "DOES NOT MATCH the file: it was damaged or changed"
    };
    let mut text = format!(
        "{}: {}\n\
         \x20 made by     {}, for target {}\n\
         \x20 made from   {}, sha256 {}\n\
         \x20 digest      {} ({digest})\n\
         \x20 size        {} bytes, {} of them constants\n\
         \x20 work        {} multiply-accumulates a run\n",
        report.file.display(),
        printable(&report.name),
        printable(&report.producer),
        printable(&report.target),
        printable(&report.source_format),
        report.source_digest,
        report.digest,
        number(report.file_bytes),
        number(report.weight_bytes),
        grouped(report.macs),
    );
    text += "\nInputs and outputs\n";
    let port = |side: &str, port: &PortReport| {
        vec![
            side.to_owned(),
            port.name.clone(),
            port.dtype.to_owned(),
            format!("{:?}", port.shape),
            port.scale.map_or_else(String::new, |scale| scale.to_string()),
            port.zero_point.map_or_else(String::new, |zero_point| zero_point.to_string()),
        ]
    };
    let inputs = report.inputs.iter().map(|input| port("input", input));
    let outputs = report.outputs.iter().map(|output| port("output", output));
    text += &table(&["", "name", "type", "shape", "scale", "zero point"], inputs.chain(outputs), 4);

    text += "\nKernels\n";
    let kernels = report
        .kernels
        .iter()
        .map(|kernel| vec![kernel.kernel.clone(), kernel.instructions.to_string(), grouped(kernel.macs)]);
    text += &table(&["kernel", "instructions", "MACs"], kernels, 1);
    text += &format!("  in firmware: {}\n", printable(&report.firmware));

    if all_instructions {
        text += "\nInstructions\n";
        let rows = report.instructions.iter().map(|instruction| {
            let ids = instruction.operands.as_ref();
            let list = |ids: &[u16]| ids.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
            vec![
                instruction.index.to_string(),
                instruction.kernel.clone(),
                instruction.output.clone(),
                ids.map_or_else(String::new, |ids| list(&ids.reads)),
                ids.map_or_else(String::new, |ids| list(&ids.writes)),
                grouped(instruction.macs),
            ]
        });
        text += &table(&["", "kernel", "result", "reads", "writes", "MACs"], rows, 5);
    }

    text += &format!(
        "\nArena: {} bytes; no plan can need less than {}. State: {} bytes\n",
        number(report.arena.bytes),
        grouped(report.arena.bound_bytes),
        number(report.arena.state_bytes)
    );
    text += picture.unwrap_or(
        "  (no picture: the program is too large or has kernels that this version does not know)\n",
    );

    text += &format!("\nGolden vectors: {}\n", report.golden.len());
    for (index, golden) in report.golden.iter().enumerate() {
        let (steps, bytes) = (count(golden.steps.into(), "step"), count(golden.output_bytes, "output byte"));
        text += &format!("  {index}: from {}, {steps}, {bytes}\n", golden.input);
    }

    match &report.baseline {
        Some(baseline) => text += &format!("\nBaseline: {}\n{}", baseline.summary(), baseline.table()),
        None => {
            text += "\nBaseline: none; `dunlin compile --calibrate` makes one, and devices count against it\n"
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
