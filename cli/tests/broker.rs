//! Mosquitto set up as the documentation says: certificates, and each device has its own topics only.

#![cfg(unix)]

mod support;

use std::path::Path;

use dunlin_test_servers::Mosquitto;
use support::Bench;
use support::certificates::{Authority, IdentityFile};
use support::fleet::{Fleet, RUNS};
use support::message::{message, report};
use support::mqtt::Raw;
use support::plane::{Plane, wait_for};

/// The block of `docs/brokers.md` that begins with `# NAME`.
fn documented(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/brokers.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let block = page.split("```\n").find(|block| block.starts_with(&format!("# {name}\n")));
    block.expect("a block of that name").to_owned()
}

/// A broker with the documented configuration, its files in its own folder.
fn broker(bench: &Bench, authority: &Authority) -> Mosquitto {
    let [chain, key] = authority.issue(bench, "server");
    Mosquitto::start_with(|folder| {
        for (from, to) in
            [(bench.path("ca.pem"), "device-ca.pem"), (chain, "server.pem"), (key, "server.key")]
        {
            std::fs::copy(from, folder.join(to))?;
        }
        std::fs::write(folder.join("device-ca.crl"), authority.empty_list())?;
        std::fs::write(folder.join("acl"), documented("acl"))?;
        let folder = folder.to_str().expect("UTF-8");
        // The test's broker has its own listener, limits and persistence.
        let own = ["per_listener_settings", "listener", "max_queued_messages", "persistence"];
        let lines = documented("mosquitto.conf");
        let lines = lines.lines().filter(|line| !own.iter().any(|word| line.starts_with(word)));
        Ok(lines.map(|line| line.replace("/etc/mosquitto", folder) + "\n").collect())
    })
    .expect("Mosquitto")
}

#[test]
#[ignore = "needs Mosquitto"]
fn a_device_reaches_its_own_topics_only_with_the_documented_rules() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "ca");
    let broker = broker(&bench, &authority);
    let [chain, key] = authority.issue(&bench, "control-plane");
    let [ca, ca_key] = ["ca.pem", "ca.key"].map(|name| bench.path(name));
    let url = format!("mqtts://localhost:{}", broker.port());
    let more = [
        ["--broker-url", &url],
        ["--broker-ca", &ca],
        ["--broker-group", "a-name-that-nobody-guesses"],
        ["--broker-client-certificate", &chain],
        ["--broker-client-key", &key],
        ["--devices-ca-certificate", &ca],
        ["--devices-ca-key", &ca_key],
    ];
    let plane = Plane::start(&bench, "data", more.as_flattened());
    wait_for("the connection to the broker", || plane.readiness().0 == 200);
    // Real agents with certificates: everything is counted.
    Fleet::start(&bench, &plane, |_| {}).finish(&plane);

    let [honest, liar] = ["pump-1", "pump-2"].map(|device| IdentityFile::of(&bench, device).tls(&ca));
    let port = broker.port();
    let (mut device, code) = Raw::connect_tls(port, "pump-1", &honest).expect("welcome");
    assert_eq!(code, 0);
    // Whatever client id it claims: it is itself, and the other one's connection goes on.
    let (mut impostor, code) = Raw::connect_tls(port, "pump-1", &liar).expect("welcome");
    assert_eq!(code, 0);
    // Another device's topics: nothing goes there, nothing comes from there.
    impostor.publish(1, "d/pump-1/up/report", &message(0, 0, &report(1000))).expect("sent");
    impostor.acknowledged(1).expect("Mosquitto says nothing to the liar");
    assert_eq!(impostor.subscribe("d/pump-2/down/#").expect("an answer"), 1);
    for topic in ["d/pump-1/down/#", "d/+/up/#", "$share/dunlin/d/+/up/#"] {
        impostor.subscribe(topic).expect("an answer");
    }
    impostor.publish(2, "d/pump-2/up/report", &message(0, 0, &report(1))).expect("sent");
    device.publish(1, "d/pump-1/up/report", &message(0, 0, &report(1))).expect("sent");
    device.acknowledged(1).expect("its connection is still there");
    // Mosquitto takes every subscription and checks what it delivers: a share of its own name takes nothing away.
    wait_for("both reports", || plane.counted().0 >= 3 * RUNS + 2);
    assert_eq!(plane.counted(), (3 * RUNS + 2, 0));

    // Blocked: the revocation list keeps it out of the broker.
    let identity = IdentityFile::of(&bench, "pump-3").tls(&ca);
    assert!(Raw::connect_tls(port, "pump-3", &identity).is_ok());
    plane.run(&["device", "block", "pump-3", "--reason", "stolen"]);
    let (status, list) = plane.get("/api/v1/ca/crl");
    assert_eq!(status, 200);
    std::fs::write(broker.folder().join("device-ca.crl"), list).expect("written");
    broker.reload().expect("told");
    wait_for("the broker's refusal", || Raw::connect_tls(port, "pump-3", &identity).is_err());
    assert!(Raw::connect_tls(port, "pump-2", &liar).is_ok(), "the others come in");
}
