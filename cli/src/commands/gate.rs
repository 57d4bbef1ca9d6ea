//! `dunlin gate`: what a rollout's gates do.

use dunlin_gates::simulate::{Outcome as Simulated, Settings, simulate};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{Outcome, table};

/// See what a rollout's gates do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Simulate(Simulate),
}

/// Repeat a healthy and a faulty rollout, and count how often and when each gate stops them.
///
/// Dunlin's gates may be looked at after every report: a healthy rollout is stopped with a probability of at most alpha,
/// however often one looks. Beside them stand the fixed thresholds of hawkBit and AWS IoT Jobs, and a z-test that is
/// looked at as often.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin gate simulate --base-rate 0.01 --rate 0.05 --devices 400 --look-every 1")]
struct Simulate {
    /// The rate of failing devices with the old version.
    #[arg(long, value_name = "P0", default_value_t = 0.01, value_parser = rate)]
    base_rate: f64,
    /// The rate with the new version.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = rate)]
    rate: f64,
    /// Devices of a rollout.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// After how many reports the gates are looked at.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    look_every: u32,
    /// The probability of stopping a healthy rollout that is put up with.
    #[arg(long, value_name = "A", default_value_t = 0.05, value_parser = rate)]
    alpha: f64,
    /// Rollouts of each kind.
    #[arg(long, value_name = "R", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// Where the random numbers begin: the same seed gives the same numbers.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// The figures of the gate against the base rate at the top, those of all gates below.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    settings: Settings,
    false_alarm_rate: f64,
    stopped_rate: f64,
    median_devices: Option<u32>,
    mean_failures: f64,
    gates: &'a [Simulated],
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let Command::Simulate(args) = &args.command;
    let settings = Settings {
        base_rate: args.base_rate,
        rate: args.rate,
        devices: args.devices,
        look_every: args.look_every,
        alpha: args.alpha,
        runs: args.runs,
        seed: args.seed,
    };
    let gates = simulate(&settings);
    let first = gates.first().ok_or_else(|| Failure::new("there are no gates"))?;
    let report = Report {
        settings,
        false_alarm_rate: first.false_alarm_rate,
        stopped_rate: first.stopped_rate,
        median_devices: first.median_devices,
        mean_failures: first.mean_failures,
        gates: &gates,
    };
    Ok(Outcome::new(&report, text(&settings, &gates)))
}

fn text(settings: &Settings, gates: &[Simulated]) -> String {
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let rows = gates.iter().map(|gate| {
        vec![
            gate.gate.to_owned(),
            percent(gate.false_alarm_rate),
            percent(gate.stopped_rate),
            gate.median_devices.map_or("-".into(), |devices| devices.to_string()),
            format!("{:.1}", gate.mean_failures),
        ]
    });
    let header = ["gate", "healthy stopped", "faulty stopped", "median devices", "devices failed"];
    let table = table(&header, rows, 1);
    format!(
        "{} rollouts to {} devices each, healthy {}, faulty {}; a look every {}; alpha {}\n\n{table}",
        settings.runs,
        settings.devices,
        percent(settings.base_rate),
        percent(settings.rate),
        match settings.look_every {
            1 => "report".to_owned(),
            every => format!("{every} reports"),
        },
        settings.alpha,
    )
}

/// A probability that leaves both possible.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate < 1.0 => Ok(rate),
        _ => Err("a number between 0 and 1 is expected, such as 0.01".into()),
    }
}
