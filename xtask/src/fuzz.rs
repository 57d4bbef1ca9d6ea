//! Runs the fuzz targets for a limited time, without `cargo fuzz`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wait_timeout::ChildExt;
use xshell::cmd;

use crate::models::{self, Compiler};
use crate::project::Project;
use crate::setup::{Need, Tools};
use crate::test::oracle_cases;

/// Coverage feedback for libFuzzer; stable compiler options.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The longest that one input may take.
const SECONDS_PER_INPUT: u64 = 10;
/// The most memory that a target may take, with the sanitizer's own, and the most that one allocation may take.
const MEGABYTES: u64 = 2048;
const MEGABYTES_AT_ONCE: u64 = 64;
/// Longer files are not taken as seeds: small ones give more runs per second.
const LONGEST_SEED: u64 = 32 * 1024;
/// Longer inputs are not made up.
const LONGEST_INPUT: u64 = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long to run each target; they run side by side.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Only these targets (file names in `fuzz/fuzz_targets`).
    #[arg(long, value_delimiter = ',')]
    target: Vec<String>,
    /// Where the generator of inputs begins; another one each time without it.
    #[arg(long)]
    seed: Option<u32>,
}

impl Options {
    /// Every target. The inputs are the same ones each time as long as the code is: what passed passes again, and to look
    /// for what nobody has found yet is not the tests' task.
    pub(crate) fn all(seconds: u64) -> Self {
        Self { seconds, target: Vec::new(), seed: Some(1) }
    }
}

/// Runs the chosen targets; a sentence with what they did.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<String> {
    tools.need(Need::Cxx)?;
    let targets = chosen_targets(project, &options.target)?;
    let (programs, sanitizer) = build(project)?;
    // Only the targets that read models or artifacts need it.
    let reads_models = |target: &String| !matches!(target.as_str(), "mqtt" | "protocol" | "uplink");
    let compiler = targets.iter().any(reads_models).then(|| Compiler::new(project)).transpose()?;

    let mut running = Vec::new();
    for target in targets {
        let folder = project.folder(&format!("fuzz/{target}"))?;
        let seeds = seeds(project, compiler.as_ref(), &target, &folder.join("seeds"))?;
        let child = start(project, &programs.join(&target), &folder, &seeds, options)?;
        running.push((target, folder, child));
    }
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for (target, folder, mut child) in running {
        let limit = Duration::from_secs(options.seconds + SECONDS_PER_INPUT + 60);
        let status = child.wait_timeout(limit)?;
        let log = fs::read_to_string(folder.join("log.txt"))?;
        match status {
            Some(status) if status.success() => {
                let last = log.lines().rev().find(|line| line.contains("DONE")).unwrap_or("no statistics");
                println!("{target}: {}", last.trim());
                let runs = last.trim_start_matches('#').split_whitespace().next().unwrap_or("?");
                done.push(format!("{target} {runs} runs"));
            }
            _ => {
                if status.is_none() {
                    child.kill()?;
                    child.wait()?;
                }
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                println!("{target} FAILED; the end of its log:");
                tail.iter().rev().for_each(|line| println!("  {line}"));
                failed.push(format!("{target} (inputs in {})", folder.display()));
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(format!("{} s, {sanitizer}: {}", options.seconds, done.join(", ")))
}

fn chosen_targets(project: &Project, names: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = project
        .shell
        .read_dir("fuzz/fuzz_targets")?
        .iter()
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    all.sort();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown}; known are {}", all.join(", "));
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(target)).collect())
}

