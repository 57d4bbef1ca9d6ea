//! Builds the firmware for each model and CPU, runs it in QEMU and reports what it costs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use comfy_table::{CellAlignment, Table, presets};
use wait_timeout::ChildExt;

use crate::elf::Image;
use crate::models::{self, Artifact, Compiler, Model};
use crate::project::{Project, run_all};
use crate::setup::{BARE_METAL, Need, Tools, counting_plugin};

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

/// The CPU for models that do not run on every one.
const USUAL: &str = "m4";

/// What one run of one model on one CPU showed.
struct Measurement {
    /// Instructions of one inference.
    inference: u64,
    /// Instructions from the artifact's bytes to a session that can run.
    load: u64,
    /// What the firmware printed, by key.
    printed: BTreeMap<String, u64>,
    image: Image,
}

/// Runs the chosen models on the chosen CPUs; a sentence that says how many.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<String> {
    let models = chosen_models(project, &options.model)?;
    run_models(project, tools, &models, |model, cpu| is_chosen(options, model, cpu))
}

/// Runs these models on the CPUs that `choose` names for each.
pub(crate) fn run_models(
    project: &Project,
    tools: &mut Tools,
    models: &[Model],
    choose: impl Fn(&Model, &Cpu) -> bool,
) -> Result<String> {
    for need in [Need::BareMetal, Need::Emulator, Need::Counter] {
        tools.need(need)?;
    }
    let compiler = Compiler::new(project)?;
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(COLUMNS);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut failures = Vec::new();
    let mut images = 0;
    for model in models {
        let artifact = compiler.compile(model)?;
        for cpu in CPUS.iter().filter(|cpu| choose(model, cpu)) {
            images += 1;
            match measure(project, &artifact, cpu)? {
                Ok(measurement) => table.add_row(row(model, &artifact, cpu, &measurement)),
                Err(failure) => {
                    println!("{} on {}: {failure:#}", model.name, cpu.name);
                    failures.push(format!("{} on {}", model.name, cpu.name));
                    table.add_row([model.name.as_str(), cpu.name, "FAILED"])
                }
            };
        }
    }
    println!("{table}\n{LEGEND}");
    fs::write(project.folder("reports")?.join("firmware.txt"), format!("{table}\n\n{LEGEND}\n"))?;
    if !failures.is_empty() {
        bail!("{} of {images} images failed: {}", failures.len(), failures.join(", "));
    }
    Ok(format!(
        "{} models in {images} images: all golden vectors equal, no code that can panic",
        models.len()
    ))
}

