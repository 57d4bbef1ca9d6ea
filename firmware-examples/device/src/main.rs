//! The device as a process on the host: a TCP socket instead of a board's network, everything else the same.
//!
//! ```console
//! $ dunlin-device --broker 127.0.0.1:1883 --device pump-7 --password … --artifact kws.dunlin --runs 1000
//! ```
//! Prints one line of JSON with what was counted in closed windows, once everything is acknowledged.

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_agent::uplink::Settings;
use dunlin_device::{Application, Counted, Credentials, Device, Platform, run};
use dunlin_monitor::{Failure, Schedule};
use dunlin_runtime::{Artifact, Session};
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::BufStream;
use tokio::net::TcpStream;

const USAGE: &str = "dunlin-device --broker IP:PORT --device ID --artifact FILE.dunlin
    [--password TEXT] [--slot NAME] [--inputs RAW] [--runs N] [--every MS] [--window MS]

RAW holds the model's first input again and again, as the model takes it; random bytes without it.
The password is also read from DUNLIN_PASSWORD.";

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

/// The value of an option, if it is there.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn number(name: &str, default: u64) -> Result<u64, String> {
    option(name)
        .map_or(Ok(default), |text| text.parse().map_err(|_| format!("{name}: {text:?} is no number")))
}

/// Bytes at an address that is a multiple of 16.
fn aligned(bytes: &[u8], memory: &mut Vec<u8>) -> std::ops::Range<usize> {
    memory.resize(bytes.len() + 15, 0);
    let start = memory.as_ptr().align_offset(16).min(15);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    start..start + bytes.len()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (Some(broker), Some(id), Some(path)) = (option("--broker"), option("--device"), option("--artifact"))
    else {
        return Err(USAGE.into());
    };
    let password = option("--password").or_else(|| std::env::var("DUNLIN_PASSWORD").ok());
    let broker = broker.parse().map_err(|_| format!("--broker: {broker:?} is no IP:PORT"))?;
    let slot = option("--slot").unwrap_or_else(|| "model".into());
    let (total, every_ms) = (number("--runs", u64::MAX)?, number("--every", 100)?);
    let period_ms = u32::try_from(number("--window", 60_000)?)?;
    let inputs = option("--inputs").map_or(Ok(Vec::new()), std::fs::read)?;

    let mut file = Vec::new();
    let place = aligned(&std::fs::read(&path)?, &mut file);
    let artifact = Artifact::parse(&file[place]).map_err(|error| format!("{path}: {error}"))?;
    artifact.verify_digest().map_err(|error| format!("{path}: {error}"))?;
    let mut memory = Vec::new();
    let place = aligned(&vec![0; artifact.arena_len()], &mut memory);
    let session = Session::new(artifact, &mut memory[place]).map_err(|error| format!("{path}: {error}"))?;

    let host = Host { started: Instant::now(), broker, random: RefCell::new(getrandom::u64()? | 1) };
    let schedule = Schedule { period_ms, ..Schedule::default() };
    let hardware = "host-process";
    let boot = getrandom::u64()?;
    let mut device = Device::new(artifact, &slot, hardware, schedule, Settings::default(), boot, 0)?;
    let mut application = Runs { host: &host, session, inputs, run: 0, total, every_ms };
    let credentials = Credentials { device: &id, password: password.as_deref() };
    run(&mut device, &host, &mut application, credentials).await;
    let totals = device.totals();
    println!(
        "{{\"inferences\": {}, \"failures\": {}, \"windows\": {}, \"bytes\": {}}}",
        totals.inferences,
        totals.failures,
        totals.windows,
        size_of_val(&device)
    );
    Ok(())
}
