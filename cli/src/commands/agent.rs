//! `dunlin agent`: a device on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dunlin_agent::{
    Agent, Enrolment, EventKind, Failure as Kind, Identity, Mark, Schedule, Settings, Slot, Status,
};
use dunlin_artifact::DType;
use dunlin_runtime::{Session, verify_golden};
use serde::Serialize;

use crate::error::{Failure, read_file};
use crate::metrics::argmax;
use crate::model::{Model, ModelFile};
use crate::output::{Outcome, count, grouped, printable};
use crate::samples::{Arrays, Layout, Samples};

/// Largest CA certificate file, in bytes.
const MAX_CA: u64 = 1 << 20;
/// Shortest time between two events about failed runs; the counts tell about all of them.
const EVENT_PERIOD: Duration = Duration::from_secs(60);

/// Run a model as a device of a fleet: real inference, statistics to the control plane.
///
/// The first start needs --server and --claim: the claim is exchanged for the device's own identity, which is kept in
/// the state folder together with everything that the control plane has not acknowledged; later starts need neither.
/// The inputs are run over and over. What is counted is what the artifact's baseline says (dunlin compile
/// --calibrate). SIGTERM or Ctrl-C closes the last window and sends or keeps it; nothing that was counted in a closed
/// window is lost, whatever happens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin agent --server http://localhost:8080 --claim dunlin_key_… --artifact kws.dunlin --input x.npy
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
    /// The artifact.
    #[arg(long, value_name = "FILE.dunlin")]
    artifact: PathBuf,
    /// The inputs, as for `dunlin run`.
    #[arg(long, value_name = "X.npy|IN.npz")]
    input: PathBuf,
    /// The right classes of the inputs, one integer per sample: sends how often which prediction was right.
    #[arg(long, value_name = "Y.npy")]
    labels: Option<PathBuf>,
    /// The model slot; the model's name without it.
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
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
    /// SHA-256 of the artifact.
    model: String,
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
    let file = ModelFile::read(&args.artifact)?;
    let model = file.parse_intact()?;
    let layout = if args.sequences { Layout::Sequences } else { Layout::Samples };
    let arrays = Arrays::read(&args.input)?;
    let samples = Samples::bind(&model, &args.input, arrays, &[layout], args.quantize_input)?;
    if samples.runs() == 0 {
        return Err(Failure::new("holds no samples").file(&args.input));
    }
    let labels = args.labels.as_deref().map(|path| read_labels(path, &model, &samples)).transpose()?;
    let name = args.slot.clone().unwrap_or_else(|| slot_name(&model));
    let mut arena = model.arena();
    let mut session = model.session(&mut arena)?;

    let folder = state_dir(args)?;
    let identity = identity(args, &folder)?;
    let device = identity.device.clone();
    let settings = Settings {
        state_dir: Some(folder),
        hardware: hardware(args),
        attributes: args.attribute.iter().cloned().collect(),
        schedule: Schedule {
            period_ms: u32::try_from(args.window.as_millis()).unwrap_or(u32::MAX),
            runs: args.window_runs,
        },
        ..Settings::default()
    };
    let signals = Signals::new()?;
    let agent = Agent::start(identity, settings).map_err(|error| Failure::new(error.to_string()))?;
    if !json {
        tell(&format!("device {device} runs {name}"));
        follow(&agent);
    }
    prove(&agent, &name, &model, &mut session)?;
    let slot = agent.slot(&name, file.bytes()).map_err(|error| Failure::new(error.to_string()))?;
    slot.mark(Mark::Arena, model.artifact.arena_len());
    let task = Task { args, model: &model, samples: &samples, labels, agent: &agent, slot: &slot };
    task.infer(&mut session, &signals);
    let digest = slot.model();
    // A second signal ends the waiting.
    let patience = if signals.again() { Duration::ZERO } else { args.patience };
    let status = agent.stop(patience);
    Ok(outcome(&device, &name, digest, status))
}

/// Runs the golden vectors: a model that computes something else on this machine must not be used.
fn prove(agent: &Agent, slot: &str, model: &Model<'_>, session: &mut Session<'_, '_>) -> Result<(), Failure> {
    let proven = verify_golden(session).map_err(|error| model.run_failure(error))?;
    let Err(mismatch) = proven else { return Ok(()) };
    let reason = format!(
        "golden vector {}: output {} element {} is {:#x} instead of {:#x}",
        mismatch.vector, mismatch.output, mismatch.element, mismatch.actual, mismatch.expected
    );
    agent.failed(slot, model.artifact.digest(), EventKind::GoldenMismatch, &reason);
    Err(Failure::new(reason)
        .file(model.path)
        .way_out("this machine computes the model wrongly: it is not used"))
}

