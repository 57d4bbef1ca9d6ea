//! The device as a process on the host: a TCP socket instead of a board's network, everything else the same.

use std::boxed::Box;
use std::cell::RefCell;
use std::error::Error;
use std::format;
use std::net::SocketAddr;
use std::string::String;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::vec;
use std::vec::Vec;

use dunlin_agent::uplink::Settings;
use dunlin_monitor::{Failure, Schedule};
use dunlin_runtime::{Artifact, Session};
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::BufStream;
use tokio::net::TcpStream;

use crate::device::{Counted, Device, Totals};
use crate::run::{Application, Credentials, Platform, run};

/// What a device on the host is and does.
#[derive(Debug)]
pub struct Options {
    /// The server's MQTT port.
    pub broker: SocketAddr,
    /// The device's id.
    pub device: String,
    /// Its password.
    pub password: Option<String>,
    /// The artifact's file, for messages.
    pub name: String,
    /// The artifact.
    pub artifact: Vec<u8>,
    /// The slot that the model runs in.
    pub slot: String,
    /// The model's first input again and again, as the model takes it; random bytes when it is empty.
    pub inputs: Vec<u8>,
    /// After how many runs it ends.
    pub runs: u64,
    /// Time between two runs, in milliseconds.
    pub every_ms: u64,
    /// Length of a window, in milliseconds.
    pub window_ms: u32,
}

/// What a device did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Counts of closed windows, all of them acknowledged.
    pub totals: Totals,
    /// Memory of everything that the device keeps, in bytes.
    pub bytes: usize,
}

/// Runs the device until it is done and everything is acknowledged.
///
/// # Errors
/// When the artifact cannot be run or the system gives no random numbers.
pub async fn device(options: Options) -> Result<Done, Box<dyn Error>> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", options.name);
    let mut file = Vec::new();
    let place = aligned(&options.artifact, &mut file);
    let artifact = Artifact::parse(&file[place]).map_err(|error| wrong(&error))?;
    artifact.verify_digest().map_err(|error| wrong(&error))?;
    let mut memory = Vec::new();
    let place = aligned(&vec![0; artifact.arena_len()], &mut memory);
    let session = Session::new(artifact, &mut memory[place]).map_err(|error| wrong(&error))?;

    let random = RefCell::new(getrandom::u64()? | 1);
    let host = Host { started: Instant::now(), broker: options.broker, random };
    let schedule = Schedule { period_ms: options.window_ms, ..Schedule::default() };
    let boot = getrandom::u64()?;
    let settings = Settings::default();
    let mut device = Device::new(artifact, &options.slot, "host-process", schedule, settings, boot, 0)?;
    let Options { inputs, runs: total, every_ms, .. } = options;
    let mut application = Runs { host: &host, session, inputs, run: 0, total, every_ms };
    let credentials = Credentials { device: &options.device, password: options.password.as_deref() };
    run(&mut device, &host, &mut application, credentials).await;
    Ok(Done { totals: device.totals(), bytes: size_of_val(&device) })
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
struct Runs<'h, 'm, 'a> {
    host: &'h Host,
    session: Session<'m, 'a>,
    inputs: Vec<u8>,
    run: u64,
    total: u64,
    every_ms: u64,
}

impl Application for Runs<'_, '_, '_> {
    fn next_ms(&self) -> Option<u64> {
        (self.run < self.total).then_some(self.run * self.every_ms)
    }

    fn sample(&mut self, monitor: &mut Counted<'_>, _now_ms: u64) {
        let run = usize::try_from(self.run).unwrap_or(0);
        self.run += 1;
        self.session.reset();
        for index in 0..monitor.artifact().inputs().len() {
            let Ok(input) = self.session.input_bytes_mut(index) else {
                return monitor.failed(Failure::Input);
            };
            let samples = self.inputs.len() / input.len().max(1);
            match self.inputs.chunks_exact(input.len().max(1)).nth(run.checked_rem(samples).unwrap_or(0)) {
                Some(sample) if index == 0 => input.copy_from_slice(sample),
                _ => input.iter_mut().for_each(|byte| *byte = self.host.next_random() as u8),
            }
            monitor.observe_input(index, input);
        }
        let start = Instant::now();
        if self.session.run().is_err() {
            return monitor.failed(Failure::Run);
        }
        monitor.completed(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        for index in 0..monitor.artifact().outputs().len() {
            if let Ok(output) = self.session.output_bytes(index) {
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
