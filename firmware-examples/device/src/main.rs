//! The device as a process on the host.
//!
//! ```console
//! $ dunlin-device --broker 127.0.0.1:1883 --device pump-7 --password … --artifact kws.dunlin --runs 1000
//! ```
//! Prints one line of JSON with what was counted in closed windows, once everything is acknowledged.

use std::error::Error;

use dunlin_device::host::{Done, Options, device};

const USAGE: &str = "dunlin-device --broker IP:PORT --device ID --artifact FILE.dunlin
    [--password TEXT] [--slot NAME] [--inputs RAW] [--runs N] [--every MS] [--window MS]

RAW holds the model's first input again and again, as the model takes it; random bytes without it.
The password is also read from DUNLIN_PASSWORD.";

/// The value of an option, if it is there.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
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
    let options = Options {
        broker: broker.parse().map_err(|_| format!("--broker: {broker:?} is no IP:PORT"))?,
        device: id,
        password: option("--password").or_else(|| std::env::var("DUNLIN_PASSWORD").ok()),
        artifact: std::fs::read(&path)?,
        name: path,
        slot: option("--slot").unwrap_or_else(|| "model".into()),
        inputs: option("--inputs").map_or(Ok(Vec::new()), std::fs::read)?,
        runs: number("--runs", u64::MAX)?,
        every_ms: number("--every", 100)?,
        window_ms: u32::try_from(number("--window", 60_000)?)?,
    };
    let Done { totals, bytes } = device(options).await?;
    println!(
        "{{\"inferences\": {}, \"failures\": {}, \"windows\": {}, \"bytes\": {bytes}}}",
        totals.inferences, totals.failures, totals.windows
    );
    Ok(())
}
