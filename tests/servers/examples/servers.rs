//! Starts a private PostgreSQL with an empty database and a private Mosquitto, prints where they are, and keeps them
//! until its input ends: for measurements and for trying things out.
//!
//! ```text
//! cargo run -p dunlin-test-servers --example servers
//! ```

use std::io::{self, Read as _};

use anyhow::Result;
use dunlin_test_servers::{Mosquitto, Postgres};

fn main() -> Result<()> {
    let postgres = Postgres::start()?;
    let broker = Mosquitto::start("")?;
    println!("--database-url {} --broker-url mqtt://127.0.0.1:{}", postgres.create("dunlin")?, broker.port());
    eprintln!("They run until this program's input ends (Ctrl-D).");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
