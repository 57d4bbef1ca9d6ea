//! Builds the firmware for each model and CPU, runs it in QEMU and reports what it costs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use wait_timeout::ChildExt;

use crate::elf::Image;
use crate::models::{self, Model};
use crate::project::Project;
use crate::setup::{Need, Tools, counting_plugin};

/// A processor core and the emulated board that has it.
pub(crate) struct Cpu {
    pub(crate) name: &'static str,
    target: &'static str,
    target_cpu: &'static str,
    machine: &'static str,
    /// A file in the firmware's `memory/`.
    board: &'static str,
}

/// QEMU has no Cortex-M0+ with enough memory: its code runs on a Cortex-M3, which executes the same instructions.
pub(crate) const CPUS: [Cpu; 5] = [
    Cpu {
        name: "m0plus",
        target: "thumbv6m-none-eabi",
        target_cpu: "cortex-m0plus",
        machine: "mps2-an385",
        board: "mps2",
    },
    Cpu {
        name: "m4",
        target: "thumbv7em-none-eabihf",
        target_cpu: "cortex-m4",
        machine: "mps2-an386",
        board: "mps2",
    },
    Cpu {
        name: "m7",
        target: "thumbv7em-none-eabihf",
        target_cpu: "cortex-m7",
        machine: "mps2-an500",
        board: "mps2",
    },
    Cpu {
        name: "m33",
        target: "thumbv8m.main-none-eabihf",
        target_cpu: "cortex-m33",
        machine: "mps2-an505",
        board: "an505",
    },
    Cpu {
        name: "m55",
        target: "thumbv8m.main-none-eabihf",
        target_cpu: "cortex-m55",
        machine: "mps3-an547",
        board: "an547",
    },
];

/// The longest a model may take in the emulator; they take a second or two.
const TIME_LIMIT: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these models (file names without their ending).
    #[arg(long, value_delimiter = ',')]
    model: Vec<String>,
    /// Only these CPUs: m0plus, m4, m7, m33, m55.
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    cpu: Vec<&'static str>,
}

impl Options {
    /// Every model on every CPU.
    pub(crate) fn all() -> Self {
        Self { model: Vec::new(), cpu: Vec::new() }
    }
}

/// The canonical name of a CPU.
pub(crate) fn parse_cpu(name: &str) -> Result<&'static str, String> {
    let known = CPUS.iter().map(|cpu| cpu.name);
    known
        .clone()
        .find(|known| *known == name)
        .ok_or_else(|| format!("known are {}", Vec::from_iter(known).join(", ")))
}

/// What one run of one model on one CPU showed.
struct Measurement {
    /// Instructions of one inference.
    inference: u64,
    /// Instructions from the artifact's bytes to a session that can run.
    load: u64,
    /// What the firmware printed, by key.
    printed: BTreeMap<String, u64>,
    image: Image,
    artifact_bytes: u64,
}

/// Runs the chosen models on the chosen CPUs; a sentence that says how many.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<String> {
    for need in [Need::BareMetal, Need::Emulator, Need::Counter] {
        tools.need(need)?;
    }
    let models = chosen_models(project, &options.model)?;
    let cpus: Vec<&Cpu> =
        CPUS.iter().filter(|cpu| options.cpu.is_empty() || options.cpu.contains(&cpu.name)).collect();

    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "model",
        "cpu",
        "instructions",
        "load",
        "arena",
        "stack",
        "code",
        "constants",
        "artifact",
        "flash",
        "golden",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut failures = Vec::new();
    for model in &models {
        let artifact = models::compile(project, model)?;
        for cpu in &cpus {
            match measure(project, &artifact, cpu) {
                Ok(measurement) => table.add_row(row(&model.name, cpu, &measurement)),
                Err(e) => {
                    eprintln!("{} on {}: {e:#}", model.name, cpu.name);
                    failures.push(format!("{} on {}", model.name, cpu.name));
                    table.add_row([model.name.as_str(), cpu.name, "FAILED"])
                }
            };
        }
    }
    println!("{table}");
    fs::write(project.folder("reports")?.join("firmware.md"), format!("{table}\n"))?;
    if !failures.is_empty() {
        bail!("{} of {} images failed: {}", failures.len(), models.len() * cpus.len(), failures.join(", "));
    }
    Ok(format!("{} models on {} CPUs", models.len(), cpus.len()))
}