/// What the runs need.
struct Task<'a> {
    args: &'a Args,
    model: &'a Model<'a>,
    samples: &'a Samples,
    labels: Option<Vec<u32>>,
    agent: &'a Agent,
    slot: &'a Slot,
}

impl Task<'_> {
    fn infer(&self, session: &mut Session<'_, '_>, signals: &Signals) {
        let start = Instant::now();
        let mut last_event: Option<Instant> = None;
        let total = self.args.count.unwrap_or(u64::MAX);
        for run in 0..total {
            if self.args.rate > 0.0 {
                let due = start + Duration::from_secs_f64(run as f64 / self.args.rate);
                if signals.wait_until(due) {
                    break;
                }
            } else if signals.came() {
                break;
            }
            let sample = usize::try_from(run % self.samples.runs() as u64).unwrap_or(0);
            if let Err((kind, detail)) = self.infer_one(sample, session) {
                self.slot.failed(kind);
                if last_event.is_none_or(|at| at.elapsed() >= EVENT_PERIOD) {
                    last_event = Some(Instant::now());
                    let number = i64::try_from(run).unwrap_or(i64::MAX);
                    self.agent.event(self.slot.name(), EventKind::InferenceFailed, number, &detail);
                }
            }
        }
    }

    fn infer_one(&self, sample: usize, session: &mut Session<'_, '_>) -> Result<(), (Kind, String)> {
        let input = |error| (Kind::Input, format!("sample {sample}: {error}"));
        let failed = |error| (Kind::Run, format!("sample {sample}: {error}"));
        self.samples.prepare(sample, session).map_err(input)?;
        for index in 0..self.model.inputs.len() {
            self.slot.input(index, session.input_bytes_mut(index).map_err(input)?);
        }
        let start = Instant::now();
        session.run().map_err(failed)?;
        let latency = start.elapsed();
        for (index, port) in self.model.outputs.iter().enumerate() {
            let bytes = session.output_bytes(index).map_err(failed)?;
            if port.tensor.dtype == DType::F32 && port.reals(bytes).any(f64::is_nan) {
                return Err((Kind::Output, format!("sample {sample}: output {} is not a number", port.name)));
            }
        }
        for index in 0..self.model.outputs.len() {
            self.slot.output(index, session.output_bytes(index).map_err(failed)?);
        }
        self.slot.completed(latency);
        if let (Some(labels), Some(port)) = (&self.labels, self.model.outputs.first()) {
            let bytes = session.output_bytes(0).map_err(failed)?;
            let scores: Vec<f64> = port.reals(bytes).collect();
            let (predicted, confidence) = match scores.as_slice() {
                [score] => (usize::from(*score > 0.5), score.max(1.0 - score)),
                scores => {
                    let predicted = argmax(scores.iter().copied());
                    (predicted, scores.get(predicted).copied().unwrap_or(f64::NAN))
                }
            };
            if let Some(&label) = labels.get(sample / self.samples.steps.max(1)) {
                let predicted = u32::try_from(predicted).unwrap_or(u32::MAX);
                self.slot.label(predicted, label, Some(confidence as f32));
            }
        }
        Ok(())
    }
}

fn read_labels(path: &Path, model: &Model<'_>, samples: &Samples) -> Result<Vec<u32>, Failure> {
    let array = match Arrays::read(path)? {
        Arrays::One(array) => array,
        Arrays::Named(mut named) if named.len() == 1 => named.remove(0).1,
        Arrays::Named(_) => {
            let failure = Failure::new("holds several arrays").file(path);
            return Err(failure.way_out("give the labels as an .npy file"));
        }
    };
    let labels: Vec<u32> = array.reals().map(|label| label as u32).collect();
    if !array.element.is_integer() || array.reals().any(|label| !(0.0..=f64::from(u32::MAX)).contains(&label))
    {
        let failure = Failure::new(format!("is {}", array.element)).file(path);
        return Err(failure.way_out("labels are class numbers, integers from 0 on"));
    }
    if labels.len() != samples.count {
        let message = format!("holds {} labels for {}", labels.len(), count(samples.count, "sample"));
        return Err(Failure::new(message).file(path).way_out("inputs and labels must belong together"));
    }
    if model.outputs.is_empty() {
        return Err(Failure::new("has no outputs that labels could judge").file(model.path));
    }
    Ok(labels)
}

/// The model's name as a slot's: at most 32 bytes.
fn slot_name(model: &Model<'_>) -> String {
    let stem = || model.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = Some(model.manifest.name.to_owned()).filter(|name| !name.is_empty()).or_else(stem);
    let name = name.unwrap_or_else(|| "model".into());
    name[..name.floor_char_boundary(32)].to_owned()
}