/// Without a choice of CPUs, models of minor interest run on one only.
fn is_chosen(options: &Options, model: &Model, cpu: &Cpu) -> bool {
    match options.cpu.as_slice() {
        [] => model.everywhere || !options.model.is_empty() || cpu.name == USUAL,
        cpus => cpus.contains(&cpu.name),
    }
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

const COLUMNS: [&str; 12] = [
    "model",
    "cpu",
    "instructions",
    "per MAC",
    "load",
    "arena",
    "stack",
    "code",
    "constants",
    "artifact",
    "flash",
    "golden",
];

const LEGEND: &str = "\
instructions: of one inference; load: of parsing the artifact and starting a session; arena, stack (high-water mark),
code (.text), constants (all else in flash but the artifact), artifact and flash (their sum): bytes; golden: golden
vectors whose outputs were equal on the device. An image with code that can panic fails.";

fn row(model: &Model, artifact: &Artifact, cpu: &Cpu, m: &Measurement) -> [String; COLUMNS.len()] {
    let flash = m.image.flash_bytes();
    let code = m.image.flash.get(".text").copied().unwrap_or_default();
    let printed = |key: &str| m.printed.get(key).map_or("?".into(), u64::to_string);
    let per_mac = match artifact.macs {
        0 => String::new(),
        macs => format!("{:.2}", m.inference as f64 / macs as f64),
    };
    [
        model.name.clone(),
        cpu.name.into(),
        m.inference.to_string(),
        per_mac,
        m.load.to_string(),
        printed("arena"),
        printed("stack"),
        code.to_string(),
        (flash - code - artifact.bytes).to_string(),
        artifact.bytes.to_string(),
        flash.to_string(),
        format!("{} equal", printed("equal")),
    ]
}

/// Builds the firmware with this artifact; the image's path.
pub(crate) fn build(project: &Project, artifact: &Path, cpu: &Cpu, features: &str) -> Result<PathBuf> {
    let _folder = project.shell.push_dir("firmware-examples/cortex-m");
    project
        .cargo(&["build", "--quiet", "--release", "--bin", "dunlin-cortex-m"])
        .args(["--target", cpu.target, "--features", features])
        .env("RUSTFLAGS", format!("-Ctarget-cpu={}", cpu.target_cpu))
        .env("DUNLIN_ARTIFACT", artifact)
        .env("DUNLIN_BOARD", cpu.board)
        .quiet()
        .run()?;
    Ok(project.target.join(cpu.target).join("release/dunlin-cortex-m"))
}

/// Links the device's side of the telemetry loop for a target; the bytes of flash it takes. An error when any of it can
/// panic.
pub(crate) fn link(project: &Project, target: &str) -> Result<u64> {
    let _folder = project.shell.push_dir("firmware-examples/cortex-m");
    let arguments = ["build", "--quiet", "--release", "--bin", "dunlin-link", "--target", target];
    project.cargo(&arguments).quiet().run()?;
    let image = Image::read(&project.target.join(target).join("release/dunlin-link"))?;
    if image.can_panic {
        bail!(
            "digests, monitor, protocol, trust or the agent's core have code that can panic on {target}: see dunlin-link"
        );
    }
    Ok(image.flash_bytes())
}

/// Lints the firmware for every target, with any model, and the device for this machine.
pub(crate) fn clippy(project: &Project, options: &[&str]) -> Result<()> {
    let model = models::list(project)?.into_iter().next().context("there is no model")?;
    let artifact = Compiler::new(project)?.compile(&model)?;
    let _folder = project.shell.push_dir("firmware-examples");
    let bare_metal = BARE_METAL.map(|target| {
        let arguments = ["clippy", "--package", "dunlin-cortex-m", "--all-features", "--target", target];
        project.cargo(&[&arguments, options].concat()).env("DUNLIN_ARTIFACT", &artifact.file)
    });
    // The device runs as a process of this machine.
    let device = ["clippy", "--package", "dunlin-device", "--all-targets", "--all-features"];
    run_all(bare_metal.into_iter().chain([project.cargo(&[&device, options].concat())]))
}

/// What a run showed, or why it failed. An image that cannot be built is an error: others could not be either.
fn measure(project: &Project, artifact: &Artifact, cpu: &Cpu) -> Result<Result<Measurement>> {
    let image = build(project, &artifact.file, cpu, "")?;
    let folder = project.folder("firmware")?;
    let (log, counts) = (folder.join("output.txt"), folder.join("counts.txt"));
    if let Err(failure) = emulate(project, &image, cpu, &log, &counts) {
        // Once more with the code that puts errors into words, which the measured image does not carry.
        let image = build(project, &artifact.file, cpu, "explain")?;
        return Ok(Err(emulate(project, &image, cpu, &log, &counts).err().unwrap_or(failure)));
    }
    let image = Image::read(&image)?;
    if image.can_panic {
        return Ok(Err(anyhow!("the image has code that can panic: `cargo xtask size` shows its functions")));
    }
    let (load, inference) = regions(&fs::read_to_string(&counts)?)?;
    let printed = numbers(&fs::read_to_string(&log)?);
    Ok(Ok(Measurement { inference, load, printed, image }))
}

/// The lines of the firmware's output that are a word and a number.
fn numbers(output: &str) -> BTreeMap<String, u64> {
    let number = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    output.lines().filter_map(number).collect()
}

/// Instructions of the firmware's two counted regions: loading, and one inference.
fn regions(counts: &str) -> Result<(u64, u64)> {
    let mut regions = counts.lines().filter_map(|line| {
        let mut words = line.strip_prefix("region ")?.split(' ');
        words.nth(2)?.parse::<u64>().ok()
    });
    let both = regions.next().zip(regions.next());
    both.with_context(|| format!("the counting plugin did not see two regions:\n{counts}"))
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

#[cfg(test)]
mod tests {
    use super::{numbers, regions};

    #[test]
    fn the_counted_regions_are_loading_and_inference() {
        let counts = "region 0 insns 20583\nregion 1 insns 24609045\ntotal insns 35000000\n";
        assert_eq!(regions(counts).unwrap(), (20_583, 24_609_045));
        assert!(regions("region 0 insns 20583\ntotal insns 5\n").is_err());
    }

    #[test]
    fn words_with_a_number_are_read_and_all_else_is_skipped() {
        let numbers = numbers("arena 16000\nstack 1524\nhello\nequal two\n");
        assert_eq!(numbers.get("arena"), Some(&16_000));
        assert_eq!(numbers.len(), 2);
    }
}
