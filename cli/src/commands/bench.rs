//! `dunlin bench`: how fast, how large.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use dunlin_artifact::Pattern;
use dunlin_runtime::Session;
use serde::Serialize;

use super::ingest;
use crate::error::Failure;
use crate::model::{Model, ModelFile};
use crate::output::{Outcome, count, grouped, table};
use crate::program::{by_kernel, instructions};
use crate::stats::Latency;

/// How long a measurement takes when `--iterations` is not given.
const AUTO_TIME: Duration = Duration::from_secs(1);
/// Fewest and most runs of such a measurement.
const AUTO_RUNS: (u128, u128) = (5, 100_000);
/// Most runs of which every instruction is timed.
const PROFILED_RUNS: usize = 200;
/// Instructions in the text; JSON has them all.
const SHOWN_INSTRUCTIONS: usize = 10;
/// Seed of the input values.
const SEED: u32 = 2_024;

/// Measure a model's speed and memory.
///
/// The inputs are seeded noise. Only the runs are timed, not the filling of inputs. The operators' shares are taken
/// in separate runs, because timing every operator costs time itself.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:
  dunlin bench kws.dunlin
  dunlin bench kws.dunlin --iterations 1000 --threads 4
  dunlin bench ingest --devices 200"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    model: Option<ModelArgs>,
}

/// What else there is to measure.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Ingest(ingest::Args),
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// The artifact.
    #[arg(value_name = "FILE.dunlin")]
    file: PathBuf,
    /// Runs per thread [default: as many as take about a second].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: Option<u32>,
    /// Independent sessions that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    iterations: usize,
    threads: usize,
    latency: Latency,
    inferences_per_second: f64,
    macs: u64,
    macs_per_second: f64,
    /// Arena of one session.
    arena_bytes: usize,
    /// Arenas of all sessions together.
    peak_arena_bytes: usize,
    /// Validating the artifact and making a session.
    load_us: f64,
    kernels: Vec<KernelTime>,
    instructions: Vec<InstructionTime>,
}

#[derive(Serialize)]
struct KernelTime {
    kernel: String,
    instructions: usize,
    us: f64,
    share: f64,
    macs: u64,
}

#[derive(Serialize)]
struct InstructionTime {
    index: usize,
    kernel: String,
    output: String,
    us: f64,
    share: f64,
    macs: u64,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    match (&args.other, &args.model) {
        (Some(Other::Ingest(args)), _) => ingest::run(args),
        (None, Some(args)) => measure_model(args),
        (None, None) => Err(Failure::usage("there is nothing to measure").way_out("give an artifact")),
    }
}

fn measure_model(args: &ModelArgs) -> Result<Outcome, Failure> {
    let file = ModelFile::read(&args.file)?;
    file.parse_intact()?;
    let start = Instant::now();
    let model = file.parse()?;
    let mut arena = model.arena();
    let mut session = model.session(&mut arena)?;
    let load = start.elapsed();

    let first = timed_run(&model, &mut session)?;
    let iterations = match args.iterations {
        Some(iterations) => iterations as usize,
        None => {
            let fitting = AUTO_TIME.as_nanos() / first.as_nanos().max(1);
            fitting.clamp(AUTO_RUNS.0, AUTO_RUNS.1) as usize
        }
    };
    let threads = usize::from(args.threads);
    let (mut durations, elapsed) = measure(&model, iterations, threads)?;
    let nothing = || Failure::new("nothing was measured").file(&args.file);
    let latency = Latency::of(&mut durations).ok_or_else(nothing)?;
    let instructions = profile(&model, &mut session, iterations.min(PROFILED_RUNS))?;

    let per_second = durations.len() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let macs = model.manifest.macs;
    let report = Report {
        file: args.file.clone(),
        iterations,
        threads,
        latency,
        inferences_per_second: per_second,
        macs,
        macs_per_second: macs as f64 * per_second,
        arena_bytes: model.artifact.arena_len(),
        peak_arena_bytes: model.artifact.arena_len() * threads,
        load_us: load.as_secs_f64() * 1e6,
        kernels: kernel_times(&model, &instructions),
        instructions,
    };
    let text = text(&args.file, &report);
    Ok(Outcome::new(&report, text))
}

/// Fills the inputs with noise, runs once, and returns how long the run took.
fn timed_run(model: &Model<'_>, session: &mut Session<'_, '_>) -> Result<Duration, Failure> {
    fill(model, session)?;
    let start = Instant::now();
    session.run().map_err(|error| model.run_failure(error))?;
    Ok(start.elapsed())
}

/// Writes all inputs; their memory is reused during a run.
fn fill(model: &Model<'_>, session: &mut Session<'_, '_>) -> Result<(), Failure> {
    let mut pattern = Pattern::Lcg(SEED);
    for (index, input) in model.inputs.iter().enumerate() {
        let bytes = session.input_bytes_mut(index).map_err(|error| model.run_failure(error))?;
        pattern.fill(input.tensor.dtype, bytes);
    }
    Ok(())
}

