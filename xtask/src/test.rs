//! `cargo xtask test`: all checks, one after the other, and a summary that hides nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use dunlin_test_servers::Postgres;
use xshell::cmd;

use crate::project::{Project, run_all};
use crate::setup::{BARE_METAL, Need, Tools, oracle_python, s3_service};
use crate::{api, firmware, fuzz, models};

/// One part of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting.
    Fmt,
    /// Lints of all three workspaces; a warning is an error.
    Clippy,
    /// The documentation builds without a warning.
    Doc,
    /// Generates single-operator models with the outputs of the reference interpreters, for the tests.
    Oracle,
    /// Unit, property, integration and documentation tests.
    Test,
    /// Requests made from the HTTP API's description against a running server.
    Api,
    /// The crates for devices compile without the standard library.
    NoStd,
    /// Firmware in QEMU.
    Firmware,
    /// Every fuzz target for a minute.
    Fuzz,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these steps.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
    /// Not these steps.
    #[arg(long, value_enum, value_delimiter = ',')]
    skip: Vec<Step>,
    /// How long to run each fuzz target.
    #[arg(long, default_value_t = 60)]
    fuzz_seconds: u64,
}

/// How a step ended.
enum Outcome {
    Passed(String),
    Failed(String),
    /// Something it needs could not be had.
    NotRun(String),
    /// An optional layer whose data is not on this machine.
    Absent(String),
}

struct Row {
    name: String,
    time: Duration,
    outcome: Outcome,
}

/// Runs the chosen steps; an error unless all of them passed.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<()> {
    let chosen = Step::value_variants()
        .iter()
        .filter(|step| options.only.is_empty() || options.only.contains(step))
        .filter(|step| !options.skip.contains(step));
    let start = Instant::now();
    let mut rows = Vec::new();
    for step in chosen {
        let name = step.name();
        println!("\n==== {name} ====");
        let begin = Instant::now();
        let outcome = step.run(project, tools, options);
        if let Outcome::Failed(reason) | Outcome::NotRun(reason) = &outcome {
            println!("{name}: {reason}");
        }
        rows.push(Row { name, time: begin.elapsed(), outcome });
        if *step == Step::Test {
            rows.push(Row { name: "  other servers".into(), time: Duration::ZERO, outcome: servers(tools) });
            rows.push(reference_models(project));
        }
    }
    summarize(&rows, start.elapsed())
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Step::Fmt | Step::Doc | Step::Test => &[],
            Step::Oracle => &[Need::Oracle],
            Step::Api => &[Need::ApiTester],
            Step::Clippy => &[Need::BareMetal, Need::Cxx],
            Step::NoStd => &[Need::BareMetal],
            Step::Firmware => &[Need::BareMetal, Need::Emulator, Need::Counter],
            Step::Fuzz => &[Need::Cxx],
        }
    }

    fn run(self, project: &Project, tools: &mut Tools, options: &Options) -> Outcome {
        for need in self.needs() {
            if let Err(reason) = tools.need(*need) {
                return Outcome::NotRun(format!("{reason:#}"));
            }
        }
        let result = match self {
            Step::Fmt => fmt(project),
            Step::Clippy => clippy(project),
            Step::Doc => doc(project),
            Step::Oracle => oracle(project),
            Step::Test => test(project, tools),
            Step::Api => api::run(project, tools, &api::Options::all()),
            Step::NoStd => no_std(project),
            Step::Firmware => firmware::run(project, tools, &firmware::Options::all()),
            Step::Fuzz => fuzz::run(project, tools, &fuzz::Options::all(options.fuzz_seconds)),
        };
        match result {
            Ok(note) => Outcome::Passed(note),
            Err(e) => Outcome::Failed(format!("{e:#}")),
        }
    }
}

fn fmt(project: &Project) -> Result<String> {
    let workspace = ["fmt", "--check", "--all"];
    let firmware = ["fmt", "--check", "--manifest-path", "firmware-examples/cortex-m/Cargo.toml"];
    let fuzz = ["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"];
    run_all([&workspace[..], &firmware, &fuzz].map(|arguments| project.cargo(arguments)))?;
    Ok(String::new())
}

fn clippy(project: &Project) -> Result<String> {
    let deny = ["--", "-D", "warnings"];
    let workspace = ["clippy", "--workspace", "--all-targets", "--all-features"];
    let fuzz = ["clippy", "--all-targets", "--manifest-path", "fuzz/Cargo.toml"];
    let hosted =
        run_all([&workspace[..], &fuzz].map(|arguments| project.cargo(&[arguments, &deny].concat())));
    let firmware = firmware::clippy(project, &deny);
    hosted.and(firmware)?;
    Ok(String::new())
}

