//! A model's way to a running device and back, with nobody at the device: keys, push, assign, trial, commit, revert.

#![cfg(target_os = "linux")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use dunlin_artifact::layout::header;
use dunlin_artifact::{Artifact, Digester};
use dunlin_compiler::AlignedBytes;
use dunlin_test_servers::FakeClock;
use serde_json::Value;
use support::disk::SmallDisk;
use support::plane::{AgentProcess, PATIENCE, Plane, Surroundings, digits, wait_for};
use support::{Bench, model_file};

/// Another artifact of the same model: its name differs.
fn another(bench: &Bench, name: &str) -> String {
    let artifact = bench.path(&format!("{name}.dunlin"));
    let (model, input) = (model_file("digits_resnet_int8.tflite"), model_file("digits_x_int8.npy"));
    support::dunlin(&["compile", &model, "--calibrate", &input, "--name", name, "-o", &artifact]).success();
    artifact
}

/// A control plane with keys and a fleet, and what devices need.
struct Site {
    plane: Plane,
    claim: String,
    input: String,
    /// The first version of the model digits.
    first: String,
    bench: Bench,
}

impl Site {
    fn new() -> Self {
        let bench = Bench::new();
        let plane = Plane::start(&bench, "data", &[]);
        Site::on(plane, bench)
    }

    fn on(plane: Plane, bench: Bench) -> Self {
        let (first, input) = digits(&bench);
        plane.run(&["keys", "create"]);
        let site = Site { claim: plane.fleet("pumps"), plane, bench, input, first };
        site.push(&site.first);
        site
    }

    fn push(&self, artifact: &str) -> u64 {
        let pushed = self.plane.run(&["model", "push", artifact, "--name", "digits"]);
        assert_eq!(pushed["release"]["complete"], true, "{pushed}");
        pushed["version"].as_u64().expect("a version")
    }

    /// A device whose slot the control plane fills.
    fn agent(&self, device: &str, more: &[&str]) -> AgentProcess {
        let mut command = self.command(device, more);
        command.args(["--patience", "110s"]);
        AgentProcess::start(command)
    }

    fn command(&self, device: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command
            .args(["agent", "--json", "--server", self.plane.http(), "--device", device, "--slot", "digits"])
            .args(["--input", &self.input, "--state-dir", &self.bench.path(device)])
            .args(["--rate", "200", "--window", "100ms"])
            .args(more)
            .env("DUNLIN_CLAIM", &self.claim);
        command
    }

    fn assign(&self, device: &str, version: u64) {
        let assigned = format!("digits={version}");
        self.plane.run(&["device", "assign", device, &assigned, "--set", "trial.windows=2"]);
    }

    /// What the device says of its slot.
    fn slot(&self, device: &str) -> Value {
        let shown = self.plane.try_run(&["device", "show", device, "--json"]);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        shown["slots"][0].clone()
    }

