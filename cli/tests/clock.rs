//! Clocks that jump: the server's and the devices' time of day goes forward and back by days.

#![cfg(target_os = "linux")]

mod support;

use dunlin_test_servers::FakeClock;
use serde_json::Value;
use support::Bench;
use support::fleet::{Fleet, RUNS};
use support::plane::{Plane, Surroundings, wait_for};

/// Inferences that are counted for any time that the server or a device may have had.
fn counted_ever(plane: &Plane) -> u64 {
    // 1,500 days at most, around the day of the test.
    let today = plane.run(&["stats"])["to"].as_str().expect("a time").to_owned();
    let year: u32 = today[..4].parse().expect("a year");
    let (from, to) = (format!("{}-01-01T00:00:00Z", year - 1), format!("{}-12-31T00:00:00Z", year + 1));
    let summary = plane.run(&["stats", "--from", &from, "--to", &to]);
    let items = summary["items"].as_array().expect("items").iter();
    items.map(|item| item["inferences"].as_u64().expect("a count")).sum()
}

/// The server's day.
fn day(plane: &Plane) -> String {
    let (_, body) = plane.get("/api/v1/status");
    let status: Value = serde_json::from_slice(&body).expect("JSON");
    status["now"].as_str().expect("a time")[..10].to_owned()
}

#[test]
#[ignore = "needs libfaketime"]
fn counts_stay_exact_and_old_ones_stay_there_whatever_the_clocks_show() {
    let bench = Bench::new();
    let clock = |name: &str| FakeClock::new(bench.path(name).as_ref()).expect("a clock");
    let (server, devices) = (clock("server.clock"), clock("devices.clock"));
    let surroundings = Surroundings { variables: server.variables(), ..Surroundings::default() };
    let mut plane = Plane::start_in(surroundings, &bench, "data", &[]);
    let today = day(&plane);
    let fleet = Fleet::start(&bench, &plane, |command| {
        command.envs(devices.variables());
    });
    wait_for("the first counts", || plane.counted().0 > 0);
    let early = plane.counted().0;

    // The server is ahead by more than the minutes are kept, and dies there: its lease ends in ten days.
    server.jump("+10d").expect("written");
    wait_for("the server's jump", || day(&plane) != today);
    let before = counted_ever(&plane);
    wait_for("counts of a server that is ahead", || counted_ever(&plane) > before);
    plane.kill();
    server.jump("-2d").expect("written");
    devices.jump("+20d").expect("written");
    plane.resume();
    let before = counted_ever(&plane);
    wait_for("counts of devices that are ahead", || counted_ever(&plane) > before);
    devices.jump("-20d").expect("written");
    // Background work goes on, though the dead process' lease ends later than any of now: the dead one's sums are
    // taken over.
    wait_for("the dead process' sums", || plane.log().contains("its sums are taken over"));
    server.jump("+0").expect("written");
    wait_for("the server's time", || day(&plane) == today);
    fleet.finish_by(&plane, |plane| {
        assert_eq!(counted_ever(plane), 3 * RUNS);
        assert!(plane.counted().0 >= early, "the statistics by the minute are still there");
    });
    assert!(!plane.log().contains("beyond its retention"), "{}", plane.log());
}