fn doc(project: &Project) -> Result<String> {
    let arguments = ["doc", "--workspace", "--no-deps", "--all-features"];
    project.cargo(&arguments).env("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(String::new())
}

/// Where the generated single-operator cases lie.
pub(crate) fn oracle_cases(project: &Project) -> PathBuf {
    project.target.join("oracle-cases")
}

fn oracle(project: &Project) -> Result<String> {
    let (python, cases) = (oracle_python(project), oracle_cases(project));
    project.shell.remove_path(&cases)?;
    cmd!(project.shell, "{python} tests/oracle/generate.py --quiet --out {cases}").run()?;
    Ok(String::new())
}

/// Whether the tests had the servers that those marked as ignored need.
fn servers(tools: &mut Tools) -> Outcome {
    let found = [Need::Postgres, Need::Mosquitto, Need::FakeClock, Need::S3].map(|need| tools.need(need));
    match found.into_iter().collect::<Result<Vec<_>>>() {
        Ok(places) => Outcome::Passed(places.join(", ")),
        Err(reason) => Outcome::NotRun(format!("{reason:#}")),
    }
}

/// Unit, property and integration tests, with the oracle's cases, the larger set of models and other servers where
/// they are.
fn test(project: &Project, tools: &mut Tools) -> Result<String> {
    let nextest =
        cmd!(project.shell, "cargo nextest --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    let runner: &[&str] = if nextest {
        &["nextest", "run", "--no-fail-fast"]
    } else {
        &["test", "--no-fail-fast", "--lib", "--bins", "--tests"]
    };
    let selection = ["--workspace", "--all-features"];
    let mut tests = project.cargo(&[runner, &selection].concat());
    let cases = oracle_cases(project);
    let with_oracle = cases.join("index.json").is_file();
    if with_oracle {
        tests = tests.env("DUNLIN_ORACLE", cases);
    }
    if let Some(set) = models::reference_set(project)? {
        tests = tests.env("DUNLIN_MODELS", set);
    }
    let documentation = project.cargo(&[&["test", "--doc"], &selection[..]].concat());
    // Tests leave their tables there, as test runners hide what a passing test prints.
    let reports = project.target.join("reports");
    project.shell.remove_path(&reports)?;
    let result = run_all([tests, documentation]).and(with_servers(project, tools, nextest));
    for report in project.shell.read_dir(&reports).unwrap_or_default() {
        let name = report.file_stem().unwrap_or_default().display().to_string();
        println!("\n-- {name} --\n{}", project.shell.read_file(&report)?);
    }
    result?;
    Ok(format!("{} the oracle's generated cases", if with_oracle { "with" } else { "WITHOUT" }))
}

/// The tests that need other servers, and those of the control plane on PostgreSQL instead of SQLite. The former are
/// marked as ignored, so that `cargo test` says that it left them out.
fn with_servers(project: &Project, tools: &mut Tools, nextest: bool) -> Result<()> {
    if !matches!(servers(tools), Outcome::Passed(_)) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let selection = ["--workspace", "--all-features"];
    let runs: [&[&str]; 2] = if nextest {
        let run = ["nextest", "run", "--no-fail-fast"];
        [
            &[&run[..], &selection, &["--run-ignored", "only"]].concat(),
            &[&run[..], &selection, &["-E", "package(dunlin-control-plane)"]].concat(),
        ]
    } else {
        let run = ["test", "--no-fail-fast", "--lib", "--bins", "--tests"];
        [
            &[&run[..], &selection, &["--", "--ignored"]].concat(),
            &[&run[..], &["--package", "dunlin-control-plane", "--all-features"]].concat(),
        ]
    };
    let server = postgres.url("postgres");
    let s3 = s3_service(project);
    run_all(runs.map(|arguments| {
        project.cargo(arguments).env("DUNLIN_TEST_POSTGRES", &server).env("DUNLIN_TEST_S3", &s3)
    }))
}

/// Whether the tests had the larger set of models.
fn reference_models(project: &Project) -> Row {
    let outcome = match models::reference_set(project) {
        Ok(Some(folder)) => Outcome::Passed(folder.display().to_string()),
        Ok(None) => Outcome::Absent(
            "DUNLIN_MODELS names no folder: tested were the repository's own models and generated cases"
                .into(),
        ),
        Err(e) => Outcome::Failed(format!("{e:#}")),
    };
    Row { name: "  reference models".into(), time: Duration::ZERO, outcome }
}

fn no_std(project: &Project) -> Result<String> {
    let mut arguments = vec!["build", "--no-default-features"];
    for package in [
        "dunlin-artifact",
        "dunlin-kernels",
        "dunlin-runtime",
        "dunlin-monitor",
        "dunlin-protocol",
        "dunlin-trust",
        "dunlin-agent",
    ] {
        arguments.extend(["--package", package]);
    }
    for target in BARE_METAL {
        arguments.extend(["--target", target]);
    }
    project.cargo(&arguments).run()?;
    {
        let _folder = project.shell.push_dir("firmware-examples");
        let mut device = vec!["build", "--package", "dunlin-device", "--lib"];
        for target in BARE_METAL {
            device.extend(["--target", target]);
        }
        project.cargo(&device).run()?;
    }
    let mut linked = Vec::new();
    for target in BARE_METAL {
        linked.push(format!("{target} {} bytes", firmware::link(project, target)?));
    }
    Ok(format!(
        "digests, monitor, protocol, trust and agent core linked without code that can panic: {}",
        linked.join(", ")
    ))
}

/// Prints the table of steps; an error unless all passed.
fn summarize(rows: &[Row], total: Duration) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(["step", "result", "time", ""]);
    let (mut failed, mut not_run) = (0, 0);
    for row in rows {
        let (result, note) = match &row.outcome {
            Outcome::Passed(note) => ("passed", note),
            Outcome::Failed(reason) => {
                failed += 1;
                ("FAILED", reason)
            }
            Outcome::NotRun(reason) => {
                not_run += 1;
                ("NOT RUN", reason)
            }
            Outcome::Absent(reason) => ("not there", reason),
        };
        let time = if row.time.is_zero() { String::new() } else { minutes(row.time) };
        // One line per row: the details were printed when it happened.
        table.add_row([row.name.as_str(), result, &time, note.lines().next().unwrap_or_default()]);
    }
    println!("\n==== summary ({}) ====\n{table}", minutes(total));
    if failed + not_run > 0 {
        bail!("{failed} steps FAILED and {not_run} could NOT RUN");
    }
    println!("everything passed");
    Ok(())
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}
