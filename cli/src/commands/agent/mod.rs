//! `dunlin agent`: a device on this machine.

mod enrol;
mod follow;
mod runs;
mod signals;
mod task;

use std::path::PathBuf;
use std::time::Duration;

use dunlin_agent::{Agent, ModelSettings, Schedule, Settings, Status};
use serde::Serialize;

use crate::error::{Failure, read_file};
use crate::model::{Model, ModelFile};
use crate::output::{Outcome, count, grouped, printable};
use follow::follow;
use signals::Signals;
use task::{Task, prove};

/// Largest file with a root, in bytes.
const MAX_ROOT: u64 = 64 << 10;

/// Run models as a device of a fleet: real inference, statistics to the control plane, models from there.
///
/// The first start needs --server and --claim: the claim is exchanged for the device's own identity, which is kept in
/// the state folder together with everything that the control plane has not acknowledged; later starts need neither.
/// What is assigned to the slot is fetched, checked, run on trial, and kept or given up for the model before it. Only
/// signed models are installed. The inputs are run over and over. What is counted is what the artifact's baseline says (dunlin compile
/// --calibrate). SIGTERM or Ctrl-C closes the last window and sends or keeps it; nothing that was counted in a closed
/// window is lost, whatever happens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin agent --server http://localhost:8080 --claim dunlin_key_… --artifact kws.dunlin --input x.npy
  dunlin agent --state-dir /var/lib/pump-7 --slot kws --input x.npy
  dunlin agent --state-dir /var/lib/pump-7 --artifact kws.dunlin --input x.npy --labels y.npy --rate 10 --window 5m
  DUNLIN_CLAIM=… dunlin agent --server https://fleet.example --artifact kws.dunlin --input x.npy --count 1000 --json")]
pub(crate) struct Args {
    /// The control plane's HTTP address; needed to enrol.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The claim (dunlin claim create); needed to enrol. Also read from DUNLIN_CLAIM, which other users of the
    /// machine cannot see.
    #[arg(long, value_name = "KEY")]
    claim: Option<String>,
    /// Certificates to trust for HTTPS (PEM), instead of the system's.
    #[arg(long, value_name = "CA.pem")]
    ca: Option<PathBuf>,
    /// An artifact to run while the control plane has assigned none.
    #[arg(long, value_name = "FILE.dunlin")]
    artifact: Option<PathBuf>,
    /// The inputs, as for `dunlin run`.
    #[arg(long, value_name = "X.npy|IN.npz")]
    input: PathBuf,
    /// The right classes of the inputs, one integer per sample: sends how often which prediction was right.
    #[arg(long, value_name = "Y.npy")]
    labels: Option<PathBuf>,
    /// The model slot, which the control plane fills (dunlin device assign DEVICE NAME=VERSION); the artifact's name
    /// without it.
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// Whose models to believe from the first start on (dunlin keys export); without it, what the server says when the
    /// device is enrolled.
    #[arg(long, value_name = "FILE.root")]
    root: Option<PathBuf>,
    /// Most bytes of a model that are fetched in a second; 0 is as many as come.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    download_rate: u32,
    /// Where the identity and the queue are kept [default: $XDG_STATE_HOME/dunlin/agent or ~/.local/state/dunlin/agent].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The wanted device id; the server chooses one without it. Used when enrolling.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Hardware class [default: operating system and processor].
    #[arg(long, value_name = "CLASS")]
    hardware: Option<String>,
    /// A fact about the device; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// How long a window of statistics is, such as 500ms, 60s, 5m or 1h, unless the control plane says otherwise.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    window: Duration,
    /// After how many runs a window is closed at the latest.
    #[arg(long, value_name = "RUNS", default_value_t = Schedule::MAX_RUNS)]
    window_runs: u32,
    /// Runs per second; 0 is as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    rate: f64,
    /// Stop after so many runs; until a signal without it.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to wait at the end for the control plane to acknowledge everything; what it has not is kept.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    patience: Duration,
    /// Quantize float32 arrays for quantized inputs, by the input's scale and zero point.
    #[arg(long)]
    quantize_input: bool,
    /// The first two axes are sequence and step: state is carried from step to step and reset before each sequence.
    #[arg(long)]
    sequences: bool,
}

