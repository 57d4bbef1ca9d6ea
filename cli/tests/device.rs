//! The firmware example against the real control plane: a device without std and without a disk, made by an operator
//! with a password, runs a real model while the server is killed.

#![cfg(unix)]

mod support;

use dunlin_device::host::{Done, Options, device};
use support::fleet::{RUNS, counted_in_full};
use support::plane::{Plane, digits, wait_for};
use support::{Bench, Npy};

#[test]
fn a_device_without_std_is_counted_exactly_while_the_server_is_killed() {
    let bench = Bench::new();
    let (artifact, input) = digits(&bench);
    let mut plane = Plane::start(&bench, "data", &[]);
    plane.run(&["model", "push", &artifact, "--name", "digits"]);
    plane.fleet("pumps");
    let broker = ([127, 0, 0, 1], plane.mqtt_port).into();
    let bytes = std::fs::read(&artifact).expect("an artifact");
    let options = Options {
        password: Some(plane.device("pumps", "pump-1")),
        slot: "digits".into(),
        inputs: Npy::read(&input).bytes,
        runs: RUNS,
        every_ms: 5,
        window_ms: 100,
        ..Options::new(broker, "pump-1", &artifact, bytes)
    };
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(device(options)).map_err(|error| error.to_string()).expect("it runs")
    });
    wait_for("the first counts", || plane.counted().0 > 0);
    for _ in 0..2 {
        let before = plane.counted().0;
        plane.kill();
        plane.resume();
        wait_for("more counts", || plane.counted().0 > before || running.is_finished());
    }
    let Done { totals, .. } = running.join().expect("it ends");
    assert_eq!((totals.inferences, totals.failures), (RUNS, 0));
    // The device ends when everything is acknowledged, and that is after the commit.
    assert_eq!(plane.counted(), (RUNS, 0));

    counted_in_full(&plane, RUNS);
    let shown = plane.run(&["device", "show", "pump-1"]);
    assert_eq!(shown["slots"][0]["status"], "running", "{shown}");
    assert_eq!(shown["slots"][0]["version"], 1, "{shown}");
}