fn state_dir(args: &Args) -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = || std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let folder = args.state_dir.clone().or_else(|| Some(state()?.join("dunlin/agent")));
    folder.ok_or_else(|| {
        Failure::usage("there is no home folder").way_out("say where to keep state with --state-dir")
    })
}

fn hardware(args: &Args) -> String {
    let default = || format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    args.hardware.clone().unwrap_or_else(default)
}

/// The identity in the state folder, or a new one for the claim.
fn identity(args: &Args, folder: &Path) -> Result<Identity, Failure> {
    let failed = |error: String| Failure::new(error);
    if let Some(identity) = Identity::load(folder).map_err(|error| failed(error.to_string()))? {
        if args.device.as_ref().is_some_and(|device| *device != identity.device) {
            let message = format!("the state folder belongs to device {}", identity.device);
            return Err(Failure::new(message)
                .file(folder)
                .way_out("give each device a --state-dir of its own"));
        }
        return Ok(identity);
    }
    let claim = args.claim.clone().or_else(|| std::env::var("DUNLIN_CLAIM").ok());
    let (Some(server), Some(claim)) = (args.server.clone(), claim) else {
        let failure = Failure::usage("this device is not enrolled").file(folder);
        return Err(failure.way_out("give --server and --claim; `dunlin claim create` makes a claim"));
    };
    let ca = match &args.ca {
        Some(path) => Some(
            String::from_utf8(read_file(path, MAX_CA)?)
                .map_err(|_| Failure::new("is no PEM text").file(path))?,
        ),
        None => None,
    };
    let serial = dunlin_agent::identity::serial(folder).map_err(|error| failed(error.to_string()))?;
    let enrolment = Enrolment {
        server,
        claim,
        device: args.device.clone(),
        serial: Some(serial),
        hardware: hardware(args),
        attributes: args.attribute.iter().cloned().collect::<BTreeMap<_, _>>(),
        ca,
    };
    let identity = dunlin_agent::enrol_blocking(&enrolment).map_err(|error| failed(error.to_string()))?;
    identity.save(folder).map_err(|error| failed(error.to_string()))?;
    Ok(identity)
}

/// SIGTERM and Ctrl-C.
struct Signals {
    came: mpsc::Receiver<()>,
    first: AtomicBool,
    again: Arc<AtomicBool>,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let (sender, came) = mpsc::channel();
        let again = Arc::new(AtomicBool::new(false));
        let failed = |error: std::io::Error| Failure::new(format!("signals cannot be received: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (noted, (ready, is_ready)) = (Arc::clone(&again), mpsc::channel());
        std::thread::spawn(move || {
            runtime.block_on(async {
                let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
                let _ = ready.send(terminate.as_ref().err().map(std::io::Error::kind));
                let Ok(mut terminate) = terminate else { return };
                for number in 0.. {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = tokio::signal::ctrl_c() => {}
                    }
                    noted.store(number > 0, Ordering::Relaxed);
                    if sender.send(()).is_err() {
                        // Nobody listens any more: the program is on its way out, and takes too long.
                        std::process::exit(1);
                    }
                }
            });
        });
        match is_ready.recv() {
            Ok(None) => Ok(Signals { came, first: AtomicBool::new(false), again }),
            Ok(Some(kind)) => Err(failed(kind.into())),
            Err(_) => Err(failed(std::io::ErrorKind::Other.into())),
        }
    }

    /// Waits until then; whether a signal came before.
    fn wait_until(&self, due: Instant) -> bool {
        let left = due.saturating_duration_since(Instant::now());
        let came =
            if left.is_zero() { self.came.try_recv().is_ok() } else { self.came.recv_timeout(left).is_ok() };
        self.first.fetch_or(came, Ordering::Relaxed) || came
    }

    fn came(&self) -> bool {
        self.wait_until(Instant::now())
    }

    /// Whether a second signal came.
    fn again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }
}

/// Tells people on standard error when the connection comes and goes.
fn follow(agent: &Agent) {
    let mut status = agent.watch();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let mut told: Option<(bool, Option<String>)> = None;
        runtime.block_on(async {
            loop {
                let now = status.borrow_and_update().clone();
                let news = (now.connected, now.disconnected_because.clone());
                if told.as_ref() != Some(&news) && (now.connected || now.disconnected_because.is_some()) {
                    match &now.disconnected_because {
                        _ if now.connected => tell("connected"),
                        Some(reason) => tell(&format!("not connected: {reason}; trying again")),
                        None => {}
                    }
                    told = Some(news);
                }
                if status.changed().await.is_err() {
                    break;
                }
            }
        });
    });
}

fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

fn outcome(device: &str, slot: &str, model: [u8; 32], status: Status) -> Outcome {
    let report = Report {
        device: device.to_owned(),
        slot: slot.to_owned(),
        model: model.iter().map(|byte| format!("{byte:02x}")).collect(),
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
