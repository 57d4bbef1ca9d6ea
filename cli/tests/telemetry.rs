//! The telemetry loop with everything real: `dunlin serve`, `dunlin agent` with a real model, the API through the
//! commands. In every fault the counts at the end are exact.

#![cfg(unix)]

mod support;

use dunlin_test_servers::{Mosquitto, Postgres};
use support::Bench;
use support::fleet::{Fleet, RUNS};
use support::message::{message, report};
use support::mqtt::Raw;
use support::plane::{Plane, wait_for};

/// Runs real agents, does something to the servers in the middle, and compares the devices' own counts with what the
/// control plane has.
fn loop_is_exact(bench: &Bench, planes: &mut [Plane], fault: impl FnOnce(&mut [Plane])) {
    let last = planes.len() - 1;
    let fleet = Fleet::start(bench, &planes[last], |_| {});
    wait_for("the first counts", || planes[last].counted().0 > 0);
    fault(planes);
    fleet.finish(&planes[last]);
}

#[test]
fn devices_are_counted_exactly_with_nothing_installed() {
    let bench = Bench::new();
    let mut planes = [Plane::start(&bench, "data", &[])];
    loop_is_exact(&bench, &mut planes, |_| {});
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_ingest_loses_and_doubles_nothing() {
    let bench = Bench::new();
    let mut planes = [Plane::start(&bench, "data", &[])];
    loop_is_exact(&bench, &mut planes, |planes| {
        for _ in 0..3 {
            let before = planes[0].counted().0;
            planes[0].kill();
            planes[0].resume();
            wait_for("more counts", || planes[0].counted().0 > before || planes[0].counted().0 == 3 * RUNS);
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL and Mosquitto"]
fn two_servers_share_a_broker_and_a_database_and_one_is_killed() {
    let bench = Bench::new();
    let postgres = Postgres::start().expect("PostgreSQL");
    let database = postgres.create("loop").expect("a database");
    let broker = Mosquitto::start("").expect("Mosquitto");
    let broker_url = format!("mqtt://127.0.0.1:{}", broker.port());
    let artifacts = format!("file:{}", bench.path("artifacts"));
    let more = ["--database-url", &database, "--broker-url", &broker_url, "--artifacts-url", &artifacts];
    let first = Plane::start(&bench, "one", &more);
    // Processes on one database share the authority that signs devices' certificates.
    let [certificate, key] = ["one/device-ca.pem", "one/device-ca.key"].map(|name| bench.path(name));
    let authority = ["--devices-ca-certificate", &certificate, "--devices-ca-key", &key];
    let second = Plane::start(&bench, "two", &[&more[..], &authority].concat()).with_token_of(&first);
    loop_is_exact(&bench, &mut [first, second], |planes| planes[0].kill());
}

#[test]
#[ignore = "needs PostgreSQL and Mosquitto"]
fn broker_and_database_restart_in_the_middle() {
    let bench = Bench::new();
    let mut postgres = Postgres::start().expect("PostgreSQL");
    let database = postgres.create("loop").expect("a database");
    let mut broker = Mosquitto::start("").expect("Mosquitto");
    let broker_url = format!("mqtt://127.0.0.1:{}", broker.port());
    let plane = Plane::start(&bench, "data", &["--database-url", &database, "--broker-url", &broker_url]);
    loop_is_exact(&bench, &mut [plane], |_| {
        broker.kill().expect("killed");
        broker.resume().expect("back");
        postgres.kill().expect("killed");
        postgres.resume().expect("back");
    });
}

#[test]
fn doubled_reordered_and_hostile_messages_change_no_count() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    plane.fleet("pumps");
    let (password, other) = (plane.device("pumps", "pump-1"), plane.device("pumps", "pump-2"));
    let bodies: Vec<Vec<u8>> = (1..=20).map(report).collect();
    let total = (1..=20).sum::<u64>();

    // Backwards, then all of it again on another connection, as a device that saw no acknowledgement does.
    for round in 0..2 {
        let (mut device, code) =
            Raw::connect(plane.mqtt_port, "pump-1", "pump-1", &password).expect("welcome");
        assert_eq!(code, 0);
        for (seq, body) in bodies.iter().enumerate().rev() {
            let id = u16::try_from(seq).expect("small") + 1;
            device.publish(id, "d/pump-1/up/report", &message(seq as u64, 0, body)).expect("sent");
        }
        device.acknowledged(bodies.len()).expect("acknowledged");
        // An acknowledgement means committed: what is read now is already exact.
        assert_eq!(plane.counted(), (total, 0), "round {round}");
    }

    // Rubbish is acknowledged, counted and stops nothing.
    let (mut device, _) = Raw::connect(plane.mqtt_port, "pump-1", "pump-1", &password).expect("welcome");
    device.publish(1, "d/pump-1/up/report", b"rubbish").expect("sent");
    device.publish(2, "d/pump-1/up/report", &message(20, 0, b"rubbish")).expect("sent");
    device.publish(3, "d/pump-1/up/report", &message(21, 20, &bodies[0])).expect("sent");
    device.acknowledged(3).expect("acknowledged");
    assert_eq!(plane.counted(), (total + 1, 0));

    // Another device's topic: the connection ends, nothing is counted.
    let (mut impostor, code) = Raw::connect(plane.mqtt_port, "pump-2", "pump-2", &other).expect("welcome");
    assert_eq!(code, 0);
    impostor.publish(1, "d/pump-1/up/report", &message(22, 20, &bodies[0])).expect("sent");
    assert!(impostor.acknowledged(1).is_err(), "it is thrown out");
    // Another device's client id, with its own password; and with its own name.
    for user in ["pump-1", "pump-2"] {
        let refused = Raw::connect(plane.mqtt_port, "pump-1", user, &other);
        assert!(refused.is_err() || refused.is_ok_and(|(_, code)| code != 0), "{user}");
    }
    assert_eq!(plane.counted(), (total + 1, 0));

    // A blocked device is out, and comes in again when it may.
    plane.run(&["device", "block", "pump-1", "--reason", "stolen"]);
    wait_for("the end of the blocked device's connection", || device.read().is_err());
    let refused = Raw::connect(plane.mqtt_port, "pump-1", "pump-1", &password);
    assert!(refused.is_err() || refused.is_ok_and(|(_, code)| code != 0));
    plane.run(&["device", "unblock", "pump-1"]);
    let (mut device, code) = Raw::connect(plane.mqtt_port, "pump-1", "pump-1", &password).expect("welcome");
    assert_eq!(code, 0);
    device.publish(1, "d/pump-1/up/report", &message(22, 20, &bodies[1])).expect("sent");
    device.acknowledged(1).expect("acknowledged");
    assert_eq!(plane.counted(), (total + 3, 0));

    let said = plane.run(&["audit", "--kind", "device", "--id", "pump-1"]);
    let actions: Vec<&str> =
        said.as_array().expect("a list").iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["device.unblock", "device.block", "device.create"]);
    plane.try_run(&["device", "show", "nobody"]).failure(4, &["nobody"]);
    plane
        .try_run(&["device", "create", "--id", "pump-1", "--fleet", "pumps", "--hardware", "x"])
        .failure(5, &["pump-1"]);
}

#[test]
fn a_device_that_floods_does_not_keep_others_from_counting() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    plane.fleet("pumps");
    let (loud, calm) = (plane.device("pumps", "loud"), plane.device("pumps", "calm"));
    let port = plane.mqtt_port;
    let body = report(1);
    let flooded = body.clone();
    let flood = std::thread::spawn(move || {
        let (mut device, _) = Raw::connect(port, "loud", "loud", &loud).expect("welcome");
        // The same message for ever, without reading an acknowledgement: until it is thrown out or held back.
        for n in 0..200_000_u32 {
            let id = u16::try_from(n % 60_000).expect("small") + 1;
            if device.publish(id, "d/loud/up/report", &message(0, 0, &flooded)).is_err() {
                break;
            }
        }
    });
    let (mut device, _) = Raw::connect(port, "calm", "calm", &calm).expect("welcome");
    for seq in 0..30 {
        device.publish(seq + 1, "d/calm/up/report", &message(seq.into(), seq.into(), &body)).expect("sent");
        device.acknowledged(1).expect("acknowledged");
    }
    let summary = plane.run(&["stats"]);
    let inferences = summary["items"][0]["inferences"].as_u64().expect("a count");
    assert!((30..=31).contains(&inferences), "30 of one, at most one of the other: {summary}");
    drop(plane);
    flood.join().expect("the flood ends with the server");
}