/// Builds all targets; the folder of the programs, and whether with the address sanitizer, in words.
fn build(project: &Project) -> Result<(PathBuf, &'static str)> {
    let host = project.host()?;
    let nightly =
        cmd!(project.shell, "rustup toolchain list").quiet().ignore_stderr().read().ok().and_then(|list| {
            Some(list.lines().find(|line| line.starts_with("nightly"))?.split(' ').next()?.to_owned())
        });
    let arguments =
        ["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host];
    match nightly {
        Some(nightly) => {
            cmd!(project.shell, "rustup run {nightly} cargo {arguments...}")
                .env_remove("CARGO")
                .env("RUSTFLAGS", format!("-Zsanitizer=address {COVERAGE}"))
                .run()?;
            Ok((project.target.join(host).join("release"), "address sanitizer"))
        }
        None => {
            project.cargo(&arguments).env("RUSTFLAGS", COVERAGE).run()?;
            Ok((
                project.target.join(host).join("release"),
                "WITHOUT address sanitizer, as there is no nightly Rust",
            ))
        }
    }
}

/// Real inputs to begin with: the repository's small models, one generated model per operator and type where the
/// oracle has made them, the released messages of the protocol, conversations with the MQTT endpoint, and all inputs
/// that ever failed; each target gets what it takes.
fn seeds(
    project: &Project,
    compiler: Option<&Compiler>,
    target: &str,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let shell = &project.shell;
    shell.remove_path(folder)?;
    shell.create_dir(folder)?;
    match (target, compiler) {
        ("mqtt", _) => write_conversations(project, folder)?,
        ("protocol", _) => write_messages(project, folder)?,
        (_, Some(compiler)) if target != "uplink" => write_models(project, compiler, target, folder)?,
        // The inputs of `uplink` are made-up events: nothing in the repository looks like them.
        _ => {}
    }
    let failed = project.root.join("fuzz/regressions").join(target);
    Ok([folder.to_owned(), failed].into_iter().filter(|folder| folder.is_dir()).collect())
}

/// What well-behaved MQTT clients send, as `mqtt` takes it: a choice (2: bytes) and a length before each packet.
fn write_conversations(project: &Project, folder: &Path) -> Result<()> {
    let v3: [&[u8]; 6] = [
        b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a",
        b"\x82\x0f\0\x02\0\x0ad/a/down/#\x01",
        b"\x32\x0e\0\x08d/a/up/x\0\x01\x01\x02",
        b"\x30\x0c\0\x08d/a/up/x\x01\x02",
        b"\xa2\x0e\0\x03\0\x0ad/a/down/#",
        b"\xc0\0",
    ];
    let v5: [&[u8]; 6] = [
        b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x01\0\x01a",
        b"\x82\x10\0\x02\0\0\x0ad/a/down/#\x01",
        b"\x32\x0f\0\x08d/a/up/x\0\x01\0\x01\x02",
        b"\x40\x02\0\x01",
        b"\xa2\x0f\0\x03\0\0\x0ad/a/down/#",
        b"\xe0\0",
    ];
    for (name, packets) in [("mqtt_3_1_1", v3), ("mqtt_5", v5)] {
        let mut conversation = Vec::new();
        for packet in packets {
            conversation.extend([2, u8::try_from(packet.len())?]);
            conversation.extend(packet);
            // The handler commits, and a message goes to the device.
            conversation.extend([0, 0, 1, 4]);
        }
        project.shell.write_file(folder.join(name), conversation)?;
    }
    Ok(())
}

/// The bytes of all released messages.
fn write_messages(project: &Project, folder: &Path) -> Result<()> {
    for version in project.shell.read_dir("runtime/protocol/released")? {
        for file in project.shell.read_dir(&version)? {
            let text = project.shell.read_file(&file)?;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let digits: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
            let bytes =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
            let bytes = bytes.collect::<Option<Vec<u8>>>();
            let bytes = bytes.with_context(|| format!("{} is not hexadecimal", file.display()))?;
            project.shell.write_file(folder.join(file.file_stem().unwrap_or_default()), bytes)?;
        }
    }
    Ok(())
}

/// Models or their artifacts, as the target takes them.
fn write_models(project: &Project, compiler: &Compiler, target: &str, folder: &Path) -> Result<()> {
    let shell = &project.shell;
    let generated = shell.read_dir(oracle_cases(project)).unwrap_or_default();
    let first_cases = generated.into_iter().filter(|file| file.to_string_lossy().ends_with("_0.tflite"));
    let own = models::list(project)?.into_iter().map(|model| model.file);
    for model in own.chain(first_cases).filter(|file| file.metadata().is_ok_and(|m| m.len() <= LONGEST_SEED))
    {
        let name = model.file_stem().unwrap_or_default();
        match target {
            "tflite" => shell.copy_file(&model, folder.join(name))?,
            // What cannot be compiled is no seed; the tests complain about it.
            _ => {
                drop(compiler.compile_file(&model, &folder.join(name)));
                let samples = model.with_extension("npz");
                if samples.is_file() {
                    let mut calibrated = name.to_owned();
                    calibrated.push("_calibrated");
                    drop(compiler.calibrate_file(&model, &samples, &folder.join(calibrated)));
                }
            }
        }
    }
    Ok(())
}

fn start(
    project: &Project,
    program: &Path,
    folder: &Path,
    seeds: &[PathBuf],
    options: &Options,
) -> Result<Child> {
    let log = File::create(folder.join("log.txt"))?;
    // The first corpus folder receives what is found; the others are only read.
    let corpus = project.shell.create_dir(folder.join("corpus"))?;
    Command::new(program)
        .arg(format!("-max_total_time={}", options.seconds))
        // 0 is libFuzzer's word for any.
        .arg(format!("-seed={}", options.seed.unwrap_or(0)))
        .arg(format!("-timeout={SECONDS_PER_INPUT}"))
        .arg(format!("-rss_limit_mb={MEGABYTES}"))
        .arg(format!("-malloc_limit_mb={MEGABYTES_AT_ONCE}"))
        .arg(format!("-max_len={LONGEST_INPUT}"))
        .arg(format!("-artifact_prefix={}/", folder.display()))
        .arg("-print_final_stats=1")
        .arg(corpus)
        .args(seeds)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