/// The models with these names, or all.
pub(crate) fn chosen_models(project: &Project, names: &[String]) -> Result<Vec<Model>> {
    let all = models::list(project)?;
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|model| model.name != **name)) {
        let known: Vec<&str> = all.iter().map(|model| model.name.as_str()).collect();
        bail!("there is no model {unknown}; known are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|model| names.is_empty() || names.contains(&model.name)).collect())
}

fn row(model: &str, cpu: &Cpu, m: &Measurement) -> [String; 11] {
    let flash = m.image.flash_bytes();
    let code = m.image.flash.get(".text").copied().unwrap_or_default();
    let constants = flash - code - m.artifact_bytes;
    let printed = |key: &str| m.printed.get(key).map_or("?".into(), |value| value.to_string());
    [
        model.into(),
        cpu.name.into(),
        m.inference.to_string(),
        m.load.to_string(),
        printed("arena"),
        printed("stack"),
        code.to_string(),
        constants.to_string(),
        m.artifact_bytes.to_string(),
        flash.to_string(),
        format!("{} equal", printed("equal")),
    ]
}

/// Builds the firmware with this artifact; the image's path.
pub(crate) fn build(project: &Project, artifact: &Path, cpu: &Cpu) -> Result<PathBuf> {
    let _folder = project.shell.push_dir("firmware-examples/cortex-m");
    project
        .cargo(&["build", "--quiet", "--release", "--target", cpu.target])
        .env("RUSTFLAGS", format!("-Ctarget-cpu={}", cpu.target_cpu))
        .env("DUNLIN_ARTIFACT", artifact)
        .env("DUNLIN_BOARD", cpu.board)
        .quiet()
        .run()?;
    Ok(project.target.join(cpu.target).join("release/dunlin-cortex-m"))
}

fn measure(project: &Project, artifact: &Path, cpu: &Cpu) -> Result<Measurement> {
    let image = build(project, artifact, cpu)?;
    let folder = project.folder("firmware")?;
    let (log, counts) = (folder.join("output.txt"), folder.join("counts.txt"));
    emulate(project, &image, cpu, &log, &counts)?;

    let printed = fs::read_to_string(&log)?
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect();
    // The firmware counts the loading first, then one run per golden vector.
    let counts = fs::read_to_string(&counts)?;
    let mut regions = counts.lines().filter_map(|line| line.strip_prefix("region ")).map(|line| {
        let instructions = line.split_whitespace().nth(2).and_then(|n| n.parse::<u64>().ok());
        instructions.with_context(|| format!("unexpected line of the counting plugin: {line}"))
    });
    let mut next = || regions.next().context("the firmware ran fewer counted regions than expected")?;
    let (load, inference) = (next()?, next()?);
    let artifact_bytes = fs::metadata(artifact)?.len();
    Ok(Measurement { inference, load, printed, image: Image::read(&image)?, artifact_bytes })
}

/// Runs an image to its end, which must be a success within the time limit.
fn emulate(project: &Project, image: &Path, cpu: &Cpu, log: &Path, counts: &Path) -> Result<()> {
    let output = File::create(log)?;
    let plugin = format!("{},out={}", counting_plugin(project)?.display(), counts.display());
    let mut emulator = Command::new("qemu-system-arm")
        .args(["-M", cpu.machine, "-display", "none", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native", "-plugin", &plugin, "-kernel"])
        .arg(image)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start qemu-system-arm")?;
    let status = emulator.wait_timeout(TIME_LIMIT)?;
    let problem = match status {
        Some(status) if status.success() => return Ok(()),
        Some(status) => format!("the firmware failed ({status})"),
        None => {
            emulator.kill()?;
            emulator.wait()?;
            format!("the firmware did not end within {} s", TIME_LIMIT.as_secs())
        }
    };
    bail!("{problem}; it printed:\n{}", fs::read_to_string(log).unwrap_or_default().trim_end());
}
