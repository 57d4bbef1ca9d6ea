//! A disk that is full: the control plane says so, goes on, and acknowledges nothing that it could not store.

#![cfg(target_os = "linux")]

mod support;

use support::Bench;
use support::disk::SmallDisk;
use support::fleet::Fleet;
use support::plane::{Plane, wait_for};

/// Fills the disk under a server that real agents report to, and waits until the server has noticed.
fn filled(bench: &Bench) -> (SmallDisk, Plane, Fleet) {
    let disk = SmallDisk::mount(bench, "data", 16);
    let mut plane = Plane::start_in(disk.surroundings(), bench, "data", &[]);
    let fleet = Fleet::start(bench, &plane, |_| {});
    wait_for("the first counts", || plane.counted().0 > 0);
    disk.fill();
    wait_for("a server that is not ready", || plane.readiness().0 == 503);
    let (_, said) = plane.readiness();
    assert!(said.contains("the disk of the database is full"), "{said}");
    assert!(plane.log().contains("telemetry cannot be committed"), "{}", plane.log());
    assert!(plane.is_alive());
    (disk, plane, fleet)
}

#[test]
fn a_full_disk_stops_the_counting_until_there_is_room_again() {
    let bench = Bench::new();
    let (disk, mut plane, fleet) = filled(&bench);
    // What is there can be read; what cannot be stored is refused with the reason.
    assert!(plane.counted().0 > 0);
    plane.try_run(&["fleet", "create", "more"]).failure(6, &["the disk of the database is full"]);
    disk.make_room();
    wait_for("a server that is ready", || plane.readiness().0 == 200);
    assert!(plane.is_alive());
    fleet.finish(&plane);
    plane.run(&["fleet", "create", "more"]);
}

#[test]
fn what_is_acknowledged_on_a_full_disk_survives_a_kill() {
    let bench = Bench::new();
    let (disk, mut plane, fleet) = filled(&bench);
    let counted = plane.counted().0;
    plane.kill();
    disk.make_room();
    plane.resume();
    assert!(plane.counted().0 >= counted);
    fleet.finish(&plane);
}
