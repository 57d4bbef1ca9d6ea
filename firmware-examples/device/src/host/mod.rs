//! The device as a process on the host: a TCP socket instead of a board's network, files instead of its flash,
//! everything else the same.

mod flash;

use std::boxed::Box;
use std::cell::RefCell;
use std::error::Error;
use std::format;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::{String, ToString as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::vec;
use std::vec::Vec;

use dunlin_agent::update::Model;
use dunlin_monitor::{Failure, Schedule};
use dunlin_runtime::{Artifact, DType, Session};
use dunlin_trust::Dalek;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::BufStream;
use tokio::net::TcpStream;

use crate::device::{Counted, Device, Settings, Totals};
use crate::product::{Application, Credentials, Models, Platform};
use crate::run::run;

pub use flash::{Flash, FlashFault};

/// Bytes of flash for what a device must not forget about models and keys.
pub const CELLS: usize = 4 * 4096;
/// Bytes of flash for one model.
const BANK: usize = 1 << 20;
/// Bytes for the arena of any model; that of the built-in one may need more.
const ARENA: usize = 512 << 10;

/// What a device on the host is and does.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's MQTT port.
    pub broker: SocketAddr,
    /// The device's id.
    pub device: String,
    /// Its password.
    pub password: Option<String>,
    /// The artifact's file, for messages.
    pub name: String,
    /// The artifact that is built in: it runs while nothing is assigned.
    pub artifact: Vec<u8>,
    /// The slot that the models run in.
    pub slot: String,
    /// The hardware class.
    pub hardware: String,
    /// The folder with the flash; without it a restart begins anew.
    pub flash: Option<PathBuf>,
    /// The root that is built in; without it nothing is installed.
    pub root: Option<Vec<u8>>,
    /// The model's first input again and again, as the model takes it; random bytes when it is empty.
    pub inputs: Vec<u8>,
    /// After how many runs it ends.
    pub runs: u64,
    /// Time between two runs, in milliseconds.
    pub every_ms: u64,
    /// Length of a window, in milliseconds.
    pub window_ms: u32,
    /// Ends it, as if all runs were done.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// A device that runs an artifact until it is stopped, ten times a second, in the slot `model`.
    pub fn new(broker: SocketAddr, device: &str, name: &str, artifact: Vec<u8>) -> Self {
        Options {
            broker,
            device: device.to_string(),
            password: None,
            name: name.to_string(),
            artifact,
            slot: "model".to_string(),
            hardware: "host-process".to_string(),
            flash: None,
            root: None,
            inputs: Vec::new(),
            runs: u64::MAX,
            every_ms: 100,
            window_ms: 60_000,
            stop: Arc::default(),
        }
    }
}

/// What a device did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Counts of closed windows, all of them acknowledged.
    pub totals: Totals,
    /// Memory of everything that the device keeps, in bytes.
    pub bytes: usize,
    /// Memory of its program while it waits, in bytes: the connection and what is received; the host's socket, too.
    pub program_bytes: usize,
    /// The digest of the model that ran last.
    pub digest: [u8; 32],
    /// Its version; none if it is the one that is built in.
    pub version: Option<u32>,
}

/// Runs the device until it is done and everything is acknowledged.
///
/// # Errors
/// When the artifact cannot be run, the root or the flash cannot be used, or the system gives no random numbers.
pub async fn device(options: Options) -> Result<Done, Box<dyn Error>> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", options.name);
    let mut file = Vec::new();
    let place = aligned(&options.artifact, &mut file);
    let built_in = Artifact::parse(&file[place]).map_err(|error| wrong(&error))?;
    built_in.verify_digest().map_err(|error| wrong(&error))?;
    let mut memory = Vec::new();
    let place = aligned(&vec![0; built_in.arena_len().max(ARENA)], &mut memory);
    let folder = options.flash.as_deref();
    let banks = [open(folder, "a.flash", BANK)?, open(folder, "b.flash", BANK)?];
    let mut models = Models { built_in, banks, arena: &mut memory[place] };

    let random = RefCell::new(getrandom::u64()? | 1);
    let host = Host { started: Instant::now(), broker: options.broker, random };
    let settings = Settings {
        slot: &options.slot,
        hardware: &options.hardware,
        root: options.root.as_deref(),
        schedule: Schedule { period_ms: options.window_ms, ..Schedule::default() },
        ..Settings::default()
    };
    let cells = open(folder, "cells.flash", CELLS)?;
    let mut device = Device::new(settings, cells, BANK, Dalek, getrandom::u64()?, 0)?;
    let bytes = size_of_val(&device);
    let mut application = Runs { host: &host, options: &options, takes: tensors(&built_in), run: 0 };
    let credentials = Credentials { device: &options.device, password: options.password.as_deref() };
    let running = run(&mut device, &mut models, &host, &mut application, credentials);
    let program_bytes = size_of_val(&running);
    running.await.map_err(|reason| wrong(&reason))?;
    let Model { digest, version, .. } = device.model().unwrap_or_default();
    let (digest, version) = match version {
        0 => (built_in.digest(), None),
        version => (digest, Some(version)),
    };
    Ok(Done { totals: device.totals(), bytes, program_bytes, digest, version })
}

