//! A device that publishes the same report again and again, each under a number of its own, and one that only stays.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_monitor::{FeatureKind, Period, Shape, Window};
use dunlin_protocol::limits::WINDOW;
use dunlin_protocol::{Ack, Envelope, ReportEncoder};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::packet::{self, Packet};

/// Inferences in a report.
const INFERENCES: u32 = 60;
/// Classes of the made-up model.
const CLASSES: usize = 10;
/// Buckets of latencies that a report tells of.
const LATENCIES_US: [u64; 6] = [900, 950, 1_000, 1_050, 1_100, 1_800];
/// Without news for so long, what is not acknowledged is sent again, as devices do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to connect, and the pause between them.
const ATTEMPTS: u32 = 400;
const PAUSE: Duration = Duration::from_millis(250);
/// Longest silence that the broker is told to expect, in seconds.
const KEEP_ALIVE_S: u16 = 600;

/// Where devices connect.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Who a device is.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) device: String,
    pub(crate) password: String,
}

/// The body of a report: a window of a classifier with latencies.
fn report() -> Result<Vec<u8>, String> {
    let shape = Shape { kind: FeatureKind::Classes, counters: CLASSES as u16 };
    let mut window: Window<1, CLASSES> =
        Window::new([0xbe; 32], [shape]).map_err(|error| error.to_string())?;
    window.set_period(Period { start_unix_s: 0, duration_ms: 60_000, closed_ms: 60_000, windows: 1 });
    window.add_inferences(INFERENCES);
    for n in 0..INFERENCES as usize {
        if !window.add_count(0, n % CLASSES, 1) {
            return Err("the window has no such class".into());
        }
        window.record_latency(LATENCIES_US[n % LATENCIES_US.len()]);
    }
    let mut body = [0; 900];
    let len = ReportEncoder::new("bench", &window).next_body(&mut body).map_err(|error| error.to_string())?;
    Ok(body[..len.unwrap_or(0)].to_vec())
}

/// Connects, again and again as devices do: brokers take so many connections a second from one address, and end others.
async fn connect(
    broker: &Broker,
    credentials: &Credentials,
) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let mut attempt = 1;
    loop {
        match connect_once(broker, credentials).await {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Connects and subscribes to what the control plane sends.
async fn connect_once(
    broker: &Broker,
    credentials: &Credentials,
) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let refused = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
    let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1024, reader);
    writer.write_all(&packet::connect(&credentials.device, &credentials.password, KEEP_ALIVE_S)).await?;
    match packet::read(&mut reader).await? {
        Packet::Connected(0) => {}
        Packet::Connected(code) => return Err(refused(format!("the broker refuses with code {code}"))),
        _ => return Err(refused("the broker does not answer CONNECT".into())),
    }
    writer.write_all(&packet::subscribe(&format!("d/{}/down/#", credentials.device))).await?;
    Ok((reader, writer))
}

/// Publishes reports until the control plane has committed so many; counts them as they are.
pub(crate) async fn publish(
    broker: Broker,
    credentials: Credentials,
    boot: u64,
    reports: u64,
    committed: Arc<AtomicU64>,
) -> io::Result<()> {
    let body = report().map_err(io::Error::other)?;
    let topic = format!("d/{}/up/report", credentials.device);
    let (mut reader, mut writer) = connect(&broker, &credentials).await?;
    // Everything below `base` is committed; everything below `next` was sent.
    let (mut base, mut next) = (0_u64, 0_u64);
    let mut out = Vec::new();
    let mut message = [0; 1024];
    while base < reports {
        // In bundles: a packet at a time would measure system calls.
        let room = (base + WINDOW).min(reports);
        if next < room && (room - next >= WINDOW / 2 || room == reports) {
            for seq in next..room {
                let envelope = Envelope { boot, seq, oldest: base, age_s: 0 };
                let len = envelope.encode(&body, &mut message).map_err(io::Error::other)?;
                packet::publish(&mut out, &topic, (seq % 65_535) as u16 + 1, &message[..len]);
            }
            next = room;
        }
        if !out.is_empty() {
            writer.write_all(&out).await?;
            out.clear();
        }
        let Ok(packet) = tokio::time::timeout(PATIENCE, packet::read(&mut reader)).await else {
            next = base;
            continue;
        };
        let Packet::Message { topic, id, payload } = packet? else { continue };
        if let Some(id) = id {
            packet::acknowledge(&mut out, id);
        }
        if !topic.ends_with("/down/ack") {
            continue;
        }
        let ack = Ack::decode(&payload).map_err(io::Error::other)?;
        if ack.boot == boot && ack.base > base {
            let now = ack.base.min(reports);
            committed.fetch_add(now - base, Ordering::Relaxed);
            base = now;
        }
    }
    Ok(())
}

/// Connects and stays until it is dropped; tells when it is there.
pub(crate) async fn idle(broker: Broker, credentials: Credentials, there: Arc<AtomicU64>) -> io::Result<()> {
    let (mut reader, mut writer) = connect(&broker, &credentials).await?;
    loop {
        match packet::read(&mut reader).await? {
            Packet::Subscribed(true) => {
                there.fetch_add(1, Ordering::Relaxed);
            }
            Packet::Subscribed(false) => {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the broker refuses the subscription",
                ));
            }
            Packet::Message { id: Some(id), .. } => {
                let mut out = Vec::new();
                packet::acknowledge(&mut out, id);
                writer.write_all(&out).await?;
            }
            _ => {}
        }
    }
}
