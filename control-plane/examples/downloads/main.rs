//! Many devices fetch a model at once: time, throughput, and the server's memory.
//!
//! `cargo run --release -p dunlin-control-plane --example downloads -- [--devices 1000] [--bytes 300000] [--slow 500]
//! [--mqtt 0]`
//!
//! A `dunlin serve` of its own runs in a process of its own (SQLite, a folder, HTTP without TLS, the default limits). The
//! devices are made, an artifact of that length is uploaded, signed and assigned to all of them; each device logs in over
//! MQTT and takes the address from its desired state. Then all fetch at once, each on a connection of its own, and wait
//! when they are told to. What is measured ends when the last one has every byte and the digest is right. Then `--mqtt` of
//! them fetch it over MQTT, piece by piece, which the server keeps to 1,000 pieces a second. At last some fetch it over
//! HTTP and take nothing for a while: the server's memory meanwhile is what slow readers cost.

mod client;
mod fleet;
mod owner;
mod pieces;
mod server;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::{Tally, fetch, take_nothing};
use fleet::Fleet;
use futures_util::future::join_all;
use server::{Served, mib};

/// How long the slow readers take nothing: longer than the server needs to fill what there is to fill. (With artifacts of
/// less than a few megabytes that is the kernel's buffers, and nothing waits in the server.)
const REST: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(server::COMMAND) {
        return server::serve().await;
    }
    let devices = option("--devices", 1_000).max(1);
    let bytes = option("--bytes", 300_000);
    let slow = option("--slow", 500).min(devices);
    let mqtt = option("--mqtt", 0).min(devices);
    let served = Served::start();
    let artifact = owner::artifact(bytes);
    let fleet = Fleet::create(&served, devices, &artifact).await;
    let orders = fleet.orders().await;

    println!("HTTP: {devices} devices fetch {} bytes each", artifact.len());
    let tally = Tally::default();
    measure(&served, artifact.len(), &tally, orders.iter().map(|order| fetch(order, &tally))).await;
    if mqtt > 0 {
        println!("MQTT: {mqtt} devices fetch {} bytes each", artifact.len());
        let tally = Tally::default();
        let pairs = fleet.devices.iter().zip(&orders).take(mqtt);
        let fetching = pairs.map(|(device, order)| pieces::fetch(device, order, &tally));
        measure(&served, artifact.len(), &tally, fetching).await;
    }

    served.forget_peak();
    let before = served.usage();
    let resting = orders.iter().take(slow).map(|order| take_nothing(order, REST));
    let whole = join_all(resting).await.into_iter().filter(|is_whole| *is_whole).count();
    let after = served.usage();
    println!(
        "HTTP: {slow} readers take nothing for {} s, then all; {whole} digests are right",
        REST.as_secs()
    );
    let each = after.peak.saturating_sub(before.resident) / (slow.max(1) as u64);
    println!(
        "  its memory     {} before, {} at most: {each} bytes a reader",
        mib(before.resident),
        mib(after.peak)
    );
}

/// Runs downloads at once and prints what they take. Each ends when every digest is right.
async fn measure(
    served: &Served,
    bytes: usize,
    tally: &Tally,
    downloads: impl Iterator<Item = impl Future<Output = ()>>,
) {
    served.forget_peak();
    let (before, begin) = (served.usage(), Instant::now());
    let timed = downloads.map(async |download| {
        download.await;
        begin.elapsed().as_secs_f64()
    });
    let mut times = join_all(timed).await;
    let (took, after) = (begin.elapsed().as_secs_f64(), served.usage());
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(took);
    println!("  all have it    after {took:.2} s: {:.1} MB/s", (times.len() * bytes) as f64 / took / 1e6);
    println!("  some have it   half after {:.2} s, 99 % after {:.2} s", at(50), at(99));
    let (waits, lost) = (tally.waits.load(Ordering::Relaxed), tally.lost.load(Ordering::Relaxed));
    println!("  told to wait   {waits} times; {lost} times there was no answer");
    println!("  server         {:.2} s of CPU time", after.cpu.saturating_sub(before.cpu).as_secs_f64());
    println!("  its memory     {} before, {} at most", mib(before.resident), mib(after.peak));
}

/// The number that follows a flag on the command line.
fn option(flag: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments.nth(1).map_or(default, |text| text.parse().expect("a number"))
}
