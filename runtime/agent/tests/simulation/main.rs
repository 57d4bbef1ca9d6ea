//! A fleet in one process: devices' state machines against a pure server, over a network that loses, doubles, delays,
//! reorders and cuts, with devices that restart and a server that crashes and forgets what it had not committed.
//!
//! Everything follows from a seed. A seed that fails is printed; run it alone with
//! `DUNLIN_SEED=… cargo test -p dunlin-agent --test simulation -- --nocapture`, and more seeds with
//! `DUNLIN_SEEDS=20000`.

mod device;
mod random;
mod server;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// Seeds that one run of the tests tries.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn counts_are_exact_whatever_the_network_and_the_power_do() {
    if let Some(seed) = number("DUNLIN_SEED") {
        println!("{:#?}", World::run(seed));
        return;
    }
    let seeds = number("DUNLIN_SEEDS").unwrap_or(SEEDS);
    let mut total = world::Outcome::default();
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| World::run(seed))) {
            Ok(outcome) => total.add(&outcome),
            Err(_) => panic!("seed {seed} fails: DUNLIN_SEED={seed} shows it alone"),
        }
    }
    println!("{seeds} seeds: {total:#?}");
    total.assert_that_everything_happened();
}
