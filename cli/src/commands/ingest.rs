//! `dunlin bench ingest`: how many reports a control plane takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::error::Failure;
use crate::load::{Broker, Credentials, Served, Usage, idle, publish};
use crate::output::{Outcome, grouped, progress};
use crate::server::{Api, Login, ServerArgs};

/// How long nothing may happen before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The fleet of the made-up devices.
const FLEET: &str = "bench";

/// Measure how many reports a control plane takes, end to end.
///
/// Made-up devices publish real reports over MQTT at QoS 1, each under a number of its own, and keep what the control
/// plane has not acknowledged; a report counts when the acknowledgement of its commit has come back. Without --server
/// a control plane is started for the measurement and thrown away afterwards; processor time and memory are told of
/// this one only (without PostgreSQL's and the broker's).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dunlin bench ingest\n  dunlin bench ingest --devices 500 --reports 1000000 --json\n  \
    dunlin bench ingest --database-url postgres://postgres@localhost/bench --broker-url mqtt://localhost\n  \
    dunlin bench ingest --idle 5000"
)]
pub(crate) struct Args {
    /// Devices that publish.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    devices: u32,
    /// Reports of all devices together.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    reports: u64,
    /// Instead: so many devices connect and stay silent; prints the memory of a connection.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    idle: Option<u32>,
    /// PostgreSQL for the control plane that is started; an empty database. SQLite without it.
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    database_url: Option<String>,
    /// MQTT broker for the control plane that is started. Its own endpoint without it.
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    broker_url: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct IngestReport {
    devices: u32,
    reports: u64,
    seconds: f64,
    reports_per_second: f64,
    /// Processor time per report.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator_cpu_us: Option<f64>,
    /// The server's memory before, in the middle, and at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resident_bytes: Vec<u64>,
    /// What the control plane says it counted.
    counters: Value,
}

#[derive(Serialize)]
struct IdleReport {
    connections: u32,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_bytes_per_connection: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resident_bytes: Vec<u64>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let served = match &args.server.server {
        Some(_) => None,
        None => {
            let url =
                |flag: &str, url: &Option<String>| url.as_ref().map(|url| [flag.to_owned(), url.clone()]);
            let more = [url("--database-url", &args.database_url), url("--broker-url", &args.broker_url)];
            Some(Served::start(&more.into_iter().flatten().flatten().collect::<Vec<_>>())?)
        }
    };
    let api = match &served {
        Some(served) => Api::new(&served.login)?,
        None => Api::new(&Login::find(&args.server)?)?,
    };
    let (broker, devices) = create(&api, args.idle.unwrap_or(args.devices))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no event loop: {error}")))?;
    let usage = || served.as_ref().and_then(|served| Usage::of(&served.process()));
    match args.idle {
        Some(connections) => runtime.block_on(stay(&broker, devices, connections, usage)),
        None => {
            let mut report = runtime.block_on(ingest(&broker, devices, args.reports, usage))?;
            report.counters = api.get(&["telemetry", "counters"], &[])?;
            let text = ingest_text(&report);
            Ok(Outcome::new(&report, text))
        }
    }
}

/// Makes the devices; where they connect, and with what.
fn create(api: &Api, count: u32) -> Result<(Broker, Vec<Credentials>), Failure> {
    if !api.exists(&["fleets", FLEET])? {
        api.post(&["fleets"], &json!({ "id": FLEET }))?;
    }
    let run = std::process::id();
    let bar = progress(count as usize, "devices");
    let (mut broker, mut devices) = (None, Vec::new());
    for number in 0..count {
        let id = format!("bench-{run}-{number}");
        let made = api.post(&["devices"], &json!({ "id": id, "fleet": FLEET, "hardware": "bench" }))?;
        let Some(password) = made["password"].as_str() else {
            let failure = Failure::new("devices of this control plane log in by certificate");
            return Err(failure.way_out("measure one whose devices log in by password"));
        };
        let mqtt = &made["mqtt"];
        if mqtt["tls"] == true {
            let failure = Failure::new("this control plane's MQTT is encrypted");
            return Err(failure.way_out("measure one without TLS"));
        }
        let port = mqtt["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(1883);
        broker = Some(Broker { host: mqtt["host"].as_str().unwrap_or("127.0.0.1").to_owned(), port });
        devices.push(Credentials { device: id, password: password.to_owned() });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let broker = broker.ok_or_else(|| Failure::new("there are no devices"))?;
    Ok((broker, devices))
}

/// Fails with what a device failed with.
async fn check(tasks: &mut JoinSet<std::io::Result<()>>) -> Result<(), Failure> {
    while let Some(ended) = tasks.try_join_next() {
        let result = ended.map_err(|error| Failure::new(error.to_string()))?;
        result.map_err(|error| Failure::new(format!("a device lost its connection: {error}")))?;
    }
    Ok(())
}

/// Waits until the count is there; an error when it stands still for too long.
async fn reach(
    count: &AtomicU64,
    goal: u64,
    tasks: &mut JoinSet<std::io::Result<()>>,
    bar: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    let mut last = (0, Instant::now());
    loop {
        let now = count.load(Ordering::Relaxed);
        bar.set_position(now);
        if now >= goal {
            return Ok(());
        }
        check(tasks).await?;
        if now > last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            return Err(Failure::new(format!("nothing has happened for {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ingest(
    broker: &Broker,
    devices: Vec<Credentials>,
    reports: u64,
    usage: impl Fn() -> Option<Usage>,
) -> Result<IngestReport, Failure> {
    let count = devices.len() as u64;
    let committed = Arc::new(AtomicU64::new(0));
    let mut boot = [0; 8];
    getrandom::fill(&mut boot).map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
    let boot = u64::from_le_bytes(boot);
    let (before, own_before) = (usage(), Usage::of("self"));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, credentials) in (0..).zip(devices) {
        let share = reports / count + u64::from(index < reports % count);
        tasks.spawn(publish(broker.clone(), credentials, boot, share, Arc::clone(&committed)));
    }
    let bar = progress(usize::try_from(reports).unwrap_or(usize::MAX), "reports");
    reach(&committed, reports / 2, &mut tasks, &bar).await?;
    let middle = usage();
    reach(&committed, reports, &mut tasks, &bar).await?;
    let seconds = start.elapsed().as_secs_f64();
    let (after, own_after) = (usage(), Usage::of("self"));
    bar.finish_and_clear();
    let cpu = |before: Option<Usage>, after: Option<Usage>| {
        Some((after?.cpu.saturating_sub(before?.cpu)).as_secs_f64() * 1e6 / reports as f64)
    };
    Ok(IngestReport {
        devices: u32::try_from(count).unwrap_or(u32::MAX),
        reports,
        seconds,
        reports_per_second: reports as f64 / seconds,
        server_cpu_us: cpu(before, after),
        generator_cpu_us: cpu(own_before, own_after),
        resident_bytes: [before, middle, after]
            .into_iter()
            .flatten()
            .map(|usage| usage.resident_bytes)
            .collect(),
        counters: Value::Null,
    })
}

async fn stay(
    broker: &Broker,
    devices: Vec<Credentials>,
    connections: u32,
    usage: impl Fn() -> Option<Usage>,
) -> Result<Outcome, Failure> {
    let there = Arc::new(AtomicU64::new(0));
    let before = usage();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    let bar = progress(connections as usize, "connections");
    for (number, credentials) in (1..).zip(devices) {
        tasks.spawn(idle(broker.clone(), credentials, Arc::clone(&there)));
        // No more at once than a listener's queue takes.
        if number % 100 == 0 {
            reach(&there, number, &mut tasks, &bar).await?;
        }
    }
    reach(&there, connections.into(), &mut tasks, &bar).await?;
    let seconds = start.elapsed().as_secs_f64();
    // They are to stay: whoever is thrown out ends the measurement.
    tokio::time::sleep(Duration::from_secs(5)).await;
    check(&mut tasks).await?;
    let after = usage();
    bar.finish_and_clear();
    let grown =
        before.zip(after).map(|(before, after)| after.resident_bytes.saturating_sub(before.resident_bytes));
    let report = IdleReport {
        connections,
        seconds,
        server_bytes_per_connection: grown.map(|grown| grown / u64::from(connections)),
        resident_bytes: [before, after].into_iter().flatten().map(|usage| usage.resident_bytes).collect(),
    };
    let mut text = format!("{} devices connected in {seconds:.1} s and stayed\n", grouped(connections));
    if let (Some(each), [before, after]) = (report.server_bytes_per_connection, &report.resident_bytes[..]) {
        text += &format!(
            "server memory  {} before, {} with them: {} bytes a connection\n",
            mib(*before),
            mib(*after),
            grouped(each)
        );
    }
    Ok(Outcome::new(&report, text))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn ingest_text(report: &IngestReport) -> String {
    let mut text = format!(
        "{} reports of {} devices committed in {:.2} s: {} reports/s\n",
        grouped(report.reports),
        grouped(report.devices),
        report.seconds,
        grouped(report.reports_per_second as u64),
    );
    if let (Some(server), Some(generator)) = (report.server_cpu_us, report.generator_cpu_us) {
        text += &format!(
            "processor time  {server:.1} µs a report in the server, {generator:.1} µs in the devices\n"
        );
    }
    if let [before, middle, after] = report.resident_bytes[..] {
        text += &format!(
            "server memory   {} before, {} in the middle, {} at the end\n",
            mib(before),
            mib(middle),
            mib(after)
        );
    }
    let counter = |name: &str| report.counters[name].as_u64().map_or_else(|| "?".into(), grouped);
    text += &format!(
        "counted         {} applied, {} duplicates, {} malformed\n",
        counter("applied"),
        counter("duplicates"),
        counter("malformed")
    );
    text
}
