//! TLS everywhere: HTTPS, MQTT with certificates on both sides, and what a device's certificate is good for.

#![cfg(unix)]

mod support;

use support::Bench;
use support::certificates::{Authority, IdentityFile};
use support::fleet::Fleet;
use support::message::{message, report};
use support::mqtt::Raw;
use support::plane::{AgentProcess, Plane, Surroundings, digits, wait_for};

/// A control plane that speaks nothing but TLS and lets devices with certificates in; and whom its clients trust.
fn secured(bench: &Bench, more: &[&str]) -> (Plane, String) {
    let [chain, key] = Authority::new(bench, "ca").issue(bench, "server");
    let ca = bench.path("ca.pem");
    let arguments = [
        &["--http-tls-certificate", &chain, "--http-tls-key", &key][..],
        &["--mqtt-tls-certificate", &chain, "--mqtt-tls-key", &key],
        &["--mqtt-client-certificates", "required", "--devices-server-ca", &ca],
        more,
    ];
    let variables = vec![("SSL_CERT_FILE".to_owned(), ca.clone())];
    let surroundings = Surroundings { variables, ..Surroundings::default() };
    (Plane::start_in(surroundings, bench, "data", &arguments.concat()), ca)
}

/// Runs one device so often; what it says at its end.
fn agent(bench: &Bench, plane: &Plane, claim: &str, device: &str, runs: u64, patience: &str) -> AgentProcess {
    let (artifact, input) = digits(bench);
    let mut command = AgentProcess::command(bench, plane, claim, device, (&artifact, &input), runs);
    command.args(["--ca", &bench.path("ca.pem"), "--patience", patience]);
    AgentProcess::start(command)
}

#[test]
fn devices_with_certificates_are_counted_exactly_while_the_server_is_killed() {
    let bench = Bench::new();
    let (mut plane, ca) = secured(&bench, &[]);
    let fleet = Fleet::start(&bench, &plane, |command| {
        command.args(["--ca", &ca]);
    });
    wait_for("the first counts", || plane.counted().0 > 0);
    plane.kill();
    plane.resume();
    fleet.finish(&plane);
    // Without TLS, and without a certificate, nobody comes in.
    assert!(plane.http().starts_with("https://"), "{}", plane.http());
    assert!(Raw::connect(plane.mqtt_port, "pump-1", "pump-1", "").is_err());
    assert!(IdentityFile::of(&bench, "pump-1").pair()[0].contains("BEGIN CERTIFICATE"));
}

#[test]
fn what_a_device_with_an_expired_certificate_keeps_is_counted_when_it_has_a_new_one() {
    let bench = Bench::new();
    let (plane, _) = secured(&bench, &[]);
    let claim = plane.fleet("pumps");
    let (device, run) = ("pump-1", |runs, patience| agent(&bench, &plane, &claim, "pump-1", runs, patience));
    run(200, "110s").finish();
    assert_eq!(plane.counted(), (200, 0));

    let identity = IdentityFile::of(&bench, device);
    let authority = Authority::read(&bench.path("data/device-ca.pem"), &bench.path("data/device-ca.key"));
    identity.replace_certificate(&authority.expired(device, &identity.pair()[1]));
    let report = run(300, "3s").report();
    assert_eq!((&report["inferences"], &report["connections"]), (&300.into(), &0.into()), "{report}");
    assert!(report["kept"].as_u64().is_some_and(|kept| kept > 0), "{report}");
    let because = report["disconnected_because"].as_str().expect("a reason").to_lowercase();
    assert!(because.contains("certificate"), "{because}");
    assert_eq!(plane.counted(), (200, 0));

    // The same hardware with the same key becomes the same device, with a new certificate.
    identity.remove();
    run(100, "110s").finish();
    assert_eq!(plane.counted(), (600, 0));
}

#[test]
fn a_certificate_that_expired_while_the_device_was_off_is_renewed() {
    let bench = Bench::new();
    let (plane, ca) = secured(&bench, &["--devices-certificate-life", "4s"]);
    let claim = plane.fleet("pumps");
    agent(&bench, &plane, &claim, "pump-1", 200, "110s").finish();
    let identity = IdentityFile::of(&bench, "pump-1");
    let before = identity.pair();
    wait_for("the end of the certificate's life", || {
        Raw::connect_tls(plane.mqtt_port, "pump-1", &identity.tls(&ca)).is_err()
    });
    agent(&bench, &plane, &claim, "pump-1", 300, "110s").finish();
    assert_eq!(plane.counted(), (500, 0));
    assert_ne!(identity.pair(), before);
}

#[test]
fn a_certificate_is_good_for_its_own_device_only() {
    let bench = Bench::new();
    let (plane, ca) = secured(&bench, &[]);
    let claim = plane.fleet("pumps");
    for device in ["pump-1", "pump-2"] {
        agent(&bench, &plane, &claim, device, 10, "110s").finish();
    }
    assert_eq!(plane.counted(), (20, 0));
    let [honest, liar] = ["pump-1", "pump-2"].map(|device| IdentityFile::of(&bench, device).tls(&ca));
    let port = plane.mqtt_port;
    let (mut device, code) = Raw::connect_tls(port, "pump-1", &honest).expect("welcome");
    assert_eq!(code, 0);

    // Another device's client id: refused, and the other one's connection goes on.
    let refused = Raw::connect_tls(port, "pump-1", &liar);
    assert!(refused.is_err() || refused.is_ok_and(|(_, code)| code != 0));
    device.publish(1, "d/pump-1/up/report", &message(0, 0, &report(1))).expect("sent");
    device.acknowledged(1).expect("acknowledged");
    assert_eq!(plane.counted(), (21, 0));

    // Another device's topic: thrown out.
    let (mut impostor, code) = Raw::connect_tls(port, "pump-2", &liar).expect("welcome");
    assert_eq!(code, 0);
    impostor.publish(1, "d/pump-1/up/report", &message(1, 0, &report(1))).expect("sent");
    assert!(impostor.acknowledged(1).is_err(), "it is thrown out");
    assert_eq!(plane.counted(), (21, 0));
}
