//! Prints the RAM that monitoring takes: `cargo run -p dunlin-monitor --example sizes`.

use dunlin_monitor::{Monitor, Ring, Window, window_bytes};

fn row<const FEATURES: usize, const COUNTERS: usize>(what: &str) {
    let window = size_of::<Window<FEATURES, COUNTERS>>();
    assert_eq!(window, window_bytes(FEATURES, COUNTERS));
    let (four, eight) = (size_of::<Ring<4, FEATURES, COUNTERS>>(), size_of::<Ring<8, FEATURES, COUNTERS>>());
    let monitor = size_of::<Monitor<'static, FEATURES, COUNTERS>>();
    println!("{what:44} {FEATURES:8} {COUNTERS:8} {window:7} {monitor:7} {four:10} {eight:10}");
}

fn main() {
    println!(
        "{:44} {:>8} {:>8} {:>7} {:>7} {:>10} {:>10}",
        "bytes of RAM", "features", "counters", "window", "monitor", "ring of 4", "ring of 8"
    );
    row::<0, 0>("no baseline: counts, failures, latency");
    row::<1, 64>("one numeric feature");
    row::<3, 140>("input, class of 12, confidence");
    row::<10, 640>("ten numeric features");
    row::<128, 16_384>("the largest baseline");
}