/// What there is to tell at the end.
#[derive(Serialize)]
struct Report {
    device: String,
    slot: String,
    /// SHA-256 of the artifact that ran last; none when none did.
    model: Option<String>,
    inferences: u64,
    failures: u64,
    windows: u64,
    /// Messages that the control plane has acknowledged.
    acknowledged: u64,
    /// Windows, events and messages that it has not; they are sent after the next start.
    kept: usize,
    connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnected_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_fault: Option<String>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<Outcome, Failure> {
    if !(args.rate >= 0.0 && args.rate.is_finite()) {
        return Err(Failure::usage("--rate is a number from 0 on"));
    }
    // Everything that can be wrong is looked at before the claim is used up.
    let file = args.artifact.as_deref().map(ModelFile::read).transpose()?;
    let name = match (&file, &args.slot) {
        (Some(file), slot) => {
            let model = file.parse_intact()?;
            let mut arena = model.arena();
            Task::new(args, &model, &mut arena)?;
            slot.clone().unwrap_or_else(|| slot_name(&model))
        }
        (None, Some(slot)) => slot.clone(),
        (None, None) => {
            let failure = Failure::usage("neither a slot nor an artifact is given");
            return Err(failure.way_out("name the slot that the control plane fills: --slot NAME"));
        }
    };
    let root = args.root.as_deref().map(|path| read_file(path, MAX_ROOT)).transpose()?;
    let folder = enrol::state_dir(args)?;
    let identity = enrol::identity(args, &folder)?;
    let device = identity.device.clone();
    let settings = Settings {
        state_dir: Some(folder),
        hardware: enrol::hardware(args),
        attributes: args.attribute.iter().cloned().collect(),
        schedule: Schedule {
            period_ms: u32::try_from(args.window.as_millis()).unwrap_or(u32::MAX),
            runs: args.window_runs,
        },
        root,
        ..Settings::default()
    };
    let signals = Signals::new()?;
    let failed = |error: String| Failure::new(error);
    let agent = Agent::start(identity, settings).map_err(|error| failed(error.to_string()))?;
    if !json {
        tell(&format!("device {device} runs {name}"));
        follow(&agent);
    }
    if let Some(file) = &file {
        prove(&agent, &name, file)?;
    }
    let settings = ModelSettings {
        built_in: file.map(|file| file.bytes().to_owned()),
        bytes_per_s: args.download_rate,
        ..ModelSettings::default()
    };
    let mut models = agent.models(&name, settings).map_err(|error| failed(error.to_string()))?;
    let digest = runs::run(args, &agent, &mut models, &signals, json)?;
    // A second signal ends the waiting.
    let patience = if signals.again() { Duration::ZERO } else { args.patience };
    let status = agent.stop(patience);
    Ok(outcome(&device, &name, digest, status))
}

/// The model's name as a slot's: at most 32 bytes.
fn slot_name(model: &Model<'_>) -> String {
    let stem = || model.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = Some(model.manifest.name.to_owned()).filter(|name| !name.is_empty()).or_else(stem);
    let name = name.unwrap_or_else(|| "model".into());
    name[..name.floor_char_boundary(32)].to_owned()
}

fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

fn outcome(device: &str, slot: &str, model: Option<[u8; 32]>, status: Status) -> Outcome {
    let report = Report {
        device: device.to_owned(),
        slot: slot.to_owned(),
        model: model.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()),
        inferences: status.inferences,
        failures: status.failures,
        windows: status.windows,
        acknowledged: status.acknowledged,
        kept: status.waiting + status.unacknowledged,
        connections: status.connections,
        disconnected_because: status.disconnected_because,
        disk_fault: status.disk_fault,
    };
    let mut text = format!(
        "{} and {} in {}\n{} acknowledged by the control plane\n",
        count(report.inferences as usize, "inference"),
        count(report.failures as usize, "failure"),
        count(report.windows as usize, "window"),
        count(report.acknowledged as usize, "message"),
    );
    if report.kept > 0 {
        text += &format!("{} kept; they are sent after the next start\n", grouped(report.kept as u64));
        if let Some(reason) = &report.disconnected_because {
            text += &format!("not connected: {}\n", printable(reason));
        }
    }
    if let Some(fault) = &report.disk_fault {
        text += &format!("{}\n", printable(fault));
    }
    Outcome::new(&report, text)
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && key.len() <= 32 && value.len() <= 96 => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE, with at most 32 and 96 bytes".into()),
    }
}

/// `500ms`, `60s`, `5m`, `1h`; at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is no time: write 500ms, 60s, 5m or 1h, at most 24h");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    ms.filter(|ms| *ms <= 24 * 3_600_000).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let cases = [("500ms", 500), ("60s", 60_000), ("7", 7_000), ("5m", 300_000), ("24h", 86_400_000)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "25h", "99999999999999999999s", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn attributes_are_pairs() {
        assert_eq!(pair("site=a=b"), Ok(("site".into(), "a=b".into())));
        for text in ["", "=x", "nothing", &format!("{}=x", "k".repeat(33))] {
            assert!(pair(text).is_err(), "{text}");
        }
    }
}
