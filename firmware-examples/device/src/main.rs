//! The device as a process on the host.
//!
//! ```console
//! $ dunlin-device --broker 127.0.0.1:1883 --device pump-7 --password … --artifact kws.dunlin --runs 1000
//! ```
//! Prints one line of JSON with what was counted in closed windows and which model ran last, once everything is
//! acknowledged. Ctrl-C ends it like the last run.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_device::host::{Done, Options, device};

const USAGE: &str = "dunlin-device --broker IP:PORT --device ID --artifact FILE.dunlin
    [--password TEXT] [--slot NAME] [--hardware CLASS] [--flash DIR] [--root FILE]
    [--inputs RAW] [--runs N] [--every MS] [--window MS]

FILE.dunlin is built in: it runs until the control plane assigns something else to the slot. With --root, a file of
`dunlin keys export`, assigned models are installed, into flash that is kept in DIR.
RAW holds the model's first input again and again, as the model takes it; random bytes without it.
The password is also read from DUNLIN_PASSWORD.";

/// The value of an option, if it is there.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// The content of an option's file, if it is there.
fn file(name: &str) -> Result<Option<Vec<u8>>, String> {
    let read = |path: String| std::fs::read(&path).map_err(|error| format!("{name} {path}: {error}"));
    option(name).map(read).transpose()
}

fn number(name: &str, default: u64) -> Result<u64, String> {
    option(name)
        .map_or(Ok(default), |text| text.parse().map_err(|_| format!("{name}: {text:?} is no number")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (Some(broker), Some(id), Some(path)) = (option("--broker"), option("--device"), option("--artifact"))
    else {
        return Err(USAGE.into());
    };
    let broker = broker.parse().map_err(|_| format!("--broker: {broker:?} is no IP:PORT"))?;
    let artifact = file("--artifact")?.unwrap_or_default();
    let defaults = Options::new(broker, &id, &path, artifact);
    let options = Options {
        password: option("--password").or_else(|| std::env::var("DUNLIN_PASSWORD").ok()),
        slot: option("--slot").unwrap_or_else(|| defaults.slot.clone()),
        hardware: option("--hardware").unwrap_or_else(|| defaults.hardware.clone()),
        flash: option("--flash").map(Into::into),
        root: file("--root")?,
        inputs: file("--inputs")?.unwrap_or_default(),
        runs: number("--runs", defaults.runs)?,
        every_ms: number("--every", defaults.every_ms)?,
        window_ms: u32::try_from(number("--window", defaults.window_ms.into())?)?,
        ..defaults
    };
    let stop = Arc::clone(&options.stop);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let Done { totals, bytes, program_bytes, digest, version } = device(options).await?;
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let version = version.map_or("null".to_owned(), |version| version.to_string());
    println!(
        "{{\"inferences\": {}, \"failures\": {}, \"windows\": {}, \"model\": \"{digest}\", \"version\": {version}, \
         \"bytes\": {bytes}, \"program_bytes\": {program_bytes}}}",
        totals.inferences, totals.failures, totals.windows
    );
    Ok(())
}
