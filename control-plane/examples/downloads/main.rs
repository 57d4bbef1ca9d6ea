//! Many devices fetch a model at once: time, throughput, and the server's memory.
//!
//! `cargo run --release -p dunlin-control-plane --example downloads -- [--devices 1000] [--bytes 300000] [--slow 500]`
//!
//! A `dunlin serve` of its own runs in a process of its own (SQLite, a folder, HTTP without TLS, the default limits). The
//! devices are made, an artifact of that length is uploaded, signed and assigned to all of them; each device logs in over
//! MQTT and takes the address from its desired state. Then all fetch at once, each on a connection of its own, and wait
//! when they are told to. What is measured ends when the last one has every byte and the digest is right. Afterwards some
//! fetch it again and take nothing for a while: the server's memory meanwhile is what slow readers cost.

mod client;
mod fleet;
mod owner;
mod server;

use std::time::{Duration, Instant};

use client::{Tally, fetch, take_nothing};
use fleet::Fleet;
use futures_util::future::join_all;
use server::{Served, Usage};

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
    let served = Served::start();
    let artifact = owner::artifact(bytes);
    let fleet = Fleet::create(&served, devices, &artifact).await;
    let orders = fleet.orders().await;

    served.forget_peak();
    let before = served.usage();
    let (tally, begin) = (Tally::default(), Instant::now());
    let fetching = orders.iter().map(async |order| {
        fetch(order, &tally).await;
        begin.elapsed()
    });
    let mut times = join_all(fetching).await;
    let (took, after) = (begin.elapsed(), served.usage());
    times.sort();
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
    println!(
        "{devices} devices fetched {} bytes each in {}: {:.0} MB/s; every digest is right",
        artifact.len(),
        seconds(took),
        (devices * artifact.len()) as f64 / took.as_secs_f64() / 1e6
    );
    println!(
        "  done after     {} (half), {} (99 %)",
        seconds(at(50).unwrap_or(took)),
        seconds(at(99).unwrap_or(took))
    );
    let (waits, lost) = (tally.waits.into_inner(), tally.lost.into_inner());
    println!("  told to wait   {waits} times; {lost} connections lost");
    println!("  server         {} of CPU time", seconds(after.cpu.saturating_sub(before.cpu)));
    let mib = Usage::mib;
    println!("  its memory     {} before, {} at most", mib(before.resident), mib(after.peak));

    served.forget_peak();
    let before = served.usage();
    let resting = orders.iter().take(slow).map(|order| take_nothing(order, REST));
    let whole = join_all(resting).await.into_iter().filter(|is_whole| *is_whole).count();
    let after = served.usage();
    println!("{slow} readers that take nothing for {}, then all; {whole} digests are right", seconds(REST));
    let each = after.peak.saturating_sub(before.resident) / (slow.max(1) as u64);
    println!(
        "  its memory     {} before, {} at most: {each} bytes a reader",
        mib(before.resident),
        mib(after.peak)
    );
}

/// The number that follows a flag on the command line.
fn option(flag: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments.nth(1).map_or(default, |text| text.parse().expect("a number"))
}