fn open(folder: Option<&Path>, name: &str, length: usize) -> Result<Flash, String> {
    let Some(folder) = folder else { return Ok(Flash::new(length)) };
    let path = folder.join(name);
    let flash = std::fs::create_dir_all(folder).and_then(|()| Flash::open(&path, length));
    flash.map_err(|error| format!("{}: {error}", path.display()))
}

/// The types and lengths of a model's inputs and outputs.
fn tensors(artifact: &Artifact<'_>) -> Vec<(DType, usize)> {
    artifact.inputs().chain(artifact.outputs()).map(|tensor| (tensor.dtype, tensor.bytes())).collect()
}

/// The host's clock, randomness and sockets.
struct Host {
    started: Instant,
    broker: SocketAddr,
    random: RefCell<u64>,
}

impl Host {
    fn next_random(&self) -> u64 {
        // xorshift64, seeded by the system: good enough for jitter and for inputs.
        let mut state = self.random.borrow_mut();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }
}

impl Platform for Host {
    type Stream = FromTokio<BufStream<TcpStream>>;
    type Error = std::io::Error;

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn random(&self) -> u32 {
        (self.next_random() >> 32) as u32
    }

    async fn connect(&self) -> Result<Self::Stream, Self::Error> {
        let stream = TcpStream::connect(self.broker).await?;
        stream.set_nodelay(true)?;
        // The client writes in small pieces.
        Ok(FromTokio::new(BufStream::new(stream)))
    }

    async fn sleep_until(&self, ms: u64) {
        tokio::time::sleep_until((self.started + Duration::from_millis(ms)).into()).await;
    }
}

/// Runs the model at a steady pace.
struct Runs<'h> {
    host: &'h Host,
    options: &'h Options,
    /// What the models take and give.
    takes: Vec<(DType, usize)>,
    run: u64,
}

impl Application for Runs<'_> {
    fn next_ms(&self) -> Option<u64> {
        let goes_on = self.run < self.options.runs && !self.options.stop.load(Ordering::Relaxed);
        goes_on.then_some(self.run.saturating_mul(self.options.every_ms))
    }

    fn accepts(&self, artifact: &Artifact<'_>) -> bool {
        tensors(artifact) == self.takes
    }

    fn sample(&mut self, session: &mut Session<'_, '_>, monitor: &mut Counted<'_>, _now_ms: u64) {
        let run = usize::try_from(self.run).unwrap_or(0);
        let inputs = &self.options.inputs;
        self.run += 1;
        session.reset();
        for index in 0..monitor.artifact().inputs().len() {
            let Ok(input) = session.input_bytes_mut(index) else {
                return monitor.failed(Failure::Input);
            };
            let samples = inputs.len() / input.len().max(1);
            match inputs.chunks_exact(input.len().max(1)).nth(run.checked_rem(samples).unwrap_or(0)) {
                Some(sample) if index == 0 => input.copy_from_slice(sample),
                _ => input.iter_mut().for_each(|byte| *byte = self.host.next_random() as u8),
            }
            monitor.observe_input(index, input);
        }
        let start = Instant::now();
        if session.run().is_err() {
            return monitor.failed(Failure::Run);
        }
        monitor.completed(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        for index in 0..monitor.artifact().outputs().len() {
            if let Ok(output) = session.output_bytes(index) {
                monitor.observe_output(index, output);
            }
        }
    }
}

/// Bytes at an address that is a multiple of 16.
fn aligned(bytes: &[u8], memory: &mut Vec<u8>) -> std::ops::Range<usize> {
    memory.resize(bytes.len() + 15, 0);
    let start = memory.as_ptr().align_offset(16).min(15);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    start..start + bytes.len()
}