    /// Waits until the slot is so.
    #[track_caller]
    fn wait_until(&self, device: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let slot = self.slot(device);
            if is_so(&slot) {
                return slot;
            }
            assert!(Instant::now() < deadline, "waited in vain: {slot}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the slot tells a reason with this in it.
    #[track_caller]
    fn wait_reason(&self, device: &str, part: &str) -> Value {
        self.wait_until(device, |slot| slot["reason"].as_str().is_some_and(|reason| reason.contains(part)))
    }

    #[track_caller]
    fn wait(&self, device: &str, status: &str, version: Option<u64>) -> Value {
        self.wait_until(device, |slot| slot["status"] == status && slot["version"].as_u64() == version)
    }

    /// The kinds of the device's events, and what they say.
    fn events(&self, device: &str) -> Vec<(String, String)> {
        let (status, body) = self.plane.get(&format!("/api/v1/devices/{device}/events"));
        assert_eq!(status, 200);
        let listed: Value = serde_json::from_slice(&body).expect("JSON");
        let items = listed["items"].as_array().expect("events").iter();
        let text = |event: &Value, key: &str| event[key].as_str().expect("text").to_owned();
        items.map(|event| (text(event, "kind"), text(event, "detail"))).collect()
    }
}

#[test]
fn what_is_assigned_is_fetched_tried_and_kept_and_nothing_is_lost_of_what_was_counted() {
    let site = Site::new();
    let second = site.push(&another(&site.bench, "second"));
    let agent = site.agent("pump-1", &[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    assert_eq!(site.wait("pump-1", "running", Some(1))["reason"], "");
    site.assign("pump-1", second);
    assert_eq!(site.wait("pump-1", "running", Some(second))["reason"], "");
    // Back: a new assignment of the old version, which is still on the device.
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    // Taken back, and given again.
    site.plane.run(&["device", "unassign", "pump-1", "digits"]);
    site.wait("pump-1", "empty", None);
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    // A restart runs what was kept, with nobody to ask.
    let report = agent.terminate();
    assert_eq!(report["failures"], 0, "{report}");
    let counted = |report: &Value| report["inferences"].as_u64().expect("a count");
    let again = site.agent("pump-1", &["--count", "100"]).finish();
    assert_eq!((counted(&again), &again["model"]), (100, &report["model"]));
    assert_eq!(site.plane.counted(), (counted(&report) + 100, 0));
    let kinds: Vec<String> = site.events("pump-1").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["restarted", "restarted"]);
}

/// The artifact with a golden output that no device computes, and the digest that belongs to it.
fn with_wrong_golden(bench: &Bench, artifact: &str) -> String {
    let mut bytes = AlignedBytes::new(&std::fs::read(artifact).expect("an artifact"));
    let read = Artifact::parse(bytes.as_slice()).expect("an artifact");
    let outputs = read.golden().nth(1).expect("a second golden vector").outputs;
    let at = outputs.as_ptr().addr() - bytes.as_slice().as_ptr().addr();
    bytes.as_mut_slice()[at] ^= 0x55;
    let mut digester = Digester::new();
    digester.update(bytes.as_slice());
    let digest = digester.finish();
    bytes.as_mut_slice()[header::DIGEST..header::SIZE].copy_from_slice(&digest);
    bench.file("wrong.dunlin", bytes.as_slice())
}

#[test]
fn a_model_that_this_machine_computes_wrongly_never_runs() {
    let site = Site::new();
    let wrong = site.push(&with_wrong_golden(&site.bench, &another(&site.bench, "second")));
    let agent = site.agent("pump-1", &["--artifact", &site.first]);
    site.wait("pump-1", "running", Some(1));
    site.assign("pump-1", wrong);
    let slot = site.wait_reason("pump-1", "golden");
    assert_eq!((&slot["status"], &slot["version"]), (&"running".into(), &1.into()), "{slot}");
    let reason = slot["reason"].as_str().expect("a reason");
    assert!(reason.contains("version 2") && reason.contains("vector 1: output 0 element 0"), "{reason}");
    let report = agent.terminate();
    assert_eq!(site.plane.counted(), (report["inferences"].as_u64().expect("a count"), 0));
    let events = site.events("pump-1");
    assert!(
        events.iter().any(|(kind, detail)| kind == "golden_mismatch" && detail.contains("vector 1")),
        "{events:?}"
    );
    let shown = site.plane.run(&["stats"]);
    assert!(shown["items"].as_array().expect("items").iter().all(|item| item["version"] == 1), "{shown}");
}

#[test]
fn a_model_that_fails_on_trial_gives_way_to_the_one_before_it() {
    let site = Site::new();
    // It takes other inputs than this application has: it can be started nowhere.
    let model = model_file("keyword_dscnn_int8.tflite");
    let other = site.bench.path("other.dunlin");
    support::dunlin(&["compile", &model, "-o", &other]).success();
    let other = site.push(&other);
    let agent = site.agent("pump-1", &[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    site.assign("pump-1", other);
    let slot = site.wait_reason("pump-1", "could not be started");
    assert_eq!((&slot["status"], &slot["version"]), (&"running".into(), &1.into()), "{slot}");
    agent.terminate();
    let events = site.events("pump-1");
    assert!(
        events.iter().any(|(kind, detail)| kind == "reverted" && detail.contains("started")),
        "{events:?}"
    );
}

#[test]
fn a_server_that_is_gone_in_the_middle_holds_an_update_up_and_no_more() {
    let mut site = Site::new();
    let second = site.push(&another(&site.bench, "second"));
    // So slow that the server is killed while it sends.
    let agent = site.agent("pump-1", &["--artifact", &site.first, "--download-rate", "20000"]);
    site.wait("pump-1", "running", Some(1));
    site.assign("pump-1", second);
    site.wait("pump-1", "updating", Some(1));
    for _ in 0..2 {
        site.plane.kill();
        site.plane.resume();
    }
    site.wait("pump-1", "running", Some(second));
    let report = agent.terminate();
    assert_eq!(site.plane.counted(), (report["inferences"].as_u64().expect("a count"), 0));
}

#[test]
fn a_device_that_is_killed_at_any_moment_runs_the_old_or_the_new_model() {
    const KILLS: u64 = 24;
    let site = Site::new();
    let second = site.push(&another(&site.bench, "second"));
    let agent = site.agent("pump-1", &[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    let old = agent.terminate()["model"].clone();
    site.plane.run(&["device", "assign", "pump-1", &format!("digits={second}"), "--set", "trial.boots=200"]);
    let mut seen = Vec::new();
    for kill in 0..KILLS {
        // It takes about a second from start to trial; every kill comes a bit later than the one before.
        let agent = site.agent("pump-1", &[]);
        std::thread::sleep(Duration::from_millis(kill * 50));
        agent.kill();
        // With nobody to ask, it runs one of them at once.
        let alone = AgentProcess::start(site.command("pump-1", &["--count", "1", "--patience", "0s"]));
        seen.push(alone.report()["model"].clone());
    }
    let new = seen.iter().find(|model| **model != old);
    assert!(seen.iter().all(|model| *model == old || Some(model) == new), "{seen:?}");
    let agent = site.agent("pump-1", &[]);
    site.wait("pump-1", "running", Some(second));
    let last = agent.terminate()["model"].clone();
    assert!(last != old && new.is_none_or(|new| *new == last));
    println!(
        "killed {KILLS} times; the new model ran after {} of them",
        seen.iter().filter(|model| **model != old).count()
    );
}

#[test]
fn a_full_disk_holds_an_update_up_and_nothing_is_lost() {
    let site = Site::new();
    let second = site.push(&another(&site.bench, "second"));
    // Twice what the queue of telemetry takes at most.
    let disk = SmallDisk::mount(&site.bench, "pump-1", 4);
    let surroundings = disk.surroundings();
    let inner = site.command("pump-1", &["--artifact", &site.first]);
    let mut command = Command::new(&surroundings.launcher[0]);
    command.args(&surroundings.launcher[1..]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let agent = AgentProcess::start(command);
    site.wait("pump-1", "running", Some(1));
    disk.fill();
    site.assign("pump-1", second);
    let slot = site.wait_reason("pump-1", "No space left");
    assert_eq!(slot["version"], 1, "{slot}");
    disk.make_room();
    site.wait("pump-1", "running", Some(second));
    let report = agent.terminate();
    assert_eq!(site.plane.counted(), (report["inferences"].as_u64().expect("a count"), 0));
}

#[test]
#[ignore = "needs libfaketime"]
fn a_device_that_was_off_for_a_month_or_whose_clock_lies_converges() {
    let bench = Bench::new();
    let clock = |name: &str| FakeClock::new(bench.path(name).as_ref()).expect("a clock");
    let (servers, devices) = (clock("server.clock"), clock("device.clock"));
    let surroundings = Surroundings { variables: servers.variables(), ..Surroundings::default() };
    let plane = Plane::start_in(surroundings, &bench, "data", &[]);
    let site = Site::on(plane, bench);
    let start = |more: &[&str]| {
        let mut command = site.command("pump-1", more);
        command.envs(devices.variables());
        AgentProcess::start(command)
    };
    let agent = start(&[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    agent.terminate();
    // While it is off, another version is assigned, and a month passes.
    let second = site.push(&another(&site.bench, "second"));
    site.assign("pump-1", second);
    servers.jump("+31d").expect("written");
    devices.jump("+31d").expect("written");
    let agent = start(&[]);
    site.wait("pump-1", "running", Some(second));
    agent.terminate();
    // A clock that is years ahead: what is assigned seems to have expired, and the model runs on.
    devices.jump("+2000d").expect("written");
    let agent = start(&[]);
    site.assign("pump-1", 1);
    let slot = site.wait_reason("pump-1", "the assignment expired");
    assert_eq!((&slot["status"], &slot["version"]), (&"running".into(), &second.into()), "{slot}");
    devices.jump("+31d").expect("written");
    site.wait("pump-1", "running", Some(1));
    agent.terminate();
}