/// Runs sessions in parallel; returns the duration of every run, and of all together.
fn measure(
    model: &Model<'_>,
    iterations: usize,
    threads: usize,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let ready = Barrier::new(threads);
    let worker = || -> Result<(Vec<Duration>, Duration), Failure> {
        let mut arena = model.arena();
        let session = model.session(&mut arena);
        let warm = session.and_then(|mut session| timed_run(model, &mut session).map(|_| session));
        // All threads pass here, also those that failed: the others would wait for ever.
        ready.wait();
        let mut session = warm?;
        let start = Instant::now();
        let durations = (0..iterations).map(|_| timed_run(model, &mut session)).collect::<Result<_, _>>()?;
        Ok((durations, start.elapsed()))
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let lost = || Err(Failure::new("a thread failed").file(model.path));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| lost())).collect()
    });
    let (mut durations, mut longest) = (Vec::new(), Duration::ZERO);
    for result in results {
        let (one, elapsed) = result?;
        durations.extend(one);
        longest = longest.max(elapsed);
    }
    Ok((durations, longest))
}

/// The mean time of every instruction.
fn profile(
    model: &Model<'_>,
    session: &mut Session<'_, '_>,
    runs: usize,
) -> Result<Vec<InstructionTime>, Failure> {
    let instructions = instructions(&model.artifact);
    let mut times = vec![Duration::ZERO; instructions.len()];
    for _ in 0..runs {
        fill(model, session)?;
        let mut last = Instant::now();
        let observe = |step: dunlin_runtime::Step<'_>| {
            let now = Instant::now();
            if let Some(time) = times.get_mut(step.index) {
                *time += now - last;
            }
            last = now;
        };
        session.run_observed(observe).map_err(|error| model.run_failure(error))?;
    }
    let total = times.iter().sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE);
    let timed = instructions.into_iter().zip(times).map(|(instruction, time)| InstructionTime {
        index: instruction.index,
        kernel: instruction.kernel,
        output: instruction.output,
        us: time.as_secs_f64() * 1e6 / runs.max(1) as f64,
        share: time.as_secs_f64() / total,
        macs: instruction.macs,
    });
    Ok(timed.collect())
}

/// Sums by kernel, the slowest first.
fn kernel_times(model: &Model<'_>, times: &[InstructionTime]) -> Vec<KernelTime> {
    let sum = |kernel: &str, value: fn(&InstructionTime) -> f64| -> f64 {
        times.iter().filter(|time| time.kernel == kernel).map(value).sum()
    };
    let kernels = by_kernel(&instructions(&model.artifact)).into_iter().map(|kernel| KernelTime {
        us: sum(&kernel.kernel, |time| time.us),
        share: sum(&kernel.kernel, |time| time.share),
        kernel: kernel.kernel,
        instructions: kernel.instructions,
        macs: kernel.macs,
    });
    let mut kernels: Vec<KernelTime> = kernels.collect();
    kernels.sort_by(|a, b| b.us.total_cmp(&a.us));
    kernels
}

fn text(file: &Path, report: &Report) -> String {
    let number = |n: usize| grouped(n as u64);
    let mut text = format!(
        "{}: {} in {}\n\
         \x20 latency     {}\n\
         \x20 throughput  {:.1} inferences/s, {:.1} million MACs/s ({} MACs a run)\n\
         \x20 arena       {} bytes a session, {} in all\n\
         \x20 load        {:.1} µs\n",
        file.display(),
        count(report.iterations * report.threads, "run"),
        count(report.threads, "thread"),
        report.latency,
        report.inferences_per_second,
        report.macs_per_second / 1e6,
        grouped(report.macs),
        number(report.arena_bytes),
        number(report.peak_arena_bytes),
        report.load_us,
    );
    let speed = |macs: u64, us: f64| {
        if macs == 0 { String::new() } else { format!("{:.1}", macs as f64 / us.max(f64::MIN_POSITIVE)) }
    };
    text += "\nBy kernel\n";
    let rows = report.kernels.iter().map(|kernel| {
        vec![
            kernel.kernel.clone(),
            kernel.instructions.to_string(),
            format!("{:.1}", kernel.us),
            format!("{:.1} %", kernel.share * 100.0),
            grouped(kernel.macs),
            speed(kernel.macs, kernel.us),
        ]
    });
    text += &table(&["kernel", "instructions", "µs", "share", "MACs", "MACs/µs"], rows, 1);

    let mut slowest: Vec<&InstructionTime> = report.instructions.iter().collect();
    slowest.sort_by(|a, b| b.us.total_cmp(&a.us));
    slowest.truncate(SHOWN_INSTRUCTIONS);
    text += "\nSlowest operators\n";
    let rows = slowest.iter().map(|time| {
        vec![
            time.index.to_string(),
            time.kernel.clone(),
            time.output.clone(),
            format!("{:.1}", time.us),
            format!("{:.1} %", time.share * 100.0),
            grouped(time.macs),
            speed(time.macs, time.us),
        ]
    });
    text += &table(&["", "kernel", "result", "µs", "share", "MACs", "MACs/µs"], rows, 3);
    text
}
